"""The command `python -m data.pairs`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from common.console import run_command
from data.corpus import open_corpus
from data.instruct.teaching import add_teacher_options, teacher_of
from data.pairs.build import build_text_code_pairs, save_text_code_pairs, text_code_summary
from data.pairs.mining import TOP
from data.pairs.queries import ORIGINS
from model import load_encoder
from model.encoder_files import add_encoder_options, encoder_options


def main() -> None:
    """Make text-code pairs from a corpus: train.jsonl, test.jsonl, candidates.jsonl, rejects.jsonl, about.json."""
    parser = argparse.ArgumentParser(prog="python -m data.pairs", description=main.__doc__)
    parser.add_argument("corpus", help="a folder written by data.corpus, or any SOURCE that it takes")
    parser.add_argument("--out", required=True, type=Path, help="folder to write into")
    parser.add_argument("--count", type=int, default=300, help="training pairs wanted (default 300)")
    parser.add_argument("--test-count", type=int, default=300, help="test pairs wanted (default 300)")
    parser.add_argument("--min-lines", type=int, default=3, help="lines of a function's code at least (default 3)")
    parser.add_argument("--max-lines", type=int, default=120, help="lines of a function's code at most (default 120)")
    parser.add_argument(
        "--from", dest="origins", nargs="+", choices=ORIGINS, default=ORIGINS,
        help="what queries are made from, the first that a code has is used first (default: all, in this order); a "
        "teacher's queries come before them",
    )  # fmt: skip
    parser.add_argument("--queries-per-code", type=int, default=1, help="training queries a code (default 1)")
    parser.add_argument(
        "--keep-top", type=int, default=TOP,
        help=f"drop training pairs whose code is not in the best N for its query (default {TOP}; 0: all stay); BM25 "
        "keeps what shares words with its code, --model judges by meaning",
    )  # fmt: skip
    parser.add_argument("--negatives", type=int, default=4, help="hard negatives a training pair (default 4)")
    parser.add_argument("--model", help="encoder that judges pairs and negatives, beside BM25 (default: BM25 alone)")
    add_encoder_options(parser)
    parser.add_argument("--rename", action="store_true", help="also write renamed/: identifiers of the codes replaced")
    parser.add_argument("--seed", type=int, default=0, help="seed of every draw (default 0)")
    add_teacher_options(parser)
    options = parser.parse_args()
    corpus = open_corpus(options.corpus, seed=options.seed)
    teacher = teacher_of(options)
    pairs = build_text_code_pairs(
        corpus, count=options.count, test_count=options.test_count, min_lines=options.min_lines,
        max_lines=options.max_lines, seed=options.seed, origins=options.origins,
        queries_per_code=options.queries_per_code, keep_top=options.keep_top, negatives=options.negatives,
        encoder=load_encoder(options.model, **encoder_options(options)) if options.model else None,
        rename=options.rename, teacher=teacher, teacher_candidates=options.teacher_candidates,
    )  # fmt: skip
    save_text_code_pairs(pairs, options.out)
    print(text_code_summary(pairs))
    if teacher:
        print(f"teacher  {teacher.summary(options.teacher_prices)}")


if __name__ == "__main__":
    sys.exit(run_command(main))
