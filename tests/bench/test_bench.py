"""What the comparisons compute beside their measurements."""

from __future__ import annotations

import pytest

from bench.context import longest
from bench.train import _seconds_to
from model.console import UserError


@pytest.mark.parametrize("limit", [1024, 1025, 5000, 12_345, 32_767, 32_768, 10**9])
def test_the_longest_that_fits_is_found_to_an_eighth(limit):
    tried = []

    def fits(tokens: int) -> bool:
        tried.append(tokens)
        return tokens <= limit

    found = longest(fits, 1024, 32_768)
    assert found <= min(limit, 32_768) <= found * 1.13 + 1
    assert max(tried) <= 32_768 and len(tried) < 12


def test_a_memory_in_which_nothing_fits_is_one_line():
    with pytest.raises(UserError, match="not even 1024 tokens fit"):
        longest(lambda tokens: False, 1024, 32_768)


def test_seconds_count_to_the_step_at_which_the_mean_of_eight_is_low_enough():
    figure = {"losses": [4.0, 1.0, 3.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0], "seconds": [10.0] + [1.0] * 9}
    assert _seconds_to(2.5, figure) == 11  # (4 + 1) / 2
    assert _seconds_to(2.2, figure) == 18  # after nine steps the first has left: 16 / 8
