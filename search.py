"""Search a repository by meaning.

python search.py index package:networkx --out runs/networkx.index
python search.py query runs/networkx.index "shortest path between two nodes"
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from pathlib import Path

import numpy as np

from data.corpus import build_corpus
from data.functions import functions_of
from data.index import build_index, open_index, refuse_other_folder
from model import load_encoder
from model.console import UserError, progress, run_command
from model.encoder_files import add_encoder_options, encoder_options

DEFAULT_MODEL = "all-minilm-l6-v2"
EVERYTHING = 1_000_000  # a search leaves out no file for their number, and no function for its length


def units_of(source: str) -> tuple[list[dict], Counter]:
    """Every function of a repository: {"path", "qualname", "lines": [first, last], "code"}, and file rejects by reason.

    Docstrings stay in the code: here they are what a searcher has to go by, not an answer to be hidden.
    Raises UserError if there is no function.
    """
    corpus = build_corpus(source, max_files=EVERYTHING)
    units = [
        {
            "path": function.path,
            "qualname": function.qualname,
            "lines": [function.first_line, function.last_line],
            "code": function.source,
        }
        for file in progress(corpus.files, what="reading functions", unit="file")
        for function in functions_of(file, min_lines=2, max_lines=EVERYTHING)
    ]
    if not units:
        raise UserError(f"{source}: no function in its {len(corpus.files)} files; there is nothing to search")
    return units, Counter(reject["reason"] for reject in corpus.rejects)


def index_command(options: argparse.Namespace) -> None:
    """Write the index of a repository's functions."""
    refuse_other_folder(options.out)
    units, rejects = units_of(options.repo)
    encoder = load_encoder(options.model, **encoder_options(options))
    texts = [unit["code"] for unit in units]
    cut = encoder.reach_the_limit(texts, kind="passage")
    description = encoder.describe()
    if Path(description["model"]).is_dir():
        description["model"] = str(Path(description["model"]).resolve())  # found again from another folder
    vectors = encoder.encode(texts, kind="passage").numpy()
    manifest = build_index(options.out, vectors, units, manifest=description)
    print(f"{len(units)} functions of {len({unit['path'] for unit in units})} files in {options.out}")
    for reason, number in rejects.most_common():
        print(f"  left out: {number} files ({reason})")
    if cut:
        longest = encoder.embedding.max_length
        print(f"  {cut} functions reach the model's {longest} tokens: only their beginning is searched")
    print(f"  recall@10 of the graph against exact search: {manifest['recall@10']:.3f}")


def query_command(options: argparse.Namespace) -> None:
    """Print the functions nearest in meaning."""
    if options.k < 1:
        raise UserError(f"--k is {options.k}; ask for at least one result")
    if not options.text.strip():
        raise UserError("the query is empty; say what you are looking for")
    index = open_index(options.index)

    made = {name: index.manifest[name] for name in ("pooling", "query_prefix", "passage_prefix")}
    encoder = load_encoder(options.model or index.manifest["model"], **made)
    vector = np.asarray(encoder.encode([options.text], kind="query"))
    ids, scores = index.search(vector, options.k, made_by=encoder.describe(), exact=options.exact)
    found = [{**index.units[i], "score": round(float(score), 4)} for i, score in zip(ids[0], scores[0], strict=True)]
    if options.json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
        return
    places = [place_of(unit) for unit in found]
    width = max(map(len, places))
    for place, unit in zip(places, found, strict=True):
        print(f"{place:{width}}  {unit['score']:.3f}  {first_line(unit['code'])}")


def place_of(unit: dict) -> str:
    """path:line. The index of a run holds candidate codes: they say it under "source", or have an id alone."""
    source = unit.get("source") or unit
    return f"{source['path']}:{source['lines'][0]}" if "lines" in source else str(unit["id"])


def first_line(code: str) -> str:
    """The line of the `def`, decorators passed over."""
    lines = code.split("\n")
    return next((line for line in lines if line.startswith(("def ", "async def "))), lines[0])


def main() -> None:
    """The two commands."""
    parser = argparse.ArgumentParser(
        prog="search.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    index = commands.add_parser("index", help=index_command.__doc__, description=index_command.__doc__)
    index.add_argument(
        "repo", metavar="REPO", help="a folder, package:NAME, pypi:NAME==VERSION, or a git URL: its Python functions"
    )
    index.add_argument("--out", required=True, help="folder to write; an index that is there is replaced")
    index.add_argument(
        "--model", default=DEFAULT_MODEL, help=f"encoder: a folder, a hub id or an embedded default ({DEFAULT_MODEL})"
    )
    add_encoder_options(index)
    query = commands.add_parser("query", help=query_command.__doc__, description=query_command.__doc__)
    query.add_argument(
        "index", metavar="INDEX", help="folder that `search.py index` wrote, or index/ of a train_embed.py run"
    )
    query.add_argument("text", metavar="TEXT", help="what to look for, in your words")
    query.add_argument("--model", help="encoder (default: the one that the index names)")
    query.add_argument("--k", type=int, default=10, help="number of results (default 10)")
    query.add_argument("--json", action="store_true", help="print a JSON array with the whole code")
    query.add_argument("--exact", action="store_true", help="compare with every function instead of walking the graph")
    options = parser.parse_args()
    {"index": index_command, "query": query_command}[options.command](options)


if __name__ == "__main__":
    sys.exit(run_command(main))
