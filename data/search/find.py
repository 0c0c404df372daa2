"""The units that answer a query: by meaning, by words, or by both.

Both is the default, and what the rules of data/search/ranking.py order.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from data.search.index import Index
from data.search.nearest import best
from data.search.ranking import Places, definers, order, telling_words

BY = ("both", "meaning", "words")
DEPTH = 200  # candidates by meaning, and as many by words


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
    """Rows of `index.units` [n] and their scores [n], best first; n is k, or fewer if fewer are found.

    by               "both" orders the best of both by the rules of data/search/ranking.py, "meaning" by cosine, "words"
                     by BM25
    vector, made_by  the query's vector [D] and `encoder.identity()`; not needed for "words"
    exact            compare with every vector even if there is a graph
    """
    if by == "meaning":
        rows, cosines = index.search(vector[None], k, made_by=made_by, exact=exact)
        return rows[0], cosines[0]
    if by == "words":
        scores = index.words.scores(query)
        rows = best(scores, min(k, len(scores)))
        rows = rows[scores[rows] > 0]
        return rows, scores[rows]
    near = index.search(vector[None], max(k, DEPTH), made_by=made_by, exact=exact)[0][0]
    words = index.words.scores(telling_words(query))
    rows = candidates(query, index.places, near, words)
    return order(query, index.places, rows, index.vectors[rows] @ vector, words[rows], k)


def candidates(query: str, places: Places, near: np.ndarray, words: np.ndarray) -> np.ndarray:
    """Rows [C] that the rules order: the nearest, as many of the best by words, and what defines a name of the query.

    near   [n]  rows of the nearest by meaning
    words  [N]  BM25 of all units
    """
    said = best(words, len(near))
    defining = np.array(list(definers(query, places)), dtype=np.int64)
    return np.unique(np.concatenate([near, said[words[said] > 0], defining]))
