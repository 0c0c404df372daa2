from __future__ import annotations

import pytest
import scipy.stats

from eval.stats import student_cdf, student_quantile


@pytest.mark.parametrize("freedom", [1, 2, 2.37, 9, 59, 1000, 5e4, 1e6])
def test_students_distribution_is_scipys(freedom):
    for t in (-3.0, 0.0, 0.5, 1.96, 6.0):
        assert student_cdf(t, freedom) == pytest.approx(scipy.stats.t.cdf(t, freedom), abs=1e-6)
    for p in (0.6, 0.975, 0.995):
        assert student_quantile(p, freedom) == pytest.approx(scipy.stats.t.ppf(p, freedom), rel=1e-5)
