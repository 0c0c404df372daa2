"""The command `python -m data.pairs`."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from common.console import run_command
from common.options import option, parse
from data.corpus import open_corpus
from data.instruct.teacher_options import TeacherOptions, teacher_of
from data.pairs.build import build_text_code_pairs, save_text_code_pairs, text_code_summary
from data.pairs.mining import TOP
from data.pairs.queries import ORIGINS
from model import load_encoder
from model.encoder_options import VECTORS, EncoderOptions

PAIRS = "which pairs to make"
JUDGE = "which pairs to keep, and their negatives"


@dataclass(frozen=True, kw_only=True)
class Options(EncoderOptions, TeacherOptions):
    """Options of this command."""

    GROUPS = (PAIRS, JUDGE, VECTORS)

    corpus: str = option(help="folder written by data.corpus, or any SOURCE that it takes", positional=True)
    out: Path = option(help="folder to write", metavar="DIR")
    count: int = option(300, "training pairs", PAIRS)
    test_count: int = option(300, "test pairs", PAIRS)
    min_lines: int = option(3, "lines of a function at least", PAIRS)
    max_lines: int = option(120, "lines of a function at most", PAIRS)
    origins: tuple[str, ...] = option(
        ORIGINS, "sources of queries, in order of preference; a teacher's queries come first", PAIRS, flag="--from",
        choices=ORIGINS, metavar="ORIGIN",
    )  # fmt: skip
    queries_per_code: int = option(1, "training queries per code", PAIRS)
    rename: bool = option(False, "also write renamed/, in which the identifiers of the codes are replaced", PAIRS)
    keep_top: int = option(
        TOP, "drop training pairs whose code BM25 or --model ranks below this for its query (0: keep all)", JUDGE
    )
    negatives: int = option(4, "hard negatives per training pair", JUDGE)
    model: str | None = option(
        None, "encoder that judges pairs and negatives in addition to BM25 (default: BM25 alone)", JUDGE
    )
    seed: int = option(0, "seed of every draw")


def main() -> None:
    """Make text–code pairs from a corpus: train.jsonl, test.jsonl, candidates.jsonl, rejects.jsonl, about.json."""
    options = parse(Options, description=main.__doc__)
    corpus = open_corpus(options.corpus, seed=options.seed)
    teacher = teacher_of(options, options.out)
    pairs = build_text_code_pairs(
        corpus, count=options.count, test_count=options.test_count, min_lines=options.min_lines,
        max_lines=options.max_lines, seed=options.seed, origins=options.origins,
        queries_per_code=options.queries_per_code, keep_top=options.keep_top, negatives=options.negatives,
        encoder=load_encoder(options.model, **options.overrides()) if options.model else None,
        rename=options.rename, teacher=teacher, teacher_candidates=options.teacher_candidates,
    )  # fmt: skip
    save_text_code_pairs(pairs, options.out)
    print(text_code_summary(pairs))
    if teacher:
        print(f"teacher  {teacher.summary()}")


if __name__ == "__main__":
    sys.exit(run_command(main))
