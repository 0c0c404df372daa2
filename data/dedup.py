"""Near-duplicate texts by MinHash over 5-grams of tokens (Broder 1997), confirmed by the exact Jaccard index."""

from __future__ import annotations

import re
import zlib

import numpy as np

TOKEN = re.compile(r"\w+|[^\w\s]")
SHINGLE = 5  # tokens
PERMUTATIONS = 128
SLACK = 0.15  # the estimate's standard deviation is at most 0.044: a pair above the threshold is missed by 3.4 of them


def shingles(text: str) -> np.ndarray:
    """The distinct 5-grams of tokens of a text as sorted uint64 hashes [S]; layout and spacing do not count."""
    tokens = TOKEN.findall(text)
    codes = {token: zlib.crc32(token.encode()) for token in set(tokens)}
    ids = np.array([codes[token] for token in tokens], dtype=np.uint64)
    if len(ids) < SHINGLE:
        ids = np.pad(ids, (0, SHINGLE - len(ids)))
    hashes = np.zeros(len(ids) - SHINGLE + 1, dtype=np.uint64)
    for offset in range(SHINGLE):
        hashes = _mix(hashes ^ ids[offset : offset + len(hashes)])
    return np.unique(hashes)


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


def near_duplicates(texts: list[str], threshold: float) -> list[tuple[int, int, float]]:
    """Pairs (i, j, Jaccard) with i < j and Jaccard >= threshold, in order.

    Signatures are compared all against all (N² · 128 bytes of work, done row by row), which is cheaper than banding
    up to some ten thousand texts and has no bands to tune.
    """
    sets = [shingles(text) for text in texts]
    if not sets:
        return []
    random = np.random.default_rng(0)  # fixed: the same texts always give the same answer
    multipliers = random.integers(0, 2**63, PERMUTATIONS, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    signatures = np.stack([(one[:, None] * multipliers).min(axis=0) for one in sets])  # [N, 128]
    found = []
    for i in range(len(sets)):
        estimate = (signatures[i + 1 :] == signatures[i]).mean(axis=1)
        for j in np.flatnonzero(estimate >= threshold - SLACK) + i + 1:
            similarity = jaccard(sets[i], sets[j])
            if similarity >= threshold:
                found.append((i, int(j), similarity))
    return found
