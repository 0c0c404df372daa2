"""Two independent samples: the difference of their means, without assuming equal spread."""

from __future__ import annotations

import math
from collections.abc import Sequence

from eval.stats.intervals import LEVEL, finite
from eval.stats.student import student_quantile


def difference_of_means(one: Sequence[float], other: Sequence[float]) -> tuple[float, float, float]:
    """mean(one) - mean(other), with low and high (95 %) of Welch's interval (B. L. Welch, Biometrika 34, 1947).

    ValueError unless both have two values or more.
    """
    samples = finite(one), finite(other)
    if min(map(len, samples)) < 2:
        raise ValueError("an interval of a difference needs two values or more on both sides")
    difference = float(samples[0].mean() - samples[1].mean())
    squared = [float(values.var(ddof=1)) / len(values) for values in samples]  # of the standard error of each mean
    if not sum(squared):
        return difference, difference, difference
    freedom = sum(squared) ** 2 / sum(s**2 / (len(v) - 1) for s, v in zip(squared, samples, strict=True))
    reach = student_quantile(0.5 + LEVEL / 2, freedom) * math.sqrt(sum(squared))
    return difference, difference - reach, difference + reach
