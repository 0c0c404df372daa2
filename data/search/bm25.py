"""BM25: ranks texts by the query words they contain, rare words above all.

    node ──► documents  0    2    7         one row per word (compressed sparse rows): a query reads only the rows of
             weights    1.3  0.4  0.9       its own words

The baseline of retrieval, the judge of the data filters where no encoder is given, and half of search.py. Everything
that does not depend on the query is precomputed, as in BM25S (Lù, arXiv:2407.03618).
"""

from __future__ import annotations

import math
import re
from array import array
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

IDENTIFIER = re.compile(r"\w+")
ENDING = re.compile(r"(?<=\w{3})(?:ing|ed|es|s|e)$")  # leaves at least three letters
WORD = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[^\W\d_A-Z]+|[A-Z]+|\d+")  # HTTPServer_v2 -> HTTP Server v 2


def words(text: str) -> list[str]:
    """Lower-case words, with identifiers split: "parseHTTPHeader from_file" -> parse http header from file."""
    return [word.lower() for word in WORD.findall(text)]


def stems(text: str) -> list[str]:
    """The words without their common endings, so that "parses" finds "parsing" (suffixing: Harman, JASIS 42, 1991)."""
    return [ENDING.sub("", word) for word in words(text)]


class BM25:
    """Okapi BM25 over the stems of words (Robertson & Zaragoza, The Probabilistic Relevance Framework, 2009).

    The inverse document frequency is ln(1 + (N - df + 0.5) / (df + 0.5)), Lucene's, which is never negative.
    """

    def __init__(self, documents: Sequence[str], k1: float = 1.2, b: float = 0.75) -> None:
        self.size = len(documents)
        self.rows, row, document, tf = _count(documents)  # stem -> its row; [E] each, E stems in documents
        lengths = np.bincount(document, tf, self.size)
        norm = k1 * (1 - b + b * lengths / max(lengths.mean(), 1e-9))  # [N]
        df = np.bincount(row, minlength=len(self.rows))
        idf = np.log(1 + (self.size - df + 0.5) / (df + 0.5))
        order = np.argsort(row, kind="stable")
        row, document, tf = row[order], document[order], tf[order]
        self.starts = np.concatenate([[0], np.cumsum(df)])  # [words + 1]
        self.documents = document
        self.weights = (idf[row] * tf * (k1 + 1) / (tf + norm[document])).astype(np.float32)

    def scores(self, query: str) -> np.ndarray:
        """[N]; repeated words of the query count repeatedly."""
        scores = np.zeros(self.size)
        for stem in stems(query):
            entries = self._entries(stem)
            scores[self.documents[entries]] += self.weights[entries]
        return scores

    def rarity(self, stem: str) -> float:
        """The stem's inverse document frequency; 0 if no document contains it."""
        entries = self._entries(stem)
        df = entries.stop - entries.start
        return math.log(1 + (self.size - df + 0.5) / (df + 0.5)) if df else 0.0

    def _entries(self, stem: str) -> slice:
        """Where the stem's row lies in `documents` and `weights`; empty if no document contains it."""
        row = self.rows.get(stem)
        return slice(0, 0) if row is None else slice(int(self.starts[row]), int(self.starts[row + 1]))

    def save(self, path: Path) -> None:
        """Write one .npz file; equal documents write equal bytes."""
        vocabulary = np.frombuffer("\n".join(self.rows).encode(), np.uint8)
        arrays = {"starts": self.starts, "documents": self.documents, "weights": self.weights}
        with open(path, "wb") as file:
            np.savez(file, size=self.size, vocabulary=vocabulary, **arrays)

    @classmethod
    def load(cls, path: Path) -> BM25:
        """Read what `save` wrote."""
        loaded = cls.__new__(cls)
        with np.load(path, allow_pickle=False) as arrays:
            loaded.size = int(arrays["size"])
            loaded.rows = {word: i for i, word in enumerate(arrays["vocabulary"].tobytes().decode().split("\n"))}
            loaded.starts, loaded.documents, loaded.weights = (
                arrays[name] for name in ("starts", "documents", "weights")
            )
        return loaded


def _count(documents: Sequence[str]) -> tuple[dict[str, int], np.ndarray, np.ndarray, np.ndarray]:
    """{stem: row} in order of first occurrence; and the row, document and count [E] of each stem in each document."""
    rows: dict[str, int] = {}
    pieces: dict[str, list[int]] = {}  # identifiers recur: each is split once
    row, tf, distinct = array("i"), array("i"), array("i")
    for document in documents:
        counts: Counter[int] = Counter()
        for identifier, times in Counter(IDENTIFIER.findall(document)).items():
            if identifier not in pieces:
                pieces[identifier] = [rows.setdefault(stem, len(rows)) for stem in stems(identifier)]
            for stem_row in pieces[identifier]:
                counts[stem_row] += times
        row.extend(counts.keys())
        tf.extend(counts.values())
        distinct.append(len(counts))
    document = np.repeat(np.arange(len(documents), dtype=np.int32), np.frombuffer(distinct, np.int32))
    return rows, np.frombuffer(row, np.int32), document, np.frombuffer(tf, np.int32)
