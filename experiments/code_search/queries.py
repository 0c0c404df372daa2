"""Queries to measure search with: those of semble's benchmark ask for files, docstrings for their functions.

BENCHMARK/repos.json                 as published: {"name", "language", "revision", "benchmark_root"} a repository
BENCHMARK/annotations/NAME.json      as published: {"query", "category", "relevant", "secondary"} a query
REPOSITORIES/NAME/                   a checkout
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from common.console import UserError
from common.files import read_jsonl, read_objects
from data.search.find import DEPTH, candidates
from data.search.index import Index, open_index
from data.search.nearest import exact_search
from data.search.ranking import Places, Weights, order, telling_words

CUT = 10  # results of a query
Target = tuple[str, tuple[int, int] | None] | str  # a path, with the lines if it is a part of the file; or a unit's id


@dataclass(frozen=True)
class Query:
    """What is asked, of which kind, and the places that answer it. They count alike."""

    id: str
    text: str
    category: str
    targets: tuple[Target, ...]


@dataclass(frozen=True)
class Repository:
    """A folder to index, and the queries that are about it."""

    name: str
    language: str
    folder: Path
    revision: str
    queries: tuple[Query, ...]


@dataclass(frozen=True)
class Pool:
    """What the rules order for one query: rows of the index, with cosine and BM25. Independent of any weights."""

    query: Query
    rows: np.ndarray
    cosines: np.ndarray
    bm25: np.ndarray


@dataclass(frozen=True)
class Asked:
    """An index and the pools of the queries that it was asked."""

    units: list[dict]
    places: Places
    pools: list[Pool]

    def values(self, weights: Weights) -> dict[str, float]:
        """Query id -> nDCG@10 of the order that these weights give."""
        found = {}
        for pool in self.pools:
            rows, _ = order(pool.query.text, self.places, pool.rows, pool.cosines, pool.bm25, CUT, weights)
            found[pool.query.id] = ndcg([self.units[row] for row in rows.tolist()], pool.query.targets)
        return found


def ndcg(results: Sequence[dict], targets: Sequence[Target]) -> float:
    """Of the first ten results, as the benchmark counts: a target is found at the first result that lies in it."""
    gains = [0.0] * CUT
    for target in targets:
        rank = next((rank for rank, unit in enumerate(results[:CUT]) if lies_in(unit, target)), None)
        if rank is not None:
            gains[rank] = 1.0
    ideal = sum(1 / math.log2(rank + 2) for rank in range(min(CUT, len(targets))))
    return sum(gain / math.log2(rank + 2) for rank, gain in enumerate(gains)) / ideal


def lies_in(unit: dict, target: Target) -> bool:
    """Whether a unit is the target, or in its file and, where the target is a part of that, shares a line with it."""
    if isinstance(target, str):
        return unit["id"] == target
    path, lines = target
    source = unit["source"]
    if source["path"] != path or lines is None:
        return source["path"] == path
    return source["lines"][0] <= lines[1] and lines[0] <= source["lines"][1]


def read_benchmark(benchmark: Path, repositories: Path) -> list[Repository]:
    """The repositories that are at hand, in the order of repos.json. UserError if none is."""
    found = []
    for row in read_objects(benchmark / "repos.json"):
        name, root = row["name"], row.get("benchmark_root") or "."
        annotations, folder = benchmark / "annotations" / f"{name}.json", repositories / name / root
        if annotations.is_file() and folder.is_dir():
            queries = [_query(name, number, one, root) for number, one in enumerate(read_objects(annotations))]
            found.append(Repository(name, row["language"], folder, row["revision"], tuple(queries)))
    if not found:
        raise UserError(f"{repositories}: holds none of the repositories of {benchmark / 'repos.json'}")
    return found


def _query(name: str, number: int, row: dict, root: str) -> Query:
    places = [_target(place, root) for place in (*row["relevant"], *row.get("secondary", ()))]
    return Query(f"{name}/{number}", row["query"], row["category"], tuple(places))


def _target(place: str | dict, root: str) -> Target:
    """A path, relative to the root, and its lines if the benchmark names some."""
    place = {"path": place} if isinstance(place, str) else place
    path = place["path"].removeprefix("" if root == "." else f"{root}/")
    return path, (place["start_line"], place["end_line"]) if "start_line" in place else None


def pools_of(index: Path, encoder, queries: Sequence[Query]) -> Asked:
    """The pools of the queries, each for those of its targets that the index has; without those that have none."""
    opened = open_index(index)
    have = {unit["source"]["path"] for unit in opened.units} | {unit["id"] for unit in opened.units}
    known = []
    for one in queries:
        if kept := tuple(t for t in one.targets if (t if isinstance(t, str) else t[0]) in have):
            known.append(replace(one, targets=kept))
    vectors = encoder.encode([one.text for one in known], kind="query").numpy()
    pools = [_pool(opened, one, vector) for one, vector in zip(known, vectors, strict=True)]
    return Asked(opened.units, opened.places, pools)


def _pool(index: Index, query: Query, vector: np.ndarray) -> Pool:
    words = index.words.scores(telling_words(query.text))
    (near,), _ = exact_search(index.vectors, vector[None], min(DEPTH, len(index.units)))
    rows = candidates(query.text, index.places, near, words)
    return Pool(query, rows, index.vectors[rows] @ vector, words[rows])


def docstring_queries(pairs: Path) -> list[Query]:
    """The test queries of a folder of data.pairs, each for the one code that it asks for."""
    return [
        Query(row["id"], row["query"], row["origin"], (row["code_id"],)) for row in read_jsonl(pairs / "test.jsonl")
    ]
