"""The change of a run that was trained with several seeds: seeds are a sample, as tasks are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from eval.stats.intervals import LEVEL, finite
from eval.stats.paired import DETECTABLE, change_result, shared_ids
from eval.stats.student import student_cdf, student_quantile


def change_over_seeds(before: Sequence[Mapping[str, float]], after: Sequence[Mapping[str, float]]) -> dict:
    """Mean of after - before over tasks and training seeds.

    before  one mapping (task id -> value), or as many as `after`, paired with them in order
    after   one mapping per training seed, at least three, all over the same tasks
    Every task is answered under every seed, so the variance of the mean is that of a crossed random-effects layout,
    with Satterthwaite's degrees of freedom (Searle, Casella and McCulloch, Variance Components, 1992, section 4.6).
    Treating S runs as S times as many tasks would be far too confident. With three seeds that vary much, the interval
    covers the truth 92 % of the time; with two, 88 %, which is why two are refused.
    Returns what `paired_change` does, and "seeds"; n_needed (tasks) is also None if only more seeds could help.
    """
    if len(after) < 3 or len(before) not in (1, len(after)):
        raise ValueError(
            f"give three seeds or more, and one result before or as many; got {len(before)} before, {len(after)} after"
        )
    d = _differences(before, after)  # [S, N]
    seeds, n = d.shape
    mean, of_seed, of_task = d.mean(), d.mean(1, keepdims=True), d.mean(0)

    # mean squares of the two-way layout: between seeds, between tasks, residual
    seed_square = n * ((of_seed - mean) ** 2).sum() / (seeds - 1)
    task_square = seeds * ((of_task - mean) ** 2).sum() / (n - 1)
    rest_square = ((d - of_seed - of_task + mean) ** 2).sum() / ((seeds - 1) * (n - 1))
    square, freedom = _variance_of_mean(seed_square, task_square, rest_square, seeds=seeds, n=n)

    error = math.sqrt(square / (seeds * n))
    half = student_quantile(0.5 + LEVEL / 2, freedom) * error
    p = 2 * (1 - student_cdf(abs(mean) / error, freedom)) if error else float(mean == 0)
    change = change_result(of_task, float(mean), interval=(mean - half, mean + half), p=p)
    if change["n_needed"]:
        between = max(0.0, seed_square - rest_square) / (seeds * n)  # variance that no number of tasks reduces
        reach = (mean / DETECTABLE) ** 2 - between
        change["n_needed"] = math.ceil(n * (error**2 - between) / reach) if reach > 0 else None
    return change | {"seeds": seeds}


def _differences(before: Sequence[Mapping[str, float]], after: Sequence[Mapping[str, float]]) -> np.ndarray:
    """after - before of each seed and task [S, N]."""
    bases = before if len(before) > 1 else [*before] * len(after)
    rows = []
    for base, run in zip(bases, after, strict=True):
        ids = shared_ids(before[0], base) and shared_ids(before[0], run)
        rows.append(finite([run[i] - base[i] for i in ids]))
    if len(rows[0]) < 2:
        raise ValueError("give two tasks or more")
    return np.stack(rows)


def _variance_of_mean(
    seed_square: float, task_square: float, rest_square: float, *, seeds: int, n: int
) -> tuple[float, float]:
    """The mean square that estimates the variance of the mean (times S·N), and its degrees of freedom."""
    square = seed_square + task_square - rest_square
    if square >= max(seed_square, task_square) > 0:
        parts = seed_square**2 / (seeds - 1) + task_square**2 / (n - 1) + rest_square**2 / ((seeds - 1) * (n - 1))
        return square, square**2 / parts
    # one of the two does not vary beyond the residual: use the other alone
    return max((task_square, n - 1), (seed_square, seeds - 1))
