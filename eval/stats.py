"""How sure a figure is: intervals, paired changes, and when two results cannot be told apart.

Every interval of this project comes from here. A rate of independent tasks has Wilson's interval, a change of such a
rate Bonett and Price's; everything else has the expanded percentile bootstrap (Hesterberg, The American Statistician
69, 2015, section 5): resample the units with replacement, compute the figure again, take quantiles a little further
out, by as much as Student's t is wider than the normal. It asks for no distribution and works for means and for ratios
of sums alike. Simulated, these intervals cover the truth 93 to 97 times of a hundred (tests/eval/test_coverage.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import NormalDist

import numpy as np

BLOCK = 4_000_000  # resampled indices held at once: 32 MB
POWER = 0.8  # how often a study of the size that is called needed would tell (Cohen 1988)
NODES, WEIGHTS = np.polynomial.legendre.leggauss(64)


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
    """Mean, low, high of `values` by the expanded percentile bootstrap.

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
    low, high = _interval(resampled[:, 0] / resampled[:, 1], level, len(sums))
    return float(values.mean()), low, high


def mean_and_interval(values: Sequence[float], *, seed: int = 0) -> tuple[float, float, float]:
    """Mean, low, high (95 %) of a value a task: Wilson's interval where each is 0 or 1, else the bootstrap's."""
    if set(values) <= {0.0, 1.0} and len(values):
        return sum(values) / len(values), *wilson(sum(values), len(values))
    return bootstrap_mean(values, seed=seed)


def summarise(values: Mapping[str, Mapping[str, float]], *, seed: int = 0) -> dict:
    """metric -> id -> value as {"metrics": means, "intervals": [low, high] of each, "n_of": over how many tasks}."""
    found = {metric: mean_and_interval(list(of_task.values()), seed=seed) for metric, of_task in values.items()}
    return {
        "metrics": {metric: mean for metric, (mean, _, _) in found.items()},
        "intervals": {metric: [low, high] for metric, (_, low, high) in found.items()},
        "n_of": {metric: len(of_task) for metric, of_task in values.items()},
    }


