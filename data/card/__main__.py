"""The command `python -m data.card`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from common.console import run_command
from data.card.build import card_summary, write_card_files
from data.card.material import read_material


def main() -> None:
    """Write data_card.md, data_card.html and croissant.json from the data in a folder."""
    parser = argparse.ArgumentParser(prog="python -m data.card", description=main.__doc__)
    parser.add_argument(
        "folder", type=Path, metavar="DIR",
        help="what data.corpus, data.instruct or data.pairs wrote, or the folder above such folders",
    )  # fmt: skip
    material = read_material(parser.parse_args().folder)
    print(card_summary(material))
    for path in write_card_files(material):
        print(f"written  {path}")


if __name__ == "__main__":
    sys.exit(run_command(main))
