"""An index and how to query it: what a person, an editor or an agent gets for a question."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from common.console import UserError
from data.search.find import find
from data.search.index import Index, open_index
from model import load_encoder
from model.device import choose_device, choose_dtype, on_gpu
from model.encoder import Encoder

AROUND = 50  # more than are asked for, as those that share lines with the unit are left out


def open_search(
    folder: Path | str, *, model: str | None = None, device: str = "auto", by: str = "both", exact: bool = False
) -> Search:
    """An index, searched with the encoder that it names, or with `model` and the index's settings.

    device  for `choose_device`
    by      as in `find`; "words" needs no encoder
    Raises UserError for a missing or damaged index.
    """
    index = open_index(folder)
    if by == "words":
        return Search(index, None, by, exact)
    made = {name: index.manifest[name] for name in ("pooling", "query_prefix", "passage_prefix", "max_length")}
    return Search(index, search_encoder(model or index.manifest["model"], device, **made), by, exact)


def search_encoder(model: str, device: str = "auto", **made: Any) -> Encoder:
    """An encoder for searching and indexing: on a GPU its products are in half precision, on a CPU in fp32.

    made  as `load_encoder` takes it: pooling, prefixes, max_length
    """
    where = choose_device(device)
    encoder = load_encoder(model, device=where, **made)
    if on_gpu(where):
        encoder.compute_dtype = choose_dtype(where)
    return encoder


@dataclass(frozen=True)
class Search:
    """An index, and how to query it."""

    index: Index
    encoder: Any  # with encode() and identity(); None: search by words alone
    by: str = "both"
    exact: bool = False

    def results(self, query: str, k: int) -> list[dict]:
        """Results, best first: {"query", "rank", "score", "path", "line", "file"} and the unit's own fields."""
        vector = made_by = None
        if self.encoder is not None:
            (vector,) = np.asarray(self.encoder.encode([query], kind="query"))
            made_by = self.encoder.identity()
        rows, scores = find(self.index, query, k, by=self.by, vector=vector, made_by=made_by, exact=self.exact)
        return [self._result(query, *one) for one in zip(range(1, len(rows) + 1), scores, rows, strict=True)]

    def related(self, path: str, line: int, k: int) -> list[dict]:
        """The units nearest in meaning to the one at a line of a file, without what lies in it or around it."""
        own = self._row(path, line)
        vector, made_by = self.index.vectors[own][None], self.index.manifest
        (rows,), (cosines,) = self.index.search(vector, k + AROUND, made_by=made_by, exact=self.exact)
        others = [(row, score) for row, score in zip(rows.tolist(), cosines, strict=True) if not self._touch(row, own)]
        return [self._result(None, rank, score, row) for rank, (row, score) in enumerate(others[:k], 1)]

    def unit(self, path: str, line: int) -> dict:
        """The innermost unit at a line of a file. UserError for a file that is not in the index."""
        row = self._row(path, line)
        return self._place(row) | self.index.units[row]

    def _row(self, path: str, line: int) -> int:
        found = [
            (last - first, row)
            for row, unit in enumerate(self.index.units)
            if (source := _source(unit)).get("path") == path
            for first, last in [source["lines"]]
            if first <= line <= last
        ]
        if not found:
            raise UserError(f"{path}:{line}: not in this index")
        return min(found)[1]

    def _touch(self, one: int, other: int) -> bool:
        """Whether two units share lines of a file."""
        a, b = (_source(self.index.units[row]) for row in (one, other))
        if a.get("path") != b.get("path"):
            return False
        return a["lines"][0] <= b["lines"][1] and b["lines"][0] <= a["lines"][1]

    def _result(self, query: str | None, rank: int, score: float, row: int) -> dict:
        told = {"query": query, "rank": rank, "score": round(float(score), 4)}
        return told | self._place(row) | self.index.units[row]

    def _place(self, row: int) -> dict:
        """Where a unit is. Units of a training run's index are candidate codes, which may have no path."""
        source, root = _source(self.index.units[row]), self.index.manifest["root"]
        path, line = source.get("path"), (source.get("lines") or [None])[0]
        return {"path": path, "line": line, "file": str(Path(root, path)) if root and path else None}


def _source(unit: Mapping) -> dict:
    return unit.get("source") or {}
