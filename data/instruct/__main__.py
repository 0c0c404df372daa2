"""The command `python -m data.instruct`."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from pathlib import Path

from common.console import UserError, run_command
from common.files import write_json, write_jsonl
from common.options import as_settings, option, parse
from data.checks.prove import KINDS, UNPROVEN
from data.corpus import SPLITS, open_corpus
from data.instruct.build import CATEGORIES, build_instruction_pairs, category_counts
from data.instruct.phrasings import read_instructions
from data.instruct.summary import about, instruction_summary
from data.instruct.teacher_options import TEACHER, TeacherOptions, teacher_of
from data.instruct.teaching import TAUGHT

PAIRS = "which pairs to make"


@dataclass(frozen=True, kw_only=True)
class Options(TeacherOptions):
    """Options of this command."""

    GROUPS = (PAIRS,)

    corpus: str = option(help="folder written by data.corpus, or any SOURCE that it takes", positional=True)
    out: Path = option(help="folder to write", metavar="DIR")
    count: int = option(400, "training pairs", PAIRS)
    test_count: int = option(60, "test pairs", PAIRS)
    validation_count: int = option(24, "validation pairs", PAIRS)
    share: tuple[str, ...] = option(
        (), f"share of the pairs, 0 to 1, of any of {', '.join(CATEGORIES)}; the others except fim divide the rest "
        "(default: six equal shares, no fim)", PAIRS, metavar="CATEGORY=SHARE",
    )  # fmt: skip
    checks: tuple[str, ...] = option(
        KINDS, "how an answer may be proven, in order of preference: doctest (in JavaScript and TypeScript: the calls "
        "that JSDoc shows); values and tests, which run the repository's own tests once, in the sandbox; "
        f"{UNPROVEN}, which accepts functions without a proof and runs "
        "nothing", PAIRS, choices=(*KINDS, UNPROVEN), metavar="KIND",
    )  # fmt: skip
    whole_line_bugs: bool = option(False, "also bugs that remove, unwrap or reorder whole lines", PAIRS)
    instructions: Path | None = option(
        None, "instructions in place of ours: JSON {category: [instruction, …]}", PAIRS, metavar="FILE"
    )
    most_input: int = option(2400, "characters of instruction and input at most", PAIRS)
    most_output: int = option(700, "characters of output at most", PAIRS)
    teacher_categories: tuple[str, ...] = option(
        TAUGHT, "categories that the teacher answers; elsewhere, and where none of its answers holds, the repository's "
        "own stay", TEACHER, choices=CATEGORIES, metavar="CATEGORY",
    )  # fmt: skip
    seed: int = option(0, "seed of every draw")

    def shares(self) -> dict[str, float]:
        """--share as {category: share}. UserError for what is not CATEGORY=NUMBER."""
        return dict(map(_share, self.share))


def _share(text: str) -> tuple[str, float]:
    name, _, number = text.partition("=")
    try:
        share = float(number)
    except ValueError:
        share = math.nan
    if not math.isfinite(share):
        raise UserError(f"--share: {text!r} is not CATEGORY=NUMBER, such as bugfix=0.3")
    return name, share


def main() -> None:
    """Make instruction pairs from a corpus: train.jsonl, validation.jsonl, test.jsonl, rejects.jsonl, about.json."""
    options = parse(Options, description=main.__doc__)
    shares = options.shares()
    category_counts(0, shares)  # refuse impossible shares before a corpus is read
    instructions = read_instructions(options.instructions) if options.instructions else {}
    corpus = open_corpus(options.corpus, seed=options.seed)
    teacher = teacher_of(options, options.out)
    pairs = build_instruction_pairs(
        corpus, count=options.count, test_count=options.test_count, validation_count=options.validation_count,
        most_input=options.most_input, most_output=options.most_output, seed=options.seed, shares=shares,
        checks=options.checks, teacher=teacher, candidates=options.teacher_candidates,
        taught=options.teacher_categories, whole_line_bugs=options.whole_line_bugs,
        instructions=instructions,
    )  # fmt: skip
    for split in SPLITS:
        write_jsonl(options.out / f"{split}.jsonl", pairs.split(split))
    write_jsonl(options.out / "rejects.jsonl", pairs.rejects)
    settings = as_settings(options, without=("out", "corpus")) | {"share": shares}
    write_json(
        options.out / "about.json", about(corpus, settings, pairs, teacher, options.teacher_categories, instructions)
    )
    print(instruction_summary(pairs))
    if teacher:
        print(f"teacher  {teacher.summary()}")


if __name__ == "__main__":
    sys.exit(run_command(main))
