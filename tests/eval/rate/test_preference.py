from __future__ import annotations

import pytest

from eval.rate.preference import summarise, table


def rows_of(choices, question="clarity", rater="ann"):
    return [
        {"id": str(i), "rater": rater, "question": question, "choice": choice, "left": "A"}
        for i, choice in enumerate(choices)
    ]


def test_the_preference_has_an_interval_over_tasks_and_says_when_it_tells_nothing():
    clear = summarise(rows_of(["B"] * 18 + ["A", "tie"]))["clarity"]
    assert clear["preference"] == pytest.approx(18.5 / 20) and clear["n"] == 20 and clear["distinguishable"]
    assert clear["interval"][0] > 0.5 and clear["left"] == 1 / 19 and clear["agreement"] is None
    even = summarise(rows_of(["A", "B"] * 10))["clarity"]
    assert not even["distinguishable"] and even["interval"][0] < 0.5 < even["interval"][1]
    assert "not distinguishable" in table({"clarity": even}) and "B preferred" in table({"clarity": clear})
    assert not summarise(rows_of(["B"]))["clarity"]["distinguishable"]  # one task has no spread to judge by


def test_two_raters_are_one_task_and_their_agreement_is_told():
    both = summarise(rows_of(["A", "B", "B", "A"]) + rows_of(["A", "B", "B", "B"], rater="bob"))["clarity"]
    assert both["n"] == 4 and both["raters"] == 2 and both["agreement"] == 3 / 4
    assert both["preference"] == pytest.approx((0 + 1 + 1 + 0.5) / 4)
