"""Paired comparisons: the change of a figure over the same tasks before and after, its interval, p and power."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import NormalDist

import numpy as np

from eval.stats.intervals import (
    CRITICAL,
    LEVEL,
    block_sizes,
    bootstrap_mean,
    expanded_percentiles,
    finite,
    resampled_sums,
    shares_of_ratio,
)

POWER = 0.8  # of a study with n_needed tasks (Cohen 1988)
DETECTABLE = CRITICAL + NormalDist().inv_cdf(POWER)  # the smallest effect, in standard errors, detected with that power


def paired_change(
    before: Mapping[str, float],
    after: Mapping[str, float],
    *,
    clusters: Mapping[str, object] | None = None,
    resamples: int = 5000,
    seed: int = 0,
) -> dict:
    """Mean of after - before over the same tasks, with its interval.

    before, after  task id -> value. For an estimate from samples, such as pass@k, a task's value summarises all of its
                   samples: the task is the unit, however many samples it has
    clusters       task id -> label, for tasks that are not independent (cut from one file): then clusters are the units
    Returns {"value", "interval": [low, high], "n", "p", "n_needed", "distinguishable"}. p (two-sided) comes from
    McNemar's exact test for passes and failures (0 and 1), otherwise from Fisher's randomisation test, which exchanges
    each unit's before and after at random (Smucker, Allan and Carterette, CIKM 2007). A change is distinguishable if
    p <= 0.05 and the interval excludes zero. n_needed is the number of tasks (or clusters) at which a change of
    this size would be detected with a power of 80 %; None if it already is, or if there is no change.
    ValueError if the ids differ or there are none.
    """
    ids = shared_ids(before, after)
    differences = finite([after[i] - before[i] for i in ids])
    if clusters is None and {*before.values(), *after.values()} <= {0, 1}:
        won, lost = int((differences > 0).sum()), int((differences < 0).sum())
        interval = paired_rates_interval(won, lost, len(ids))
        p = mcnemar_exact(won, lost)
        mean = float(differences.mean())
        return change_result(differences, mean, interval=interval, p=p, binary=True)
    labels = None if clusters is None else [clusters[i] for i in ids]
    value, *interval = bootstrap_mean(differences, clusters=labels, resamples=resamples, seed=seed)
    if labels is not None:
        order = {label: i for i, label in enumerate(dict.fromkeys(labels))}
        sums = np.bincount([order[label] for label in labels], weights=differences)
        differences = sums * (len(sums) / len(ids))  # each cluster's share of the mean
    columns = differences[:, None]
    p = _randomisation_p(columns, -columns, lambda sums: sums[..., 0], resamples=resamples, seed=seed)
    return change_result(differences, value, interval=interval, p=p) | {"n": len(ids)}


def paired_ratio_of_sums(
    before: Mapping[str, tuple[float, float]],
    after: Mapping[str, tuple[float, float]],
    *,
    transform: Callable[[np.ndarray], np.ndarray] = np.exp,
    resamples: int = 5000,
    seed: int = 0,
) -> dict:
    """Change of transform(sum of numerators / sum of denominators); files are resampled with both their values.

    before, after  file -> (numerator, denominator); for perplexity (nats, tokens) and exp, for bits per byte
                   (nats, bytes) and division by ln 2. In a mean of per-file perplexities a ten-line file would weigh
                   as much as a thousand-line one
    Returns and raises as `paired_change` does; ValueError for a denominator that is not positive.
    """
    ids = shared_ids(before, after)
    columns = np.array([[*before[i], *after[i]] for i in ids], dtype=np.float64)  # [files, 4]
    finite(columns.ravel())
    if (columns[:, [1, 3]] <= 0).any():
        raise ValueError("every file needs at least one token (or byte)")

    def change(sums: np.ndarray) -> np.ndarray:  # [..., 4] -> [...]
        return transform(sums[..., 2] / sums[..., 3]) - transform(sums[..., 0] / sums[..., 1])

    interval = expanded_percentiles(change(resampled_sums(columns, resamples, seed)), len(ids))
    p = _randomisation_p(columns, columns[:, [2, 3, 0, 1]], change, resamples=resamples, seed=seed)
    shares = shares_of_ratio(*columns[:, 2:].T, transform) - shares_of_ratio(*columns[:, :2].T, transform)
    return change_result(shares, float(change(columns.sum(axis=0))), interval=interval, p=p)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values, in the order given (Holm, Scandinavian Journal of Statistics 6, 1979).

    Rejecting at 0.05 then keeps the probability of any false rejection in the family at or below 5 %.
    """
    adjusted, most = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        most = max(most, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = most
    return adjusted


def paired_rates_interval(won: int, lost: int, n: int) -> tuple[float, float]:
    """Interval of the change of a rate over n paired tasks (Bonett and Price, J. Educ. Behav. Stat. 37, 2012).

    Wald's interval with one more task won and one more lost, so that it has a width even if none changed.
    """
    up, down = (won + 1) / (n + 2), (lost + 1) / (n + 2)
    half = CRITICAL * math.sqrt((up + down - (up - down) ** 2) / (n + 2))
    return max(-1.0, up - down - half), min(1.0, up - down + half)


def mcnemar_exact(b: int, c: int) -> float:
    """Two-sided p of McNemar's exact test (Psychometrika 12, 1947): b tasks only lost, c tasks only won."""
    n = int(b) + int(c)  # Python integers do not overflow
    tail = sum(math.comb(n, i) for i in range(min(b, c) + 1))
    return min(1.0, 2 * tail / 2**n)


def change_result(
    units: np.ndarray, value: float, *, interval: Sequence[float], p: float, binary: bool = False
) -> dict:
    """What every comparison returns (see `paired_change`). units [U] are values whose mean is the change."""
    low, high = interval
    distinguishable = p <= 1 - LEVEL and (low > 0 or high < 0)
    needed = None
    if not distinguishable and value and len(units) > 1:
        if binary:  # Connor, Biometrics 43, 1987: under the null hypothesis only the discordant pairs vary
            discordant = float(np.mean(units**2))
            power = DETECTABLE - CRITICAL
            needed = ((CRITICAL * math.sqrt(discordant) + power * math.sqrt(discordant - value**2)) / value) ** 2
        else:  # a paired t-test; the second term is Guenther's, The American Statistician 35, 1981
            needed = float(np.var(units, ddof=1)) * (DETECTABLE / value) ** 2 + CRITICAL**2 / 2
        needed = math.ceil(max(needed, len(units) + 1))  # len(units) were not enough
    return {
        "value": value, "interval": [float(low), float(high)], "n": len(units), "p": float(p), "n_needed": needed,
        "distinguishable": distinguishable,
    }  # fmt: skip


def shared_ids(before: Mapping, after: Mapping) -> list:
    """The ids of both, in the order of `before`. ValueError if they differ."""
    if before.keys() != after.keys():
        odd = sorted(map(str, before.keys() ^ after.keys()))
        raise ValueError(f"before and after have different tasks: {len(odd)} are in only one, such as {odd[0]!r}")
    return list(before)


def _randomisation_p(
    columns: np.ndarray, swapped: np.ndarray, change: Callable[[np.ndarray], np.ndarray], *, resamples: int, seed: int
) -> float:
    """Two-sided p of the change under the hypothesis that each unit's before and after are exchangeable.

    columns, swapped  [U, C]: each unit's sums as observed, and with before and after exchanged
    The observed result counts as one of the draws, so that p is never 0 (Phipson and Smyth 2010).
    """
    total, turned = columns.sum(axis=0), swapped - columns
    seen = abs(float(change(total)))
    rng = np.random.default_rng(seed)
    as_far = 1
    for rows in block_sizes(resamples, len(columns)):
        turns = rng.integers(2, size=(rows, len(columns)), dtype=np.int8)  # [r, U]
        as_far += int((np.abs(change(total + turns @ turned)) >= seen - 1e-9 * max(seen, 1e-3)).sum())
    return as_far / (resamples + 1)
