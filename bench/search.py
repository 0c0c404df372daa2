"""Latency of a query to a large index, from text to ten results, against sentence-transformers' semantic search.

    python -m bench.search --units 50000

The units are copies of the functions, classes and files of networkx, each with one unique word; their vectors are
random, which costs an exact search the same as real ones. Queries are real, and both sides encode them, except in our
search by words, which needs no vector. The index is opened once, as by `search.py query INDEX`; sentence-transformers
has its vectors in memory. The last rows are of a static table (model/static.py): encoding the units, and a query by it.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from bench.measure import RunOptions, in_turn, report, row
from common.console import need, run_command
from common.options import option, parse
from data.search.contents import read_contents
from data.search.find import BY, find
from data.search.index import Index, build_index, open_index
from model import load_encoder
from model.distil import cached_table
from model.encoder import Encoder
from model.static import StaticEncoder
from model.weights import locate

MODEL = "all-minilm-l6-v2"
QUERIES = [
    "shortest path between two nodes", "colour the nodes of a graph", "read edges from a csv file",
    "is the graph connected", "maximum flow", "add_weighted_edges_from", "find all cycles of a directed graph",
    "random graph with a given degree sequence", "draw a network with matplotlib", "pagerank of each node",
]  # fmt: skip


def large_index(folder: Path, count: int, encoder: Encoder, *, graph: bool) -> Index:
    """An index of `count` units with random vectors."""
    found = read_contents("package:networkx").units
    units = [found[i % len(found)] | {"code": f"{found[i % len(found)]['code']}\n# copy{i}"} for i in range(count)]
    vectors = np.random.default_rng(0).normal(size=(count, encoder.identity()["dimension"])).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    start = time.monotonic()
    manifest = build_index(folder, vectors, units, manifest=encoder.identity(), graph=graph)
    built = time.monotonic() - start
    index = open_index(folder)
    print(f"{count:,} units: index written in {built:.1f} s, opened in {time.monotonic() - start - built:.1f} s")
    if graph:
        print(f"recall@10 of the graph against exact search: {manifest['recall@10']:.3f}")
    return index


def texts_per_second(encode: Callable[[list[str]], object], texts: list[str]) -> float:
    """Of encoding them all."""
    start = time.perf_counter()
    encode(texts)
    return len(texts) / (time.perf_counter() - start)


def milliseconds(answer: Callable[[str], object]) -> float:
    """Time of the slowest query."""
    times = []
    for query in QUERIES:
        start = time.perf_counter()
        answer(query)
        times.append(1000 * (time.perf_counter() - start))
    return max(times)


def query_rows(title: str, index: Index, encoder: Encoder, encode: Callable, options: Options, util) -> list[dict]:
    """A row for each way to search. encode: theirs, a text -> its vector."""
    corpus = torch.from_numpy(np.array(index.vectors))

    def ours(query: str, by: str) -> object:
        if by == "words":
            return find(index, query, 10, by=by)
        (vector,) = np.asarray(encoder.encode([query], kind="query"))
        return find(index, query, 10, by=by, vector=vector, made_by=encoder.identity())

    def semantic_search(query: str) -> object:
        return util.semantic_search(encode(query), corpus, top_k=10)

    rows = []
    for by in BY:
        sides = (lambda by=by: milliseconds(lambda query: ours(query, by)), lambda: milliseconds(semantic_search))
        for side in sides:
            side()  # warm-up: the first queries of a process are slower
        figures = in_turn(*sides, options.runs)
        note = f"the slowest of {len(QUERIES)} queries, of all runs {max(figures[0]):.1f}"
        rows.append(row(f"{title}: a query by {by} among {options.units:,}", "ms", *figures, note=note))
    return rows


@dataclass(frozen=True, kw_only=True)
class Options(RunOptions):
    """Options of this command."""

    units: int = option(50_000, "units of the index")
    graph: bool = option(False, "build hnswlib's graph, and search it where it applies")
    runs: int = option(5, "runs of each side, in turn", least=1)


def main() -> None:
    """Command line."""
    options = parse(Options, description=__doc__)
    peer = need("sentence_transformers", why="the comparison")
    util = need("sentence_transformers.util", why="the comparison")
    rows = []
    for title, place in {MODEL: locate(MODEL), f"static table of {MODEL}": cached_table(MODEL)}.items():
        encoder = load_encoder(str(place))
        theirs = peer.SentenceTransformer(str(place), device="cpu")
        with tempfile.TemporaryDirectory() as folder:
            index = large_index(Path(folder) / "index", options.units, encoder, graph=options.graph)
            if isinstance(encoder, StaticEncoder):
                texts = [unit["code"] for unit in index.units]
                sides = (
                    partial(texts_per_second, encoder.encode, texts),
                    partial(texts_per_second, theirs.encode, texts),
                )
                rows.append(row(f"{title}: encoding {options.units:,}", "texts/s", *in_turn(*sides, options.runs)))
            encode = partial(theirs.encode, convert_to_tensor=True)
            rows += query_rows(title, index, encoder, encode, options, util)
    device, dtype = torch.device("cpu"), torch.float32
    report(rows, device=device, dtype=dtype, peers=["sentence-transformers", "hnswlib"], out=options.out)


if __name__ == "__main__":
    sys.exit(run_command(main))
