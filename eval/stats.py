"""How sure a figure is: intervals, paired changes, and when two results cannot be told apart.

Every interval of this project comes from here. A rate of independent tasks has Wilson's interval; everything else has
the percentile bootstrap (Efron & Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13): resample the units
with replacement, compute the figure again, take the quantiles. It asks for no distribution and works for means and for
ratios of sums alike; below about 20 units it is somewhat too narrow, so the n always stands beside it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import NormalDist

import numpy as np

BLOCK = 4_000_000  # resampled indices held at once: 32 MB


def wilson(successes: float, n: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a rate (E. B. Wilson, JASA 22, 1927): low and high, inside [0, 1].

    `successes` may be fractional (a mean of per-task rates times n); that is conservative. n = 0 says nothing: (0, 1).
    Raises ValueError unless 0 <= successes <= n.
    """
    if not 0 <= successes <= n:
        raise ValueError(f"successes must lie in 0..n, got {successes} of {n}")
    if n == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(0.5 + level / 2)
    rate = successes / n
    centre = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    # At 0 and n one end is the rate itself; rounding must not push it past.
    return min(max(0.0, centre - half), rate), max(min(1.0, centre + half), rate)


def bootstrap_mean(
    values: Sequence[float],
    *,
    clusters: Sequence | None = None,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[float, float, float]:
    """Mean, low, high of `values` by the percentile bootstrap.

    With `clusters` (a label per value, such as the file that a task comes from) whole clusters are resampled: values
    of one cluster are not independent, and pretending so makes the interval too narrow. A single value (or cluster)
    gives low = mean = high, which is no information about the spread. Raises ValueError for no values.
    """
    values = _finite(values)
    if clusters is None:
        sums, counts = values, np.ones(len(values))
    else:
        if len(clusters) != len(values):
            raise ValueError(f"{len(values)} values but {len(clusters)} cluster labels")
        labels = {label: i for i, label in enumerate(dict.fromkeys(clusters))}
        owner = np.array([labels[label] for label in clusters])
        sums, counts = np.bincount(owner, weights=values), np.bincount(owner).astype(float)
    resampled = _resampled_sums(np.stack([sums, counts], axis=1), resamples, seed)  # [R, 2]
    low, high = _interval(resampled[:, 0] / resampled[:, 1], level)
    return float(values.mean()), low, high


def paired_change(
    before: Mapping[str, float],
    after: Mapping[str, float],
    *,
    level: float = 0.95,
    resamples: int = 5000,
    seed: int = 0,
) -> dict:
    """Mean of after - before over the same tasks, with its interval; tasks are resampled, each with both its values.

    before, after  task id -> value
    Returns {"value", "interval": [low, high], "n", "distinguishable"}. Raises ValueError if the ids differ or there
    are none. Told apart from no change means: the interval excludes zero, and the pairs that moved are enough for the
    claim. The bootstrap of a few moves is too sure of itself: four tasks won of 46 and none lost give an interval above
    zero, though chance does that one time in eight. So passes and failures (0 and 1) must also pass McNemar's exact
    test; other values must have moved often enough that, all going one way, they could.
    """
    ids = _same_ids(before, after)
    differences = _finite([after[i] - before[i] for i in ids])
    value, low, high = bootstrap_mean(differences, level=level, resamples=resamples, seed=seed)
    won, lost = int((differences > 0).sum()), int((differences < 0).sum())
    binary = {*before.values(), *after.values()} <= {0, 1}
    p = mcnemar_exact(won, lost) if binary else mcnemar_exact(won + lost, 0)
    return _change(value, (low, high), len(ids), p <= 1 - level)


def paired_ratio_of_sums(
    before: Mapping[str, tuple[float, float]],
    after: Mapping[str, tuple[float, float]],
    *,
    transform: Callable[[np.ndarray], np.ndarray] = np.exp,
    level: float = 0.95,
    resamples: int = 5000,
    seed: int = 0,
) -> dict:
    """Change of transform(sum of numerators / sum of denominators), files resampled with both their values.

    before, after  file -> (numerator, denominator); for perplexity (nats, tokens) and exp, for bits per byte
                   (nats, bytes) and division by ln 2. A mean of per-file perplexities would let a ten-line file weigh
                   as much as a thousand-line one.
    Returns and raises like `paired_change`; a denominator that is not positive is a ValueError.
    """
    ids = _same_ids(before, after)
    columns = np.array([[*before[i], *after[i]] for i in ids], dtype=np.float64)  # [files, 4]
    _finite(columns.ravel())
    if (columns[:, [1, 3]] <= 0).any():
        raise ValueError("every file needs at least one token (or byte)")

    def change(sums: np.ndarray) -> np.ndarray:  # [..., 4] -> [...]
        return transform(sums[..., 2] / sums[..., 3]) - transform(sums[..., 0] / sums[..., 1])

    interval = _interval(change(_resampled_sums(columns, resamples, seed)), level)
    moved = int((columns[:, 0] / columns[:, 1] != columns[:, 2] / columns[:, 3]).sum())
    value = float(change(columns.sum(axis=0)))
    return _change(value, interval, len(ids), mcnemar_exact(moved, 0) <= 1 - level)


def mcnemar_exact(b: int, c: int) -> float:
    """Two-sided p of McNemar's exact test (Psychometrika 12, 1947): b tasks only lost, c tasks only won."""
    n = b + c
    tail = sum(math.comb(n, i) for i in range(min(b, c) + 1))
    return min(1.0, 2 * tail / 2**n)


def _change(value: float, interval: tuple[float, float], n: int, enough: bool) -> dict:
    low, high = interval
    return {"value": value, "interval": [low, high], "n": n, "distinguishable": enough and (low > 0 or high < 0)}


def _same_ids(before: Mapping, after: Mapping) -> list:
    """The shared ids in the order of `before`."""
    if before.keys() != after.keys():
        odd = sorted(map(str, before.keys() ^ after.keys()))
        raise ValueError(f"before and after are not of the same tasks: {len(odd)} differ, first {odd[0]!r}")
    return list(before)


def _finite(values: Sequence[float]) -> np.ndarray:
    array = np.asarray(values, dtype=np.float64)
    if array.size == 0:
        raise ValueError("no values")
    if not np.isfinite(array).all():
        raise ValueError("a value is not finite")
    return array


def _resampled_sums(units: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Column sums of `resamples` draws of all units with replacement: [U, C] -> [R, C]."""
    rng = np.random.default_rng(seed)
    rows = max(1, BLOCK // len(units))
    sums = []
    for start in range(0, resamples, rows):
        picked = rng.integers(len(units), size=(min(rows, resamples - start), len(units)))  # [r, U]
        sums.append(np.stack([column[picked].sum(axis=1) for column in units.T], axis=1))
    return np.concatenate(sums)


def _interval(resampled: np.ndarray, level: float) -> tuple[float, float]:
    low, high = np.quantile(resampled, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
