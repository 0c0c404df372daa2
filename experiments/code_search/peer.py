"""The same queries answered by the package semble, with one of our static tables in place of its own model.

What differs beside the ranking: it cuts files into pieces of about equal length, where our units are functions, classes
and outlines; it reads tests and vendored files too.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from common.console import need
from experiments.code_search.queries import CUT, Query, ndcg


def semble_values(folder: Path, table: Path, queries: Sequence[Query]) -> dict[str, float]:
    """Query id -> nDCG@10 of semble's results in a folder. The queries are those of pools_of: their targets exist."""
    index = need("semble", why="the comparison").SembleIndex.from_path(folder, model_path=str(table))
    values = {}
    for query in queries:
        chunks = [result.chunk for result in index.search(query.text, top_k=CUT)]
        found = [
            {
                "id": "",
                "source": {"path": _relative(chunk.file_path, folder), "lines": [chunk.start_line, chunk.end_line]},
            }
            for chunk in chunks
        ]
        values[query.id] = ndcg(found, query.targets)
    return values


def _relative(path: str, folder: Path) -> str:
    return str(Path(path).relative_to(folder)) if Path(path).is_absolute() else path
