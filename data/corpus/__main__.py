"""The command `python -m data.corpus`."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from common.console import run_command
from common.options import option, parse
from data.corpus import curate
from data.corpus.build import corpus_summary, write_corpus
from data.corpus.locate import KINDS


@dataclass(frozen=True, kw_only=True)
class Options(curate.Options):
    """Options of this command."""

    GROUPS = (curate.KEEP, curate.SPLIT)

    source: tuple[str, ...] = option(help=KINDS, positional=True)
    out: str = option(help="folder to write; replaced if it exists", metavar="DIR")
    processes: int | None = option(None, "processes that examine files (default: one per core)", least=1)


def main() -> None:
    """Curate sources into a folder: filtered, deduplicated, redacted and split files."""
    options = parse(Options, description=main.__doc__)
    print(corpus_summary(write_corpus(options.source, options.out, options, processes=options.processes)))


if __name__ == "__main__":
    sys.exit(run_command(main))
