"""The command `python -m data.corpus`."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from common.console import run_command
from common.options import option, parse
from data.corpus import curate
from data.corpus.build import corpus_summary, write_corpus
from data.corpus.languages import NAMES
from data.corpus.locate import KINDS

KEEP = "which files to keep"
SPLIT = "the split"


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of this command."""

    source: tuple[str, ...] = option(help=KINDS, positional=True)
    out: str = option(help="folder to write; replaced if it exists", metavar="DIR")
    max_files: int = option(300, "files to keep at most, drawn by the seed", KEEP)
    languages: tuple[str, ...] = option(
        ("python",), f"languages to read, of {', '.join(NAMES)}; all but python need tree-sitter", KEEP,
        choices=tuple(NAMES), metavar="LANGUAGE",
    )  # fmt: skip
    licenses: tuple[str, ...] | None = option(
        None, "keep only files under these licences (default: any)", KEEP, metavar="SPDX"
    )
    decontaminate: tuple[str, ...] = option(
        (), "MBPP's or HumanEval's own files: reject files that share 13 consecutive words with a task", KEEP,
        metavar="FILE",
    )  # fmt: skip
    redact: bool = option(
        True, "keep e-mail and IP addresses, keys and passwords (default: replace them by placeholders)", KEEP
    )
    test_share: float = option(0.2, "share of the files to test on", SPLIT)
    validation_share: float = option(0.05, "share of the files to validate on", SPLIT)
    split_by: str = option(
        "file", "module: keep the files of a folder on the same side", SPLIT, choices=("file", "module")
    )
    seed: int = option(0, "seed of the draw and the split")
    processes: int | None = option(None, "processes that examine files (default: one per core)", least=1)


def main() -> None:
    """Curate sources into a folder: filtered, deduplicated, redacted and split files."""
    options = parse(Options, description=main.__doc__)
    rules = curate.Options(
        max_files=options.max_files, test_share=options.test_share, validation_share=options.validation_share,
        seed=options.seed, split_by=options.split_by, languages=options.languages, redact=options.redact,
        licenses=options.licenses, decontaminate=options.decontaminate,
    )  # fmt: skip
    print(corpus_summary(write_corpus(list(options.source), options.out, rules, processes=options.processes)))


if __name__ == "__main__":
    sys.exit(run_command(main))
