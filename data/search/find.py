"""The units that answer a query: by meaning, by words, or by both.

Both is the default: with all-MiniLM-L6-v2 it found more than meaning alone in four repositories; on CoSQA, and with a
tuned encoder, as much or more (bench/RESULTS.md).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from data.search.fusion import fuse
from data.search.index import Index
from data.search.nearest import best

BY = ("both", "meaning", "words")
DEPTH = 200  # units whose rank by meaning counts in the fusion; the others share the last


def find(
    index: Index,
    query: str,
    k: int,
    *,
    by: str = "both",
    vector: np.ndarray | None = None,
    made_by: Mapping | None = None,
    exact: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of `index.units` [n] and their scores [n], best first; n is k, or less where fewer are found.

    by               "both" scores by the fusion of the two orders (data/search/fusion.py), "meaning" by cosine, "words"
                     by BM25
    vector, made_by  the query's vector [D] and `encoder.identity()`; by words none is needed
    exact            compare with every vector even if there is a graph
    """
    if by == "meaning":
        rows, cosines = index.search(vector[None], k, made_by=made_by, exact=exact)
        return rows[0], cosines[0]
    scores = index.words.scores(query)
    if by == "both":
        rows, found = index.search(vector[None], max(k, DEPTH), made_by=made_by, exact=exact)
        cosines = np.full(len(scores), -np.inf)
        cosines[rows[0]] = found[0]
        scores = fuse(cosines, scores)
    rows = best(scores, min(k, len(scores)))
    rows = rows[scores[rows] > 0]
    return rows, scores[rows]
