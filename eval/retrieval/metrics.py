"""Ranks and the metrics made of them, as trec_eval defines these (linear gain, log2 discount).

Only ties differ: trec_eval orders equal scores by document id, so that a model which scores everything alike gets what
the names happen to give. Here equal scores rank the relevant code last, and such a model gets nothing.

Nothing is sorted or sampled: the rank of a relevant code is the number of candidates that score as high or higher.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

CUT = 10  # ranks that count as found


def ranks_of(scores: np.ndarray, relevant: np.ndarray, grades: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the relevant candidates stand among all.

    scores    [N]  larger is better
    relevant  [R]  their indices
    grades    [R]  positive; of equal scores the higher grade comes last
    Returns ranks [R], from 1 and ascending, and the grades in their order.
    """
    own = scores[relevant]
    order = np.lexsort((grades, -own))
    own, grades = own[order], grades[order]
    last_of_its_ties = np.array([np.count_nonzero(scores >= score) for score in own])
    behind_it = np.array([np.count_nonzero(own[i + 1 :] == own[i]) for i in range(len(own))])
    return last_of_its_ties - behind_it, grades


def first(scores: np.ndarray, relevant: np.ndarray, grades: np.ndarray, k: int) -> np.ndarray:
    """Indices of the k best candidates, in the order that `ranks_of` counts by."""
    grade = np.zeros(len(scores))
    grade[relevant] = grades
    return np.lexsort((grade, -scores))[:k]


def reciprocal_rank(ranks: np.ndarray, grades: np.ndarray, k: int) -> float:
    """1 / rank of the first relevant candidate, 0 beyond k. Arguments as `ranks_of` returns them."""
    return 1.0 / ranks[0] if ranks[0] <= k else 0.0


def ndcg(ranks: np.ndarray, grades: np.ndarray, k: int) -> float:
    """Discounted gain of the first k over that of the best order (Järvelin & Kekäläinen, TOIS 20, 2002)."""
    ideal = np.sort(grades)[::-1][:k]
    gain = (grades / np.log2(ranks + 1))[ranks <= k].sum()
    return float(gain / (ideal / np.log2(np.arange(len(ideal)) + 2)).sum())


def recall(ranks: np.ndarray, grades: np.ndarray, k: int) -> float:
    """Share of the relevant candidates that are among the first k."""
    return float(np.mean(ranks <= k))


def average_precision(ranks: np.ndarray, grades: np.ndarray) -> float:
    """Precision at each relevant candidate, averaged over them; without a cut."""
    return float(np.mean(np.arange(1, len(ranks) + 1) / ranks))


METRICS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    f"{name}@{k}": partial(metric, k=k)
    for k in (CUT, 5, 1)
    for name, metric in (("mrr", reciprocal_rank), ("ndcg", ndcg), ("recall", recall))
} | {"map": average_precision}
