"""The vectors nearest to a query, by exact comparison or by hnswlib's graph (arXiv:1603.09320)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import hnswlib
import numpy as np
import torch

HNSW = {"M": 16, "ef_construction": 200, "ef": 64, "seed": 0}
GRAPH, EQUALS = "graph.hnsw", "equals.npy"


def exact_search(vectors: np.ndarray, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows [Q, k] of `vectors` [N, D] and cosines [Q, k] of the k best for each of `queries` [Q, D], best first."""
    ids, found = np.empty((len(queries), k), np.int64), np.empty((len(queries), k), np.float32)
    for i, query in enumerate(queries):
        cosines = _cosines(vectors, query)  # [N]; one query at a time, as [Q, N] may not fit in memory
        ids[i] = best(cosines, k)
        found[i] = cosines[ids[i]]
    return ids, found


def _cosines(vectors: np.ndarray, query: np.ndarray) -> np.ndarray:
    # With PyTorch, which encodes the queries: NumPy's BLAS threads would still spin when the next query is encoded, and
    # each wait costs up to 0.1 s.
    return (torch.from_numpy(vectors) @ torch.from_numpy(query)).numpy()


def best(scores: np.ndarray, k: int) -> np.ndarray:
    """Positions of the k largest, best first, earlier ones first among equals."""
    least = np.partition(scores, len(scores) - k)[len(scores) - k]
    candidates = np.flatnonzero(scores >= least)
    return candidates[np.argsort(-scores[candidates], kind="stable")][:k]


@dataclass(frozen=True)
class Graph:
    """hnswlib's graph over the distinct vectors, each labelled by its first row.

    Many equal vectors would otherwise fill each other's neighbour lists: no path leads out, and hnswlib returns only
    them, or fails (github.com/nmslib/hnswlib/issues/373).
    """

    links: hnswlib.Index
    equals: np.ndarray  # [N] int64: the first row with an equal vector

    @classmethod
    def build(cls, vectors: np.ndarray) -> Graph:
        """From `vectors` [N, D] of unit length. Equal means to four digits: summation order changes the last ones."""
        first: dict[bytes, int] = {}
        digits = np.round(vectors * 1e4).astype(np.int16)
        equals = np.array([first.setdefault(row.tobytes(), i) for i, row in enumerate(digits)])
        rows = np.fromiter(first.values(), np.int64)
        links = hnswlib.Index(space="ip", dim=vectors.shape[1])
        links.init_index(len(rows), HNSW["ef_construction"], HNSW["M"], random_seed=HNSW["seed"])
        links.add_items(vectors[rows], rows, num_threads=1)  # with more threads the graph would differ between runs
        return cls(links, equals)

    def save(self, folder: Path) -> None:
        """Write GRAPH and EQUALS."""
        self.links.save_index(str(folder / GRAPH))
        np.save(folder / EQUALS, self.equals, allow_pickle=False)

    @classmethod
    def load(cls, folder: Path, count: int, dimension: int) -> Graph:
        """Load a saved graph over the distinct ones of `count` vectors."""
        links = hnswlib.Index(space="ip", dim=dimension)
        links.load_index(str(folder / GRAPH), max_elements=count)
        return cls(links, np.load(folder / EQUALS, allow_pickle=False))

    def search(
        self, vectors: np.ndarray, queries: np.ndarray, k: int, ef: int = HNSW["ef"]
    ) -> tuple[np.ndarray, np.ndarray]:
        """As `exact_search`, approximately; falls back to it if the graph reaches fewer than k vectors."""
        wanted = min(k, self.links.element_count)
        self.links.set_ef(max(ef, wanted))  # not saved with the graph; must be at least k
        ids, found = np.empty((len(queries), k), np.int64), np.empty((len(queries), k), np.float32)
        for i, query in enumerate(queries):  # one at a time: hnswlib fails for a whole batch
            try:
                near, _ = self.links.knn_query(query, k=wanted, num_threads=1)
            except RuntimeError as error:
                if "ef or M is too small" not in str(error):
                    raise
                (ids[i],), (found[i],) = exact_search(vectors, query[None], k)
                continue
            is_near = np.zeros(len(self.equals), bool)
            is_near[near[0].astype(np.int64)] = True
            rows = np.flatnonzero(is_near[self.equals])  # all found, with their equals: k or more
            cosines = _cosines(vectors[rows], query)
            nearest = best(cosines, k)
            ids[i], found[i] = rows[nearest], cosines[nearest]
        return ids, found


def measured_recall(vectors: np.ndarray, graph: Graph, k: int = 10, sample: int = 500) -> float:
    """Share of the exact k nearest that the graph finds, with up to `sample` of the vectors as queries.

    Vectors as near as the exact k-th count as found: among equals there is no right choice.
    """
    picked = np.random.default_rng(0).permutation(len(vectors))[:sample]
    k = min(k, len(vectors))
    _, exact = exact_search(vectors, vectors[picked], k)
    _, found = graph.search(vectors, vectors[picked], k)
    return float((found >= exact[:, -1:] - 1e-6).mean())
