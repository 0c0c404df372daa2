"""Ranks and the metrics computed from them, as trec_eval defines them (linear gain, log2 discount) except for ties.

trec_eval orders equal scores by document id, so that a model with constant scores gets whatever the names happen to
give. Here the relevant code ranks last among equal scores, and such a model gets nothing.

Nothing is sorted or sampled: the rank of a relevant code is the number of candidates that score as high or higher.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

CUT = 10  # a code within the first CUT ranks counts as found


def ranks_of(scores: np.ndarray, relevant: np.ndarray, grades: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The ranks of the relevant candidates among all candidates.

    scores    [N]  larger is better
    relevant  [R]  their indices
    grades    [R]  positive; among equal scores the higher grade ranks last
    Returns ranks [R], from 1, ascending, and the grades in the same order.
    """
    own = scores[relevant]
    order = np.lexsort((grades, -own))
    own, grades = own[order], grades[order]
    last_among_ties = np.array([np.count_nonzero(scores >= score) for score in own])
    relevant_after = np.array([np.count_nonzero(own[i + 1 :] == own[i]) for i in range(len(own))])  # of its ties
    return last_among_ties - relevant_after, grades


def first(scores: np.ndarray, relevant: np.ndarray, grades: np.ndarray, k: int) -> np.ndarray:
    """Indices of the k best candidates, ordered as in `ranks_of`."""
    grade = np.zeros(len(scores))
    grade[relevant] = grades
    return np.lexsort((grade, -scores))[:k]


def reciprocal_rank(ranks: np.ndarray, grades: np.ndarray, k: int) -> float:
    """1 / rank of the first relevant candidate, 0 beyond k. Takes what `ranks_of` returns."""
    return 1.0 / ranks[0] if ranks[0] <= k else 0.0


def ndcg(ranks: np.ndarray, grades: np.ndarray, k: int) -> float:
    """Discounted gain of the first k over that of the ideal order (Järvelin & Kekäläinen, TOIS 20, 2002)."""
    ideal = np.sort(grades)[::-1][:k]
    gain = (grades / np.log2(ranks + 1))[ranks <= k].sum()
    return float(gain / (ideal / np.log2(np.arange(len(ideal)) + 2)).sum())


def recall(ranks: np.ndarray, grades: np.ndarray, k: int) -> float:
    """Share of the relevant candidates among the first k."""
    return float(np.mean(ranks <= k))


def average_precision(ranks: np.ndarray, grades: np.ndarray) -> float:
    """Precision at the rank of each relevant candidate, averaged; without a cut-off."""
    return float(np.mean(np.arange(1, len(ranks) + 1) / ranks))


def best_of_files(
    scores: np.ndarray, files: np.ndarray, relevant: np.ndarray, grades: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The arguments of `ranks_of` for files: what the best of each scores, which are relevant, and their grades.

    files  [N]  the number of each candidate's file, from 0
    """
    of_files = np.full(files.max() + 1, -np.inf)
    np.maximum.at(of_files, files, scores)
    wanted, inverse = np.unique(files[relevant], return_inverse=True)
    best = np.zeros(len(wanted), grades.dtype)
    np.maximum.at(best, inverse, grades)
    return of_files, wanted, best


METRICS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    f"{name}@{k}": partial(metric, k=k)
    for k in (CUT, 5, 1)
    for name, metric in (("mrr", reciprocal_rank), ("ndcg", ndcg), ("recall", recall))
} | {"map": average_precision}
FILE_METRICS = {f"file_{name}": METRICS[name] for name in ("mrr@10", "ndcg@10", "recall@10")}  # of whole files
