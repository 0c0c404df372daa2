"""The command `python -m data.instruct`."""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

from common.console import run_command
from common.files import write_json, write_jsonl
from data.checks.prove import KINDS, UNPROVEN
from data.corpus import SPLITS, open_corpus
from data.instruct.build import CATEGORIES, about, build_instruction_pairs, category_counts, instruction_summary
from data.instruct.teaching import add_teacher_options, teacher_of


def _share(text: str) -> tuple[str, float]:
    name, sign, number = text.partition("=")
    try:
        share = float(number)
    except ValueError:
        share = math.nan
    if not sign or not math.isfinite(share):
        raise argparse.ArgumentTypeError(f"{text!r} is not CATEGORY=NUMBER, such as bugfix=0.3")
    return name, share


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m data.instruct", description=main.__doc__)
    parser.add_argument("corpus", help="a folder written by data.corpus, or any SOURCE that it takes")
    parser.add_argument("--out", required=True, type=Path, help="folder to write into")
    parser.add_argument("--count", type=int, default=400, help="training pairs wanted (default 400)")
    parser.add_argument("--test-count", type=int, default=60, help="test pairs wanted (default 60)")
    parser.add_argument("--validation-count", type=int, default=24, help="validation pairs wanted (default 24)")
    parser.add_argument(
        "--share", type=_share, nargs="+", default=[], metavar="CATEGORY=SHARE",
        help=f"shares of the pairs, 0 to 1, of some of {', '.join(CATEGORIES)}; the others but fim divide what is left "
        "(default: six alike, no fim)",
    )  # fmt: skip
    parser.add_argument(
        "--checks", nargs="+", choices=[*KINDS, UNPROVEN], default=list(KINDS), metavar="KIND",
        help="what may prove an answer, in the order in which it is tried: doctest; values and tests, which run the "
        f"repository's own tests once, in the sandbox; {UNPROVEN}, which runs nothing and takes a function without "
        "proof (default: doctest values tests)",
    )  # fmt: skip
    parser.add_argument(
        "--most-input", type=int, default=2400, help="characters of instruction and input (default 2400)"
    )
    parser.add_argument("--most-output", type=int, default=700, help="characters of output (default 700)")
    parser.add_argument("--seed", type=int, default=0, help="seed of every draw (default 0)")
    add_teacher_options(parser)
    options = parser.parse_args()
    options.share = dict(options.share)
    category_counts(0, options.share)  # refuse before a corpus is read, not after
    return options


def main() -> None:
    """Make instruction pairs from a corpus: train.jsonl, validation.jsonl, test.jsonl, rejects.jsonl, about.json."""
    options = _parse_options()
    corpus = open_corpus(options.corpus, seed=options.seed)
    teacher = teacher_of(options)
    pairs = build_instruction_pairs(
        corpus, count=options.count, test_count=options.test_count, validation_count=options.validation_count,
        most_input=options.most_input, most_output=options.most_output, seed=options.seed, shares=options.share,
        checks=options.checks, teacher=teacher, candidates=options.teacher_candidates,
    )  # fmt: skip
    for split in SPLITS:
        write_jsonl(options.out / f"{split}.jsonl", pairs.split(split))
    write_jsonl(options.out / "rejects.jsonl", pairs.rejects)
    write_json(options.out / "about.json", about(corpus, options, pairs, teacher))
    print(instruction_summary(pairs))
    if teacher:
        print(f"teacher  {teacher.summary(options.teacher_prices)}")


if __name__ == "__main__":
    sys.exit(run_command(main))
