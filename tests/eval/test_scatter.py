"""Scatter plots: names that do not cover one another, ticks that can be read."""

from __future__ import annotations

import itertools

import pytest

from eval.charts import LETTER, WIDTH
from eval.scatter import apart, log_ticks, short


def test_names_at_one_place_move_apart_and_stay_within_the_picture():
    crowd = [("lora-8", 400.0, 50.0), ("lora-32", 402.0, 51.0), ("full", 401.0, 52.0), ("bottleneck", 399.0, 58.0)]
    placed = apart([*crowd, ("ia3", 100.0, 50.0)])
    assert ("ia3", 107.0, 54.0) in placed and len(placed) == 5
    for (name, x, y), (other, other_x, other_y) in itertools.combinations(placed, 2):
        beside = x + LETTER * len(name) <= other_x or other_x + LETTER * len(other) <= x
        assert beside or abs(y - other_y) >= 12, (name, other)
    assert all(x >= 0 and x + LETTER * len(name) <= WIDTH for name, x, _ in placed)


def test_ticks_are_powers_of_ten_or_finer():
    assert log_ticks(3.5, 7.2) == [1e4, 1e5, 1e6, 1e7]
    assert log_ticks(0.2, 1.1) == pytest.approx([2, 5, 10])
    assert log_ticks(0.1, 0.25) == pytest.approx([1.3, 1.4, 1.5, 1.6, 1.7])
    assert [short(value) for value in (0.5, 20, 1e4, 2.5e6)] == ["0.5", "20", "10 k", "2.5 M"]
