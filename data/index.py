"""Vectors of a repository, kept on disk, with a manifest that says what made them.

    INDEX/manifest.json   the encoder's description, metric, count, HNSW parameters, measured recall, sizes and hashes
          vectors.npy     [N, D] float32, unit length: exact search, the reference
          graph.hnsw      hnswlib's graph over the same vectors: approximate search (arXiv:1603.09320)
          units.jsonl     what was indexed, a row a vector

A query is comparable to these vectors only if the same weights, pooling and prefix made it; any other is refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import hnswlib
import numpy as np

from model.console import UserError
from model.files import new_folder, read_json, read_jsonl, write_json, write_jsonl

FORMAT = "tritune index 1"
FILES = ("vectors.npy", "graph.hnsw", "units.jsonl")
DESCRIPTION = ("model", "weights_sha256", "pooling", "query_prefix", "passage_prefix", "normalize", "dimension")
HNSW = {"M": 16, "ef_construction": 200, "ef": 64, "seed": 0}


@dataclass(frozen=True)
class Index:
    """An index that was opened and found whole."""

    folder: Path
    manifest: dict
    vectors: np.ndarray  # [N, D]
    units: list[dict]
    graph: hnswlib.Index

    def search(
        self, queries: np.ndarray, k: int = 10, *, made_by: Mapping, exact: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """The k best units of each query: rows of `units` [Q, k], and cosines [Q, k], best first.

        queries  [Q, D], unit length
        k        at most the count; a larger one is cut to it
        made_by  `encoder.describe()` of the encoder that made the queries
        exact    compare with every vector instead of walking the graph
        Raises UserError if another model, pooling or prefix made the queries.
        """
        made, asked = self.manifest, dict(made_by)
        for key in DESCRIPTION:
            if key != "model" and asked.get(key) != made[key]:  # the same weights may have two names
                raise UserError(
                    f"{self.folder}: its vectors have {key} {made[key]!r} ({made['model']}), the query has "
                    f"{asked.get(key)!r} ({asked.get('model')}); use the index's model or build the index again"
                )
        queries = _unit_vectors(queries, self.manifest["dimension"])
        k = min(k, len(self.units))
        return (
            _exact(self.vectors, queries, k) if exact else _approximate(self.graph, queries, k, self.manifest["hnsw"])
        )


def build_index(folder: Path | str, vectors: np.ndarray, units: Sequence[dict], *, manifest: Mapping) -> dict:
    """Write an index of `vectors` [N, D] of `units` (a JSON object a vector) to `folder`, whole or not at all.

    manifest  `encoder.describe()`
    Returns the manifest as written. An index at `folder` is replaced; anything else there is a UserError.
    """
    folder = Path(folder)
    refuse_other_folder(folder)
    if missing := [key for key in DESCRIPTION if key not in manifest]:
        raise ValueError(f"the description of the encoder lacks {', '.join(missing)}")
    if len(vectors) != len(units) or len(units) == 0:
        raise ValueError(f"{len(vectors)} vectors for {len(units)} units; as many are needed, and at least one")
    vectors = _unit_vectors(vectors, manifest["dimension"])
    graph = hnswlib.Index(space="ip", dim=vectors.shape[1])
    graph.init_index(len(vectors), HNSW["ef_construction"], HNSW["M"], random_seed=HNSW["seed"])
    graph.add_items(vectors, np.arange(len(vectors)), num_threads=1)  # more threads: another graph at each run
    written = {
        "format": FORMAT,
        **{key: manifest[key] for key in DESCRIPTION},
        "metric": "cosine",
        "count": len(vectors),
        "hnsw": HNSW,
        "recall@10": measured_recall(vectors, graph),
    }
    with new_folder(folder) as new:
        np.save(new / "vectors.npy", vectors, allow_pickle=False)
        graph.save_index(str(new / "graph.hnsw"))
        write_jsonl(new / "units.jsonl", units)
        written["files"] = {name: _fingerprint(new / name) for name in FILES}
        write_json(new / "manifest.json", written)
    return written


def open_index(folder: Path | str) -> Index:
    """Open and verify an index. UserError if it is missing, half-written or damaged; it says how to build it again."""
    folder = Path(folder)
    again = f"build it again: python search.py index REPO --out {folder}"
    if not (folder / "manifest.json").exists():
        raise UserError(f"{folder}: no index here (manifest.json is missing); {again}")
    try:
        manifest = read_json(folder / "manifest.json")
    except UserError as error:
        raise UserError(f"{error}; {again}") from None
    if manifest.get("format") != FORMAT:
        raise UserError(f"{folder}: not a {FORMAT!r} (format is {manifest.get('format')!r}); {again}")
    if missing := [key for key in (*DESCRIPTION, "count", "hnsw", "files") if key not in manifest]:
        raise UserError(f"{folder}: damaged (manifest.json lacks {', '.join(missing)}); {again}")
    for name in FILES:  # a damaged graph would crash hnswlib, or be searched without complaint
        path, expected = folder / name, manifest["files"].get(name)
        if not path.is_file():
            raise UserError(f"{path}: missing; {again}")
        if expected != _fingerprint(path):
            raise UserError(f"{path}: damaged (not the file that the manifest describes); {again}")
    vectors = np.load(folder / "vectors.npy", allow_pickle=False)
    units = read_jsonl(folder / "units.jsonl")
    graph = hnswlib.Index(space="ip", dim=manifest["dimension"])
    graph.load_index(str(folder / "graph.hnsw"), max_elements=manifest["count"])
    return Index(folder, manifest, vectors, units, graph)


def refuse_other_folder(folder: Path | str) -> None:
    """UserError unless `folder` is new, empty, or an index (even a damaged one): what `build_index` may replace."""
    folder = Path(folder)
    ours = all((folder / name).is_file() for name in ("manifest.json", "units.jsonl"))
    if folder.exists() and not ours and not (folder.is_dir() and not any(folder.iterdir())):
        raise UserError(f"{folder}: exists and is not an index; give a new folder")


def measured_recall(vectors: np.ndarray, graph: hnswlib.Index, k: int = 10, sample: int = 500) -> float:
    """Share of the exact k nearest that the graph finds too, for up to `sample` of the vectors as queries.

    Vectors as near as the exact k-th count as found: among equal texts there is no right choice.
    """
    picked = np.random.default_rng(0).permutation(len(vectors))[:sample]
    k = min(k, len(vectors))
    _, exact = _exact(vectors, vectors[picked], k)
    _, found = _approximate(graph, vectors[picked], k, HNSW)
    return float((found >= exact[:, -1:] - 1e-6).mean())


def _exact(vectors: np.ndarray, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    cosines = queries @ vectors.T  # [Q, N]
    ids = np.argsort(-cosines, axis=1, kind="stable")[:, :k]
    return ids, np.take_along_axis(cosines, ids, axis=1)


def _approximate(graph: hnswlib.Index, queries: np.ndarray, k: int, hnsw: Mapping) -> tuple[np.ndarray, np.ndarray]:
    graph.set_ef(max(hnsw["ef"], k))  # not saved with the graph; below k it would mean nothing
    ids, distances = graph.knn_query(queries, k=k, num_threads=1)
    return ids.astype(np.int64), 1.0 - distances


def _unit_vectors(vectors: np.ndarray, dimension: int) -> np.ndarray:
    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    if vectors.ndim != 2 or vectors.shape[1] != dimension:
        raise ValueError(f"expected vectors [N, {dimension}], got {list(vectors.shape)}")
    if not np.allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-3):  # NaN fails here too
        raise ValueError("vectors must be of unit length: the inner product is taken for the cosine")
    return vectors


def _fingerprint(path: Path) -> dict:
    return {"bytes": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
