"""Agreement of raters beyond chance: Krippendorff's alpha.

K. Krippendorff, Computing Krippendorff's Alpha-Reliability, 2011. It takes any number of raters and missing values; for
two raters of ordered values it is what a weighted kappa is for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence


def krippendorff_alpha(units: Sequence[Sequence], *, ordinal: bool = False) -> float | None:
    """1 for full agreement, 0 for chance, below 0 for less than that; None if there is nothing to judge by.

    units    the values assigned to each unit, by however many raters; a unit with fewer than two is omitted
    ordinal  whether the values have an order, and near ones count as nearly equal; else they are equal or not
    None if no unit has two values or all values are equal.
    """
    units = [unit for unit in units if len(unit) > 1]
    totals = Counter(value for unit in units for value in unit)
    n = sum(totals.values())
    distance = _ordinal_distance(totals) if ordinal else _nominal_distance

    # disagreement observed within units, and expected of the same values in any other arrangement
    expected = _disagreement(totals, distance) / (n - 1) if n else 0.0
    if not expected:
        return None
    observed = sum(_disagreement(Counter(unit), distance) / (len(unit) - 1) for unit in units)
    return 1 - observed / expected


def _disagreement(counts: Counter, distance) -> float:
    """The sum of the squared distances of all ordered pairs of these values."""
    return sum(counts[one] * counts[other] * distance(one, other) for one in counts for other in counts)


def _nominal_distance(one, other) -> float:
    return float(one != other)


def _ordinal_distance(totals: Counter):
    """The squared number of values between two, counting half of those equal to either."""

    def distance(one, other) -> float:
        low, high = sorted((one, other))
        between = sum(count for value, count in totals.items() if low <= value <= high)
        return 0.0 if one == other else (between - (totals[one] + totals[other]) / 2) ** 2

    return distance
