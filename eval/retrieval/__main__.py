"""The command `python -m eval.retrieval`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from common.console import run_command
from common.files import write_json, write_text
from eval.model_options import add_dtype_options
from eval.retrieval.codes import FORMS, in_form
from eval.retrieval.failures import worst_queries
from eval.retrieval.files import read_retrieval
from eval.retrieval.measure import evaluate_retrieval
from eval.retrieval.table import as_markdown, ranking_table
from model import load_encoder
from model.device import choose_device, choose_dtype
from model.encoder_files import add_encoder_options, encoder_options


def main() -> None:
    """The command `python -m eval.retrieval`."""
    parser = argparse.ArgumentParser(
        prog="python -m eval.retrieval", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, help="encoder: a folder, a hub id or an embedded default")
    parser.add_argument("--base", help="another encoder to hold it against, such as what it was tuned from")
    parser.add_argument(
        "--data", required=True,
        help="text–code pairs, JSON Lines, or a folder of data.pairs; CodeSearchNet's .jsonl, CoSQA's .json, a folder "
        "of BEIR or CoIR (qrels/test.tsv; or give its qrels/F.tsv)",
    )  # fmt: skip
    parser.add_argument("--candidates", help="codes to search, JSON Lines with id and code (default: those of --data)")
    parser.add_argument(
        "--code", nargs="+", choices=FORMS, default=["as-is"],
        help="forms of the codes to measure, the first before the others; renamed is without docstrings too "
        "(default: as-is)",
    )  # fmt: skip
    parser.add_argument("--worst", type=int, default=15, help="queries to explain (default: %(default)s)")
    add_dtype_options(parser)
    parser.add_argument("--seed", type=int, default=0, help="of the ranking by chance (default: %(default)s)")
    parser.add_argument("--out", required=True, type=Path, help="result, JSON; F.md beside F.json is for reading")
    add_encoder_options(parser)
    options = parser.parse_args()
    queries, candidates = read_retrieval(options.data, options.candidates)  # before a model is fetched
    device = choose_device(options.device)
    dtype, how = choose_dtype(device, options.dtype), encoder_options(options)
    encoder = load_encoder(options.model, device=device, **how)
    base = load_encoder(options.base, device=device, **how) if options.base else None
    for each in filter(None, (encoder, base)):
        each.compute_dtype = dtype

    results, told_all = {}, []
    for form in dict.fromkeys(options.code):
        rows, changed = in_form(candidates, form)
        results[form] = evaluate_retrieval(encoder, queries, rows, base=base, seed=options.seed)
        results[form] |= {"form": form, "changed": changed}
        results[form]["worst"] = worst_queries(results[form], queries, rows, options.worst)
        head = f"codes {form}" + (f" ({changed:,} changed)" if changed else "")
        told_all.append(f"{head} · {ranking_table(results[form], Path(options.model).name)}")
        print(told_all[-1])
    whole, *others = results.values()
    write_json(options.out, whole | {"forms": {other["form"]: other for other in others}})
    write_text(options.out.with_suffix(".md"), as_markdown(told_all, whole["worst"]))
    print(f"written to {options.out} and {options.out.with_suffix('.md')}")


if __name__ == "__main__":
    sys.exit(run_command(main, needs_less_with="--device cpu or a smaller --max-length"))
