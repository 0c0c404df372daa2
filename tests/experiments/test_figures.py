"""From eval results to an experiment's rows: what two seeds say together, and what each type of task says."""

from __future__ import annotations

import pytest

from experiments.figures import changes_by_type, changes_from, figures, of_two


def result(*values: float, kinds="aabb") -> dict:
    rows = [{"task_id": str(i), "type": kind, "sample": "greedy"} for i, kind in enumerate(kinds)]
    return {"values": {"pass": {str(i): value for i, value in enumerate(values)}}, "metrics": {}, "results": rows}


def test_two_seeds_are_averaged_task_by_task_and_three_are_a_sample():
    base, one, other = result(0, 0, 0, 0), result(1, 0, 1, 0), result(1, 1, 0, 0)
    change = changes_from([base], {"run": [one, other]}, ["pass"])["run"]["pass"]
    assert change["value"] == 0.5 and change["n"] == 4 and "seeds" not in change
    assert [*of_two([one, other])[0]["values"]["pass"].values()] == [1.0, 0.5, 0.5, 0.0]
    assert changes_from([base], {"run": [one, other, one]}, ["pass"])["run"]["pass"]["seeds"] == 3
    assert changes_from([one, other], {"run": [one, other]}, ["pass"])["run"]["pass"]["value"] == 0
    assert changes_from([base], {"run": [one, other]}, ["other"]) == {"run": {}}


def test_the_change_of_each_type_is_over_its_tasks_alone():
    found = changes_by_type(result(0, 0, 1, 1), result(1, 1, 1, 0), "pass")
    assert {kind: (one["value"], one["n"]) for kind, one in found.items()} == {"a": (1.0, 2), "b": (-0.5, 2)}
    alone = changes_by_type(result(0, 1, kinds="ab"), result(1, 1, kinds="ab"), "pass")
    assert alone == {}  # one task gives no interval


def test_a_metric_has_its_own_n():
    of = {"metrics": {"a": 0.5, "b": 1.0}, "intervals": {"a": [0, 1], "b": [1, 1]}, "n": 9, "n_of": {"a": 4}}
    assert figures(of, ["a", "b", "c"])["n"] == {"a": 4, "b": 9}
    with pytest.raises(KeyError):
        figures({"metrics": {"a": 1.0}, "intervals": {}, "n": 1}, ["a"])
