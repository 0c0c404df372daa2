"""Confidence intervals of one figure: a rate, a mean, a ratio of sums.

A rate of independent tasks has Wilson's interval; everything else has the expanded percentile bootstrap (Hesterberg,
The American Statistician 69, 2015, section 5): resample the units with replacement, recompute the figure, and take
quantiles that lie further out, by as much as Student's t is wider than the normal. It assumes no distribution and works
for means and for ratios of sums alike. In simulation these intervals cover the truth 93 to 97 % of the time
(tests/eval/stats/test_coverage.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import NormalDist

import numpy as np

from eval.stats.student import student_quantile

LEVEL = 0.95  # of every interval; a change is significant if p <= 1 - LEVEL
CRITICAL = NormalDist().inv_cdf(0.5 + LEVEL / 2)  # 1.96: half the width of a normal interval, in standard errors
BLOCK = 4_000_000  # resampled indices held at once: 32 MB


def wilson(successes: float, n: int) -> tuple[float, float]:
    """Wilson's score interval of a rate (E. B. Wilson, JASA 22, 1927): low and high, inside [0, 1].

    `successes` may be fractional (a mean of per-task rates times n), which is conservative. n = 0 gives (0, 1).
    Raises ValueError unless 0 <= successes <= n.
    """
    if not 0 <= successes <= n:
        raise ValueError(f"successes must lie in 0..n, got {successes} of {n}")
    if n == 0:
        return 0.0, 1.0
    z, rate = CRITICAL, successes / n
    centre = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    # With 0 or n successes one end equals the rate; rounding must not push it past.
    return min(max(0.0, centre - half), rate), max(min(1.0, centre + half), rate)


def bootstrap_mean(
    values: Sequence[float],
    *,
    clusters: Sequence | None = None,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[float, float, float]:
    """Mean, low and high of `values` by the expanded percentile bootstrap.

    clusters  a label per value, such as the file that a task was cut from: whole clusters are resampled, since their
              values are not independent and treating them so would make the interval too narrow
    A single value (or cluster) gives low = mean = high, which says nothing about the spread. ValueError for no values.
    """
    values = finite(values)
    if clusters is None:
        sums, counts = values, np.ones(len(values))
    else:
        if len(clusters) != len(values):
            raise ValueError(f"{len(values)} values but {len(clusters)} cluster labels")
        labels = {label: i for i, label in enumerate(dict.fromkeys(clusters))}
        owner = np.array([labels[label] for label in clusters])
        sums, counts = np.bincount(owner, weights=values), np.bincount(owner).astype(float)
    resampled = resampled_sums(np.stack([sums, counts], axis=1), resamples, seed)  # [R, 2]
    low, high = expanded_percentiles(resampled[:, 0] / resampled[:, 1], len(sums))
    return float(values.mean()), low, high


def bootstrap_ratio(
    numerators: Sequence[float],
    denominators: Sequence[float],
    *,
    transform: Callable[[np.ndarray], np.ndarray] = np.exp,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[float, float, float]:
    """transform(sum of numerators / sum of denominators), with low and high; units are pairs of the two."""
    columns = np.stack([finite(numerators), finite(denominators)], axis=1)  # [U, 2]
    resampled = resampled_sums(columns, resamples, seed)
    low, high = expanded_percentiles(transform(resampled[:, 0] / resampled[:, 1]), len(columns))
    return float(transform(columns[:, 0].sum() / columns[:, 1].sum())), low, high


def shares_of_ratio(
    numerators: np.ndarray, denominators: np.ndarray, transform: Callable[[np.ndarray], np.ndarray] = np.exp
) -> np.ndarray:
    """One value per unit [U], with mean transform(sum / sum) and, to first order, the spread of that ratio.

    Taylor linearisation (Cochran, Sampling Techniques, 1977, section 6.3), so that methods for means apply to a ratio.
    """
    ratio = numerators.sum() / denominators.sum()
    step = 1e-6 * max(abs(ratio), 1.0)
    slope = (transform(ratio + step) - transform(ratio - step)) / (2 * step)
    return transform(ratio) + slope * (numerators - ratio * denominators) / denominators.mean()


def mean_and_interval(
    values: Sequence[float], *, clusters: Sequence | None = None, seed: int = 0
) -> tuple[float, float, float]:
    """Mean, low and high (95 %) of one value per task: Wilson's interval if all are 0 or 1, else the bootstrap's.

    clusters  as for `bootstrap_mean`, which is then used; a label of its own for each value is no cluster
    """
    if clusters is not None and len(set(clusters)) < len(values):
        return bootstrap_mean(values, clusters=clusters, seed=seed)
    if set(values) <= {0.0, 1.0} and len(values):
        return sum(values) / len(values), *wilson(sum(values), len(values))
    return bootstrap_mean(values, seed=seed)


def summarise(
    values: Mapping[str, Mapping[str, float]], *, clusters: Mapping[str, str] | None = None, seed: int = 0
) -> dict:
    """metric -> id -> value as {"metrics": means, "intervals": [low, high] per metric, "n_of": tasks per metric}.

    clusters  id -> label, where tasks are not independent
    """
    found = {
        metric: mean_and_interval(
            list(of_task.values()), clusters=[clusters[i] for i in of_task] if clusters else None, seed=seed
        )
        for metric, of_task in values.items()
    }
    return {
        "metrics": {metric: mean for metric, (mean, _, _) in found.items()},
        "intervals": {metric: [low, high] for metric, (_, low, high) in found.items()},
        "n_of": {metric: len(of_task) for metric, of_task in values.items()},
    }


def finite(values: Sequence[float]) -> np.ndarray:
    """The values as fp64. ValueError if there are none, or if one is NaN or infinite."""
    array = np.asarray(values, dtype=np.float64)
    if array.size == 0:
        raise ValueError("no values")
    if not np.isfinite(array).all():
        raise ValueError("a value is not finite")
    return array


def resampled_sums(units: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Column sums of `resamples` bootstrap samples of the units: [U, C] -> [R, C]."""
    rng = np.random.default_rng(seed)
    sums = []
    for rows in block_sizes(resamples, len(units)):
        picked = rng.integers(len(units), size=(rows, len(units)))  # [r, U]
        sums.append(np.stack([column[picked].sum(axis=1) for column in units.T], axis=1))
    return np.concatenate(sums)


def block_sizes(resamples: int, units: int) -> list[int]:
    """`resamples` in parts, each of which draws at most BLOCK units (or one sample)."""
    rows = max(1, BLOCK // units)
    return [min(rows, resamples - start) for start in range(0, resamples, rows)]


def expanded_percentiles(resampled: np.ndarray, units: int) -> tuple[float, float]:
    """The expanded percentile interval of a figure made of `units` units, from its bootstrap replicates [R]."""
    tail = (1 - LEVEL) / 2
    if units > 1:
        reach = math.sqrt(units / (units - 1)) * student_quantile(1 - tail, units - 1)
        tail = NormalDist().cdf(-reach)
    low, high = np.quantile(resampled, [tail, 1 - tail])
    return float(low), float(high)
