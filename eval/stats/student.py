"""Student's t distribution, for degrees of freedom that need not be whole."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np

NODES, WEIGHTS = np.polynomial.legendre.leggauss(64)


def student_cdf(t: float, freedom: float) -> float:
    """P(T <= t) for `freedom` degrees of freedom.

    With t = sqrt(freedom) tan θ the integrand is cos^(freedom - 1) θ, which Gauss–Legendre quadrature integrates. Above
    1e5 degrees of freedom the normal distribution is within 1e-6 and is used instead.
    """
    if freedom > 1e5:
        return NormalDist().cdf(t)
    end = math.atan(t / math.sqrt(freedom))
    area = end / 2 * float(WEIGHTS @ np.cos(end / 2 * (NODES + 1)) ** (freedom - 1))
    scale = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(math.pi)
    return min(1.0, max(0.0, 0.5 + scale * area))


def student_quantile(p: float, freedom: float) -> float:
    """The t with P(T <= t) = p, for p above one half, by bisection."""
    low, high = 0.0, 1.0
    while student_cdf(high, freedom) < p and high < 1e6:
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if student_cdf(middle, freedom) < p else (low, middle)
    return high
