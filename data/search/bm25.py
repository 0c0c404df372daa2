"""BM25: a query finds the texts that hold its words, the rare ones above all.

The baseline that retrieval is measured beside, and the judge that data is filtered by where no encoder is given.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

WORD = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[^\W\d_A-Z]+|[A-Z]+|\d+")  # HTTPServer_v2 -> HTTP Server v 2


def words(text: str) -> list[str]:
    """Lower-case words, identifiers taken apart: "parseHTTPHeader from_file" -> parse http header from file."""
    return [word.lower() for word in WORD.findall(text)]


class BM25:
    """Okapi BM25 over words (Robertson & Zaragoza, The Probabilistic Relevance Framework, 2009).

    The inverse document frequency is ln(1 + (N - df + 0.5) / (df + 0.5)), Lucene's, which is never negative.
    """

    def __init__(self, documents: Sequence[str], k1: float = 1.2, b: float = 0.75) -> None:
        counts = [Counter(words(document)) for document in documents]
        lengths = np.array([sum(count.values()) for count in counts], dtype=np.float64)
        norm = k1 * (1 - b + b * lengths / max(lengths.mean(), 1e-9))  # [N]
        self.size = len(documents)
        self.postings: dict[str, tuple[np.ndarray, np.ndarray]] = {}  # word -> documents that hold it, its weight there
        holders: dict[str, list[int]] = {}
        for i, count in enumerate(counts):
            for word in count:
                holders.setdefault(word, []).append(i)
        for word, ids in holders.items():
            tf = np.array([counts[i][word] for i in ids], dtype=np.float64)
            idf = math.log(1 + (self.size - len(ids) + 0.5) / (len(ids) + 0.5))
            self.postings[word] = (np.array(ids), idf * tf * (k1 + 1) / (tf + norm[ids]))

    def scores(self, query: str) -> np.ndarray:
        """[N]; a word that the query repeats counts each time."""
        scores = np.zeros(self.size)
        for word in words(query):
            if word in self.postings:
                ids, weights = self.postings[word]
                scores[ids] += weights
        return scores
