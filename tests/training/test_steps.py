"""The steps of a run: where they begin and end, what is due, what a step costs."""

from __future__ import annotations

import time

import pytest
import torch

from training.steps import Deadline, Steps

CPU = torch.device("cpu")
NO_DEADLINE = Deadline(0, 0.0)


@pytest.fixture
def clock(monkeypatch):
    """A list with the time that perf_counter returns."""
    now = [1000.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    return now


def test_they_run_from_the_resumed_step_to_the_last_one_and_say_which_that_is():
    steps = Steps(1, 5, NO_DEADLINE)
    assert [(step, steps.is_last, steps.due(2)) for step in steps] == [
        (2, False, True), (3, False, False), (4, False, True), (5, True, True)
    ]  # fmt: skip
    assert not steps.due(0)
    assert list(Steps(5, 5, NO_DEADLINE)) == []


def test_a_run_that_is_stopped_ends_with_this_step_and_says_why(capsys):
    steps, done = Steps(0, 9, NO_DEADLINE), []
    for step in steps:
        if step == 3:
            steps.stop("enough")
        done.append((step, steps.due(100)))
    assert done == [(1, False), (2, False), (3, True)]
    assert "stopped  after step 3 of 9: enough" in capsys.readouterr().out


def test_a_run_ends_while_there_is_time_for_the_evaluation(clock, capsys):
    steps = Steps(0, 100, Deadline(5, clock[0] - 60.0, reserve=60.0))  # a minute went into preparing
    done = []
    for step in steps:
        done.append((step, steps.due(100)))
        clock[0] += 20.0
    # 60 s before, 60 s after: 180 s are left for steps of 20 s, and one more step's time is kept for a slower one
    assert [step for step, _ in done] == list(range(1, 10)) and [due for _, due in done] == [False] * 8 + [True]
    said = capsys.readouterr().out
    assert "after step 9 of 100: time limit reached; resume with --resume and a larger --max-minutes" in said


def test_a_step_knows_its_cost_and_the_time_left(clock):
    steps = Steps(0, 3, NO_DEADLINE)
    for step in steps:
        clock[0] += 2.0
        costs = steps.costs(50, CPU)
        assert costs["tokens_per_second"] == 25.0 and costs["seconds_left"] == {1: 0.0, 2: 2.0, 3: 0.0}[step]
        assert costs["seconds"] == 2.0 * step and 0.01 < costs["memory_gib"] < 100
