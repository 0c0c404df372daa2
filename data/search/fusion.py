"""Meaning and words as one order: reciprocal rank fusion (Cormack, Clarke & Büttcher, SIGIR 2009), weighted.

    cosine  0.62  0.55  0.31        rank  1  2  3        1/11 + 0.3/13
    BM25    2.1   3.0   4.4               3  2  1   ──►  1/12 + 0.3/12        BM25 moves what the model is unsure of
                                                         1/13 + 0.3/11

The paper gives both the same weight and a K of 60. That is worse than meaning alone once the encoder is tuned (0.085 of
nDCG@10 on networkx), and so is it untuned on CoSQA; bench/RESULTS.md has what was tried.
"""

from __future__ import annotations

import numpy as np

K = 10  # the smaller, the more the first few ranks count
WORDS = 0.3  # weight of the words' ranks, where that of the meaning's is 1


def fuse(meaning: np.ndarray, words: np.ndarray) -> np.ndarray:
    """Two scores [N] of the same candidates as one: [N], larger is better, 1 for what is first in both.

    Equal scores share the last rank of theirs: what one side does not tell apart, it has no say in.
    """
    by_meaning, by_words = (len(one) - np.searchsorted(np.sort(one), one, side="left") for one in (meaning, words))
    return (K + 1) * (1 / (K + by_meaning) + WORDS / (K + by_words)) / (1 + WORDS)
