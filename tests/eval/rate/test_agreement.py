from __future__ import annotations

import random

import pytest

from eval.rate.agreement import krippendorff_alpha

RATERS = ["123321412...", "1233224125.3", ".3332342251.", "12332441251."]
UNITS = [[int(rater[i]) for rater in RATERS if rater[i] != "."] for i in range(12)]


def test_alpha_is_krippendorffs_own_example():
    """Section C of his paper: four raters, twelve units, with missing values."""
    assert krippendorff_alpha(UNITS) == pytest.approx(0.743, abs=5e-4)
    assert krippendorff_alpha(UNITS, ordinal=True) == pytest.approx(0.815, abs=5e-4)


def test_full_agreement_none_and_nothing_to_judge_by():
    assert krippendorff_alpha([["A", "A"], ["B", "B"]]) == krippendorff_alpha([[1, 1], [4, 4]], ordinal=True) == 1
    assert krippendorff_alpha([[1, 5], [5, 1]], ordinal=True) < 0
    assert krippendorff_alpha([["A"], ["B"]]) is None and krippendorff_alpha([["A", "A"]]) is None
    assert krippendorff_alpha([]) is None


def test_raters_who_are_near_each_other_agree_more_than_raters_who_are_not():
    near, far = [[1, 2], [2, 3], [4, 5], [5, 5], [1, 1]], [[1, 5], [2, 5], [4, 1], [5, 5], [1, 1]]
    assert krippendorff_alpha(near, ordinal=True) > krippendorff_alpha(near) > krippendorff_alpha(far, ordinal=True)


def test_chance_is_zero():
    draw = random.Random(0).choices
    units = [draw((1, 2, 3, 4, 5), k=2) for _ in range(4000)]
    assert krippendorff_alpha(units, ordinal=True) == pytest.approx(0, abs=0.05)
