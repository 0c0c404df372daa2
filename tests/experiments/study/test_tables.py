"""What finished runs say together, on runs made by hand."""

from __future__ import annotations

import math

import pytest

from eval.stats import mean_and_interval
from experiments.study.finished import Finished
from experiments.study.grid import MODELS, TASKS, ZERO_SHOT, Run
from experiments.study.tables import (
    change_rows,
    classical_rows,
    classical_summary,
    curve_rows,
    forgetting_rows,
    mean_values,
    over_seeds,
    rate_row,
    summary_rows,
)
from tests.experiments.study.test_changes import BEFORE, LORA, graded, read, values

MODEL, TASK = MODELS["smollm2-135m"], TASKS["trec"]
RECORD = {
    "seconds": 90.0, "cpu_seconds": 150.0, "commit": "c0ffee",
    "commands": ["python train_sft.py", "python -m eval.text"],
    "environment": {"python": "3.11", "torch": "2", "device": "cpu", "source_sha256": "x"},
}  # fmt: skip
COUNTED = graded(set(range(20)))  # by words
CLASSICAL = {part: COUNTED[part] for part in ("metrics", "intervals", "values")}


def untrained() -> Finished:
    answers = BEFORE | {"baselines": {TASK.classical: CLASSICAL}}
    return Finished(Run(MODEL, TASK, ZERO_SHOT, TASK.rows), RECORD, answers, texts=read(2.0, 3.0))


def trained(method: str, seed: int, answers: dict, *, rows: int | None = TASK.rows, seconds: float = 60.0) -> Finished:
    first = Run(MODEL, TASK, method, TASK.rows, 0)
    run = first if (seed, rows) == (0, TASK.rows) else Run(MODEL, TASK, method, rows, seed, first)
    cost = {"train_rows": rows or 4897, "lr": 1e-3, "seconds": {"train": seconds}, "trainable_parameters": 7}
    tried = {"tried": [{"lr": lr, "validation_loss": 1 / lr, "steps": 10} for lr in (1e-4, 3e-4, 1e-3)], "chosen": 1e-3}
    return Finished(
        run, RECORD, answers, texts=read(2.0, 3.1), training=cost | {"memory_gib": 1.5},
        sweep=None if run.rate_from else tried,
    )  # fmt: skip


RUNS = [untrained(), *(trained("lora-8", seed, LORA[seed], seconds=60 + 60 * seed) for seed in range(3))]


def test_a_summary_has_means_over_seeds_and_intervals_over_tasks():
    zero, lora = summary_rows(RUNS)
    assert (zero["method"], zero["seeds"], zero["minutes"], zero["lr"]) == (ZERO_SHOT, [], None, None)
    assert zero["intervals"]["accuracy"] == BEFORE["intervals"]["accuracy"]
    assert (lora["seeds"], lora["minutes"], lora["trainable_parameters"]) == ([0, 1, 2], 2.0, 7)
    assert lora["metrics"]["accuracy"] == pytest.approx(25 / 40)
    assert lora["range"]["accuracy"] == [24 / 40, 26 / 40]
    means = [math.fsum(values(LORA[seed])[name] for seed in range(3)) / 3 for name in values(BEFORE)]
    _, *interval = mean_and_interval(means)
    assert lora["intervals"] == {"accuracy": interval, "macro_f1": [0, 1]}  # the latter is of all tasks together
    assert lora["n"]["accuracy"] == 40 and "likelihood_accuracy" not in lora["metrics"]


def test_a_task_counts_if_it_has_a_value_under_every_seed():
    assert mean_values([{"a": 1.0, "b": 0.0}, {"a": 0.0}]) == {"a": 0.5}
    assert over_seeds([BEFORE], ("macro_f1",))["intervals"] == {"macro_f1": [0, 1]}


def test_methods_are_compared_with_no_training_words_and_full_fine_tuning():
    runs = [*RUNS, *(trained("full", seed, graded(set(range(30)))) for seed in range(3))]
    found = {(row["against"], row["method"]): row for row in change_rows(runs)}
    assert {name: round(row["value"] * 40) for name, row in found.items()} == {
        ("zero-shot", "lora-8"): 15, ("zero-shot", "full"): 20, ("classical", "lora-8"): 5, ("classical", "full"): 10,
        ("full", "lora-8"): -5,
    }  # fmt: skip
    assert all(row["seeds"] == 3 and row["task"] == "trec" for row in found.values())


def test_the_classical_baselines_stand_beside_the_zero_shot_answers():
    (row,) = classical_rows(RUNS[0])
    assert (row["model"], row["kind"], row["method"], row["train_rows"]) == (None, "classical", TASK.classical, 600)
    assert row["metrics"]["accuracy"] == 0.5 and row["n"]["accuracy"] == 40
    assert row["measured_with"] == MODEL.name and classical_rows(RUNS[1]) == []
    (row,) = classical_summary(RUNS[0])
    assert row.keys() == summary_rows(RUNS)[0].keys() | {"measured_with"} and row["range"]["accuracy"] == [0.5, 0.5]


def test_forgetting_needs_the_untrained_model():
    found = {(row["method"], row["text"], row["seeds"]) for row in forgetting_rows(RUNS)}
    assert found == {("lora-8", "code", 3), ("lora-8", "english", 3)}
    assert forgetting_rows(RUNS[1:]) == []


def test_a_curve_has_every_size_of_one_seed_in_order():
    more = [trained("lora-8", 0, graded(set(range(35))), rows=None), trained("lora-8", 0, graded({1}), rows=100)]
    (curve,) = curve_rows([*RUNS, *more])
    assert [point["train_rows"] for point in curve["points"]] == [100, 600, 4897] and curve["seed"] == 0
    assert [round(40 * point["value"]) for point in curve["points"]] == [1, 24, 35]
    assert curve_rows(RUNS) == []


def test_a_chosen_rate_at_the_edge_of_those_tried_says_so():
    assert rate_row(RUNS[1])["at_edge"] and rate_row(RUNS[1])["chosen"] == 1e-3
    inner = Finished(**vars(RUNS[1]) | {"sweep": RUNS[1].sweep | {"chosen": 3e-4}})
    assert not rate_row(inner)["at_edge"]


def test_a_row_records_how_it_was_made():
    row = RUNS[2].row()
    assert row["commit"] == "c0ffee" and row["command"] == "python train_sft.py" and len(row["commands"]) == 2
    assert row["seconds"] == {"train": 120.0, "run": 90.0, "cpu": 150.0}
    assert row["versions"] == {"python": "3.11", "torch": "2"}
    assert row["n"]["accuracy"] == 40 and row["lr"] == 1e-3 and row["seed"] == 1 and row["train_rows"] == 600
    assert RUNS[0].row()["train_rows"] is None and RUNS[0].row()["kind"] == "prompted"
