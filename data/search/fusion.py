"""Combines ranking by meaning and by words: weighted reciprocal rank fusion (Cormack et al., SIGIR 2009).

    cosine  0.62  0.55  0.31        rank  1  2  3        1/11 + 0.3/13
    BM25    2.1   3.0   4.4               3  2  1   ──►  1/12 + 0.3/12        BM25 reorders what the model is unsure of
                                                         1/13 + 0.3/11

The paper uses equal weights and K = 60. That is worse than meaning alone with a tuned encoder (by 0.085 nDCG@10 on
networkx), and with an untuned one on CoSQA; bench/RESULTS.md lists what was tried.
"""

from __future__ import annotations

import numpy as np

K = 10  # the smaller, the more the top ranks count
WORDS = 0.3  # weight of the ranks by words, relative to meaning


def fuse(meaning: np.ndarray, words: np.ndarray) -> np.ndarray:
    """Fuses two scores [N] of the same candidates: [N], larger is better, 1 for what is first in both.

    Ties share their last rank: a ranking has no say in what it does not distinguish.
    """
    by_meaning, by_words = (len(one) - np.searchsorted(np.sort(one), one, side="left") for one in (meaning, words))
    return (K + 1) * (1 / (K + by_meaning) + WORDS / (K + by_words)) / (1 + WORDS)
