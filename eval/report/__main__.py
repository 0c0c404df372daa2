"""The command `python -m eval.report`."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from common.console import run_command
from common.options import option, parse
from eval.report.build import write_report


@dataclass(frozen=True)
class Options:
    """Options of this command."""

    folder: Path = option(help="run folder of quickstart or of a training script", positional=True, metavar="RUN")
    title: str = option("tritune report", "heading of the page")


def main() -> None:
    """Write report.html of a run folder."""
    options = parse(Options, description=main.__doc__)
    print(write_report(options.folder, title=options.title))


if __name__ == "__main__":
    sys.exit(run_command(main))
