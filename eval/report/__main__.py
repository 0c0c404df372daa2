"""The command `python -m eval.report`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from common.console import run_command
from eval.report.build import write_report


def main() -> None:
    """The command `python -m eval.report`."""
    parser = argparse.ArgumentParser(prog="python -m eval.report", description="Write report.html of a run folder.")
    parser.add_argument("folder", help="run folder of quickstart or of a training script")
    parser.add_argument("--title", default="tritune report", help="heading of the page (default: tritune report)")
    options = parser.parse_args()
    print(write_report(Path(options.folder), title=options.title))


if __name__ == "__main__":
    sys.exit(run_command(main))
