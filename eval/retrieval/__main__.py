"""Measure how well an encoder finds the code for each query, beside BM25 and chance.

    python -m eval.retrieval --model M --data codes/test.jsonl --candidates codes/candidates.jsonl --out result.json

Every candidate competes; none is sampled.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from common.console import run_command
from common.files import write_json, write_text
from common.options import option, parse
from eval.model_options import MEASURE, MODEL, ComputeOptions
from eval.retrieval.codes import FORMS, in_form
from eval.retrieval.failures import worst_queries
from eval.retrieval.files import read_retrieval
from eval.retrieval.measure import evaluate_retrieval
from eval.retrieval.table import as_markdown, ranking_table
from model import load_encoder
from model.device import choose_device, choose_dtype
from model.encoder_options import VECTORS, EncoderOptions


@dataclass(frozen=True, kw_only=True)
class Options(EncoderOptions, ComputeOptions):
    """Options of this command."""

    GROUPS = (MEASURE, MODEL, VECTORS)

    model: str = option(help="encoder: folder, hub id or embedded default")
    data: str = option(
        help="text–code pairs, JSON Lines, or a folder of data.pairs; CodeSearchNet's .jsonl, CoSQA's .json, a folder "
        "of BEIR or CoIR (its qrels/test.tsv; for another split give qrels/NAME.tsv)",
    )
    out: Path = option(help="result, JSON; F.md beside F.json is for reading", metavar="FILE")
    candidates: str | None = option(
        None, "codes to search, JSON Lines with id and code (default: those of --data)", MEASURE, metavar="FILE"
    )
    code: tuple[str, ...] = option(
        ("as-is",), "forms of the codes to measure on, the first one as the main result; renamed also drops docstrings",
        MEASURE, choices=FORMS,
    )  # fmt: skip
    worst: int = option(15, "queries to explain", MEASURE)
    base: str | None = option(None, "another encoder to compare with, such as the one before tuning", MODEL)
    seed: int = option(0, "seed of the random ranking")


def main() -> None:
    """Command line: read, rank, write the result, print a table per form."""
    options = parse(Options, description=__doc__)
    queries, candidates = read_retrieval(options.data, options.candidates)  # before a model is fetched
    device = choose_device(options.device)
    dtype, how = choose_dtype(device, options.dtype), options.overrides()
    encoder = load_encoder(options.model, device=device, **how)
    base = load_encoder(options.base, device=device, **how) if options.base else None
    for each in filter(None, (encoder, base)):
        each.compute_dtype = dtype

    results, tables = {}, []
    for form in dict.fromkeys(options.code):
        rows, changed = in_form(candidates, form)
        results[form] = evaluate_retrieval(encoder, queries, rows, base=base, seed=options.seed)
        results[form] |= {"form": form, "changed": changed}
        results[form]["worst"] = worst_queries(results[form], queries, rows, options.worst)
        head = f"codes {form}" + (f" ({changed:,} changed)" if changed else "")
        tables.append(f"{head} · {ranking_table(results[form], Path(options.model).name)}")
        print(tables[-1])
    whole, *others = results.values()
    write_json(options.out, whole | {"forms": {other["form"]: other for other in others}})
    write_text(options.out.with_suffix(".md"), as_markdown(tables, whole["worst"]))
    print(f"written to {options.out} and {options.out.with_suffix('.md')}")


if __name__ == "__main__":
    sys.exit(run_command(main, needs_less_with="--device cpu or a smaller --max-length"))
