"""One order of several: reciprocal rank fusion (Cormack, Clarke & Büttcher, SIGIR 2009).

cosine  0.62  0.55  0.31        rank  1  2  3        1/61 + 1/63
BM25    2.1   3.0   4.4               3  2  1   ──►  1/62 + 1/62        what both find stands above what one finds
                                                     1/63 + 1/61
"""

from __future__ import annotations

import numpy as np

K = 60  # the paper's


def fuse(*scores: np.ndarray) -> np.ndarray:
    """Several scores [N] of the same candidates as one: [N], larger is better, 1 for what is first in all of them.

    Equal scores share the last rank of theirs: what one side does not tell apart, it has no say in.
    """
    ranks = [len(one) - np.searchsorted(np.sort(one), one, side="left") for one in scores]
    return sum((K + 1) / (K + rank) for rank in ranks) / len(ranks)
