"""Near-duplicate texts: MinHash over token 5-grams, banded for lookup, confirmed by the exact Jaccard index.

MinHash: Broder 1997; locality-sensitive hashing by bands: Leskovec, Rajaraman, Ullman, Mining of Massive Datasets.
StarCoder (arXiv:2305.06161) uses the same 5-grams and the threshold 0.7.
"""

from __future__ import annotations

import re
import zlib

import numpy as np

TOKEN = re.compile(r"\w+|[^\w\s]")
SHINGLE = 5  # tokens
NEAR = 0.7  # Jaccard index from which two functions or queries count as nearly equal
ROWS, BANDS = 3, 85  # probability that two texts share no band: 1.2e-5 at Jaccard 0.5, 0.4 % at 0.4
PERMUTATIONS = ROWS * BANDS
SLACK = 0.125  # four standard deviations of the estimate (at most 0.031 each)
CHUNK = 256  # shingles hashed at once: the products stay in the processor's cache


def shingles(text: str) -> np.ndarray:
    """The distinct 5-grams of tokens of a text as sorted uint64 hashes [S]; whitespace does not count."""
    return np.unique(ngram_hashes(TOKEN.findall(text), SHINGLE, pad=True))


def count_tokens(text: str) -> int:
    """Words, numbers and punctuation marks: a length that depends on no model."""
    return len(TOKEN.findall(text))


def ngram_hashes(tokens: list[str], size: int, *, pad: bool = False) -> np.ndarray:
    """A uint64 hash of every run of `size` tokens [N]; a shorter text has none, or one if padded."""
    codes = {token: zlib.crc32(token.encode()) for token in set(tokens)}
    ids = np.array([codes[token] for token in tokens], dtype=np.uint64)
    if len(ids) < size:
        ids = np.pad(ids, (0, size - len(ids))) if pad else ids[:0]
    hashes = np.zeros(max(len(ids) - size + 1, 0), dtype=np.uint64)
    for offset in range(size):
        hashes = _mix(hashes ^ ids[offset : offset + len(hashes)])
    return hashes


def _mix(x: np.ndarray) -> np.ndarray:
    """splitmix64's finaliser: every input bit reaches every output bit."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def jaccard(a: np.ndarray, b: np.ndarray) -> float:
    """|A ∩ B| / |A ∪ B| of two sorted arrays of distinct hashes."""
    common = len(np.intersect1d(a, b, assume_unique=True))
    return common / (len(a) + len(b) - common)


def _multipliers() -> np.ndarray:
    random = np.random.default_rng(0)  # fixed, so that results are reproducible
    return random.integers(0, 2**63, PERMUTATIONS, dtype=np.uint64) * np.uint64(2) + np.uint64(1)


MULTIPLIERS = _multipliers()


def signature(hashes: np.ndarray) -> np.ndarray:
    """The MinHash signature [PERMUTATIONS] uint32 of a set of shingles: 1 KiB, however long the text."""
    least = np.full(PERMUTATIONS, np.iinfo(np.uint64).max, dtype=np.uint64)
    for start in range(0, len(hashes), CHUNK):
        least = np.minimum(least, (hashes[start : start + CHUNK, None] * MULTIPLIERS).min(axis=0))
    return (least >> np.uint64(32)).astype(np.uint32)


class Neighbours:
    """Finds texts added so far that are probably alike, by their signatures [N, PERMUTATIONS].

    Time and memory grow with the number of texts and of alike pairs, not of all pairs.
    """

    def __init__(self, signatures: np.ndarray):
        self.signatures = signatures
        self.shared: list[list[tuple[int, int]]] = [[] for _ in signatures]  # the bands that a text shares with others
        self.added: dict[tuple[int, int], list[int]] = {}
        for band in range(BANDS):
            rows = signatures[:, band * ROWS : (band + 1) * ROWS]
            keys = np.zeros(len(rows), dtype=np.uint64)
            for column in rows.T:
                keys = _mix(keys ^ column)
            _, bucket, count = np.unique(keys, return_inverse=True, return_counts=True)
            for i in np.flatnonzero(count[bucket] > 1):
                self.shared[i].append((band, int(bucket[i])))

    def add(self, i: int) -> None:
        """Make text i findable."""
        for place in self.shared[i]:
            self.added.setdefault(place, []).append(i)

    def near(self, j: int, least: float) -> list[tuple[int, float]]:
        """The added texts whose estimated Jaccard index with text j is at least `least`, each with its estimate."""
        found = {i for place in self.shared[j] for i in self.added.get(place, ())}
        candidates = np.array(sorted(found), dtype=np.int64)
        estimate = (self.signatures[candidates] == self.signatures[j]).mean(axis=1)
        near = estimate >= least
        return list(zip(candidates[near].tolist(), estimate[near].tolist(), strict=True))


def near_duplicates(texts: list[str], threshold: float) -> list[tuple[int, int, float]]:
    """Pairs (i, j, Jaccard) with i < j and Jaccard >= threshold, in order. Made for thresholds of 0.5 and above."""
    sets = [shingles(text) for text in texts]
    if not sets:
        return []
    neighbours = Neighbours(np.stack([signature(one) for one in sets]))
    found = []
    for j in range(len(sets)):
        for i, _ in neighbours.near(j, threshold - SLACK):
            similarity = jaccard(sets[i], sets[j])
            if similarity >= threshold:
                found.append((i, j, similarity))
        neighbours.add(j)
    return sorted(found)
