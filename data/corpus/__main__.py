"""The command `python -m data.corpus`."""

from __future__ import annotations

import argparse
import sys

from common.console import UserError, run_command
from data.corpus.build import corpus_summary, write_corpus
from data.corpus.curate import Options
from data.corpus.languages import NAMES
from data.corpus.locate import KINDS


def main() -> None:
    """Curate sources into a folder."""
    parser = argparse.ArgumentParser(prog="python -m data.corpus", description=main.__doc__)
    parser.add_argument("source", nargs="+", metavar="SOURCE", help=f"{KINDS}; several may be given")
    parser.add_argument("--out", required=True, help="folder to write (replaced if it exists)")
    parser.add_argument("--max-files", type=int, default=300, help="files kept at most (default 300)")
    parser.add_argument("--test-share", type=float, default=0.2, help="share of files to test on (default 0.2)")
    parser.add_argument("--validation-share", type=float, default=0.05, help="share to validate on (default 0.05)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the draw and the split (default 0)")
    parser.add_argument(
        "--split-by", choices=["file", "module"], default="file",
        help="module: the files of a folder all go to one side (default file)",
    )  # fmt: skip
    parser.add_argument(
        "--languages", nargs="+", choices=list(NAMES), default=["python"],
        help="languages that are read; all but python need tree-sitter (default python)",
    )  # fmt: skip
    parser.add_argument(
        "--no-redact", dest="redact", action="store_false",
        help="keep e-mail and IP addresses, keys and passwords (default: placeholders in their place)",
    )  # fmt: skip
    parser.add_argument(
        "--licenses", nargs="+", metavar="SPDX", help="keep only files under these licences (default: under any)"
    )
    parser.add_argument(
        "--decontaminate", nargs="+", default=[], metavar="FILE",
        help="MBPP's or HumanEval's own files: what holds 13 words in a row of a task is rejected",
    )  # fmt: skip
    parser.add_argument("--processes", type=int, help="processes that examine files (default: one a core)")
    given = vars(parser.parse_args())
    sources, out, processes = (given.pop(name) for name in ("source", "out", "processes"))
    if processes is not None and processes < 1:
        raise UserError(f"--processes is {processes}; give at least 1")
    options = Options(**{key: tuple(value) if isinstance(value, list) else value for key, value in given.items()})
    print(corpus_summary(write_corpus(sources, out, options, processes=processes)))


if __name__ == "__main__":
    sys.exit(run_command(main))
