from __future__ import annotations

import random

import pytest
import scipy.stats

from eval.stats import difference_of_means


def test_the_interval_of_a_difference_is_scipys_of_welch():
    draw = random.Random(0).gauss
    one, other = [draw(1, 1) for _ in range(12)], [draw(0, 4) for _ in range(31)]
    value, *interval = difference_of_means(one, other)
    expected = scipy.stats.ttest_ind(one, other, equal_var=False).confidence_interval()
    assert value == pytest.approx(sum(one) / 12 - sum(other) / 31)
    assert interval == pytest.approx([expected.low, expected.high], abs=1e-4)


def test_no_spread_and_too_few_values():
    assert difference_of_means([2, 2], [1, 1]) == (1, 1, 1)
    with pytest.raises(ValueError, match="two values or more"):
        difference_of_means([1], [1, 2])