def bootstrap_ratio(
    numerators: Sequence[float],
    denominators: Sequence[float],
    *,
    transform: Callable[[np.ndarray], np.ndarray] = np.exp,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[float, float, float]:
    """transform(sum of numerators / sum of denominators), low and high; each pair of the two is a unit."""
    columns = np.stack([_finite(numerators), _finite(denominators)], axis=1)  # [U, 2]
    resampled = _resampled_sums(columns, resamples, seed)
    low, high = _interval(transform(resampled[:, 0] / resampled[:, 1]), level, len(columns))
    return float(transform(columns[:, 0].sum() / columns[:, 1].sum())), low, high


def paired_change(
    before: Mapping[str, float],
    after: Mapping[str, float],
    *,
    clusters: Mapping[str, object] | None = None,
    level: float = 0.95,
    resamples: int = 5000,
    seed: int = 0,
) -> dict:
    """Mean of after - before over the same tasks, with its interval.

    before, after  task id -> value. Of an estimate such as sampled pass@k a task's value sums up all of its samples:
                   the task is the unit, however many samples it has
    clusters       task id -> label, where tasks hang together (cut from one file): then whole clusters are the units
    Returns {"value", "interval": [low, high], "n", "p", "n_needed", "distinguishable"}. p (two-sided) is McNemar's
    exact one for passes and failures (0 and 1); else each unit's before and after trade places at random (Fisher's
    randomisation test; Smucker, Allan and Carterette, CIKM 2007). Told apart from no change means p <= 1 - level and
    an interval without zero. n_needed: how many tasks (or clusters) would tell a change of this size four times of
    five; None where it is told already, or where there is none. ValueError if the ids differ or there are none.
    """
    ids = _same_ids(before, after)
    differences = _finite([after[i] - before[i] for i in ids])
    if clusters is None and {*before.values(), *after.values()} <= {0, 1}:
        won, lost = int((differences > 0).sum()), int((differences < 0).sum())
        interval = paired_rates_interval(won, lost, len(ids), level=level)
        return _change(differences, float(differences.mean()), interval, mcnemar_exact(won, lost), level, binary=True)
    labels = None if clusters is None else [clusters[i] for i in ids]
    value, *interval = bootstrap_mean(differences, clusters=labels, level=level, resamples=resamples, seed=seed)
    if labels is not None:
        order = {label: i for i, label in enumerate(dict.fromkeys(labels))}
        sums = np.bincount([order[label] for label in labels], weights=differences)
        differences = sums * (len(sums) / len(ids))  # a cluster's share of the mean
    columns = differences[:, None]
    p = _exchange_p(columns, -columns, lambda sums: sums[..., 0], resamples, seed)
    return _change(differences, value, interval, p, level) | {"n": len(ids)}


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

    interval = _interval(change(_resampled_sums(columns, resamples, seed)), level, len(ids))
    p = _exchange_p(columns, columns[:, [2, 3, 0, 1]], change, resamples, seed)
    shares = shares_of_ratio(*columns[:, 2:].T, transform) - shares_of_ratio(*columns[:, :2].T, transform)
    return _change(shares, float(change(columns.sum(axis=0))), interval, p, level)


def shares_of_ratio(
    numerators: np.ndarray, denominators: np.ndarray, transform: Callable[[np.ndarray], np.ndarray] = np.exp
) -> np.ndarray:
    """Values, one a file [U], whose mean is transform(sum / sum) and whose spread is its spread to first order.

    Taylor linearisation (Cochran, Sampling Techniques, 1977, section 6.3): what a mean is judged by applies to a ratio.
    """
    ratio = numerators.sum() / denominators.sum()
    step = 1e-6 * max(abs(ratio), 1.0)
    slope = (transform(ratio + step) - transform(ratio - step)) / (2 * step)
    return transform(ratio) + slope * (numerators - ratio * denominators) / denominators.mean()


def change_over_seeds(
    before: Sequence[Mapping[str, float]], after: Sequence[Mapping[str, float]], *, level: float = 0.95
) -> dict:
    """Mean of after - before where a run was trained several times: the seeds are a sample, as the tasks are.

    before  one mapping (task id -> value), or as many as `after`: the s-th goes with the s-th
    after   one mapping a training seed, at least three, all of the same tasks
    Every task is answered under every seed: the variance of the mean is that of the crossed random-effects layout, with
    Satterthwaite's degrees of freedom (Searle, Casella and McCulloch, Variance Components, 1992, section 4.6).
    Pretending that S runs are S times as many tasks would be far too sure. Three seeds that differ much cover the
    truth 92 times of a hundred; two of them 88, and are refused.
    Returns as `paired_change`, with "seeds"; n_needed (tasks) is also None where only more seeds could tell.
    """
    if len(after) < 3 or len(before) not in (1, len(after)):
        raise ValueError(f"give three seeds or more, and one result before or as many, not {len(before)}, {len(after)}")
    bases = before if len(before) > 1 else [*before] * len(after)
    differences = []
    for base, run in zip(bases, after, strict=True):
        ids = _same_ids(before[0], base) and _same_ids(before[0], run)
        differences.append(_finite([run[i] - base[i] for i in ids]))
    seeds, n = len(after), len(ids)
    if n < 2:
        raise ValueError("give two tasks or more")
    d = np.stack(differences)  # [S, N]
    mean, of_seed, of_task = d.mean(), d.mean(1, keepdims=True), d.mean(0)
    seed_square = n * ((of_seed - mean) ** 2).sum() / (seeds - 1)
    task_square = seeds * ((of_task - mean) ** 2).sum() / (n - 1)
    rest_square = ((d - of_seed - of_task + mean) ** 2).sum() / ((seeds - 1) * (n - 1))
    square = seed_square + task_square - rest_square
    if square >= max(seed_square, task_square) > 0:
        parts = seed_square**2 / (seeds - 1) + task_square**2 / (n - 1) + rest_square**2 / ((seeds - 1) * (n - 1))
        freedom = square**2 / parts
    else:  # one of the two does not vary beyond the rest: the other alone
        square, freedom = max((task_square, n - 1), (seed_square, seeds - 1))
    error = math.sqrt(square / (seeds * n))
    half = student_quantile(0.5 + level / 2, freedom) * error
    p = 2 * (1 - student_cdf(abs(mean) / error, freedom)) if error else float(mean == 0)
    change = _change(of_task, float(mean), (mean - half, mean + half), p, level)
    if change["n_needed"]:
        between = max(0.0, seed_square - rest_square) / (seeds * n)  # what no number of tasks makes smaller
        reach = (mean / _z(level)) ** 2 - between
        change["n_needed"] = math.ceil(n * (error**2 - between) / reach) if reach > 0 else None
    return change | {"seeds": seeds}


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for their number, in the order given (Holm, Scandinavian Journal of Statistics 6, 1979).

    Calling different what stays at or below 0.05 makes one false call or more in at most 5 % of such families.
    """
    adjusted, most = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        most = max(most, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = most
    return adjusted


def paired_rates_interval(won: int, lost: int, n: int, *, level: float = 0.95) -> tuple[float, float]:
    """Interval of the change of a rate over n paired tasks (Bonett and Price, J. Educ. Behav. Stat. 37, 2012).

    Wald's interval with one task more of each kind that moved: where none moved it still has a width.
    """
    up, down = (won + 1) / (n + 2), (lost + 1) / (n + 2)
    half = NormalDist().inv_cdf(0.5 + level / 2) * math.sqrt((up + down - (up - down) ** 2) / (n + 2))
    return max(-1.0, up - down - half), min(1.0, up - down + half)


def mcnemar_exact(b: int, c: int) -> float:
    """Two-sided p of McNemar's exact test (Psychometrika 12, 1947): b tasks only lost, c tasks only won."""
    n = int(b) + int(c)  # of Python's integers, which do not overflow
    tail = sum(math.comb(n, i) for i in range(min(b, c) + 1))
    return min(1.0, 2 * tail / 2**n)


def student_cdf(t: float, freedom: float) -> float:
    """P(T <= t) of Student's t; `freedom` (degrees) may be fractional. With t = sqrt(freedom) tan θ the integrand is
    cos^(freedom - 1) θ, which Gauss–Legendre integrates; the normal takes over where the two differ by less than 1e-6.
    """
    if freedom > 1e5:
        return NormalDist().cdf(t)
    end = math.atan(t / math.sqrt(freedom))
    area = end / 2 * float(WEIGHTS @ np.cos(end / 2 * (NODES + 1)) ** (freedom - 1))
    scale = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(math.pi)
    return min(1.0, max(0.0, 0.5 + scale * area))


def student_quantile(p: float, freedom: float) -> float:
    """The t with P(T <= t) = p, for p above one half."""
    low, high = 0.0, 1.0
    while student_cdf(high, freedom) < p and high < 1e6:
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if student_cdf(middle, freedom) < p else (low, middle)
    return high


def _z(level: float) -> float:
    """Standard errors that an effect must lie from zero to be told with POWER."""
    return NormalDist().inv_cdf(0.5 + level / 2) + NormalDist().inv_cdf(POWER)


def _change(
    units: np.ndarray, value: float, interval: tuple[float, float], p: float, level: float, *, binary: bool = False
) -> dict:
    """The answer of every comparison. units [U] are values whose mean is the change."""
    low, high = interval
    told = p <= 1 - level and (low > 0 or high < 0)
    needed = None
    if not told and value and len(units) > 1:
        normal = NormalDist().inv_cdf(0.5 + level / 2)
        if binary:  # Connor, Biometrics 43, 1987: under the null only the pairs that move vary
            moved = float(np.mean(units**2))
            power = _z(level) - normal
            needed = ((normal * math.sqrt(moved) + power * math.sqrt(moved - value**2)) / value) ** 2
        else:  # of a paired t-test; Guenther, The American Statistician 35, 1981, for the second term
            needed = float(np.var(units, ddof=1)) * (_z(level) / value) ** 2 + normal**2 / 2
        needed = math.ceil(max(needed, len(units) + 1))  # this many did not do
    return {
        "value": value, "interval": [float(low), float(high)], "n": len(units), "p": float(p), "n_needed": needed,
        "distinguishable": told,
    }  # fmt: skip


def _exchange_p(
    columns: np.ndarray, swapped: np.ndarray, change: Callable[[np.ndarray], np.ndarray], resamples: int, seed: int
) -> float:
    """Two-sided p of the change if every unit's before and after could as well have been the other way round.

    columns, swapped  [U, C]: each unit's sums as they are, and with before and after exchanged
    The result itself counts as one of the draws, so that p is never 0 (Phipson and Smyth 2010).
    """
    total, turned = columns.sum(axis=0), swapped - columns
    seen = abs(float(change(total)))
    rng = np.random.default_rng(seed)
    rows = max(1, BLOCK // len(columns))
    as_far = 1
    for start in range(0, resamples, rows):
        turns = rng.integers(2, size=(min(rows, resamples - start), len(columns)), dtype=np.int8)  # [r, U]
        as_far += int((np.abs(change(total + turns @ turned)) >= seen - 1e-9 * max(seen, 1e-3)).sum())
    return as_far / (resamples + 1)


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


def _interval(resampled: np.ndarray, level: float, units: int) -> tuple[float, float]:
    """The expanded percentile interval of a figure made of so many units."""
    tail = (1 - level) / 2
    if units > 1:
        reach = math.sqrt(units / (units - 1)) * student_quantile(1 - tail, units - 1)
        tail = NormalDist().cdf(-reach)
    low, high = np.quantile(resampled, [tail, 1 - tail])
    return float(low), float(high)
