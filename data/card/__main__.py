"""The command `python -m data.card`."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from common.console import run_command
from common.options import option, parse
from data.card.build import card_summary, write_card_files
from data.card.material import read_material


@dataclass(frozen=True)
class Options:
    """Options of this command."""

    folder: Path = option(
        help="output of data.corpus, data.instruct or data.pairs, or a folder that contains such outputs",
        positional=True, metavar="DIR",
    )  # fmt: skip


def main() -> None:
    """Write data_card.md, data_card.html and croissant.json for the data in a folder."""
    material = read_material(parse(Options, description=main.__doc__).folder)
    print(card_summary(material))
    for path in write_card_files(material):
        print(f"written  {path}")


if __name__ == "__main__":
    sys.exit(run_command(main))
