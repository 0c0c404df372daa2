"""The plan: what is in it, in which order, what each run is told to do, and what all of it takes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from experiments.study.commands import stages_of
from experiments.study.grid import (
    FEW_SHOT,
    METHODS,
    MODELS,
    SMOKE,
    TASKS,
    ZERO_SHOT,
    model_of,
    plan,
)
from experiments.study.schedule import expected_minutes
from training.methods import LEARNING_RATES

SMOLLM, CODER = list(MODELS)[:2]
SEEDS = (0, 1, 2)
OUT = Path("runs")


def whole():
    return plan([*MODELS.values()], [*TASKS.values()], METHODS, SEEDS)


def test_the_first_model_has_every_task_method_and_seed_and_the_second_four_methods_on_two_tasks():
    cells = {(run.model.name, run.task.name, run.method, run.seed) for run in whole() if run.is_main and run.is_trained}
    assert {cell[1:] for cell in cells if cell[0] == SMOLLM} == {
        (task, method, seed) for task in TASKS for method in METHODS for seed in SEEDS
    }
    assert {cell[1:] for cell in cells if cell[0] == CODER} == {
        (task, method, 0) for task in ("trec", "pubmedqa") for method in ("lora-8", "full", "prefix", "prompt")
    }


def test_the_most_important_comparison_comes_first_and_nothing_twice():
    runs = whole()
    assert [(run.model.name, run.task.name) for run in runs[:9]] == [(SMOLLM, "trec")] * 9
    assert {run.method for run in runs[:9]} == {ZERO_SHOT, FEW_SHOT, *METHODS} and {run.seed for run in runs[:9]} == {
        0,
        None,
    }
    assert len({run.folder(OUT) for run in runs}) == len(runs)
    # every prefix: the untrained model before its methods, and a learning rate before the runs that take it
    for at, run in enumerate(runs):
        if run.is_trained:
            assert any((one.model, one.task, one.method) == (run.model, run.task, ZERO_SHOT) for one in runs[:at])
            assert (run.rate_from is None) == (run.seed == SEEDS[0] and run.is_main)
        if run.rate_from:
            assert run.rate_from in runs[:at] and run.rate_from.method == run.method and run.rate_from.seed == SEEDS[0]


def test_every_method_tries_as_many_learning_rates_the_published_one_among_them():
    for method in METHODS.values():
        assert len(method.rates) == 3 and LEARNING_RATES[method.arguments[1]] in method.rates


def test_two_methods_have_learning_curves_of_100_300_1000_and_all_rows():
    curves = {}
    for run in whole():
        if run.is_trained and not run.is_main:
            curves.setdefault((run.task.name, run.method), []).append(run.rows)
    assert curves == {("trec", method): [100, 300, 1000, None] for method in ("lora-8", "full")}


def test_the_grid_of_the_two_models_that_are_here_fits_five_to_seven_hours():
    minutes = [expected_minutes(run) for run in whole() if run.model.name in (SMOLLM, CODER)]
    assert 5 * 60 <= sum(minutes) <= 7 * 60
    first, *_ = runs = whole()
    other = next(run for run in runs if run.model.name == CODER and run.method == ZERO_SHOT)
    assert expected_minutes(other) > 2 * expected_minutes(first)


def test_a_model_without_an_entry_takes_the_whole_grid():
    runs = plan([model_of("my/own")], [SMOKE["trec"]], ["ia3"], (5,))
    assert [(run.method, run.rows, run.seed) for run in runs] == [
        (ZERO_SHOT, 12, None), ("ia3", 12, 5), (FEW_SHOT, 12, None),
    ]  # fmt: skip
    assert plan([MODELS[CODER]], [TASKS["code"]], METHODS, SEEDS) == []  # not of this model's tasks
    assert len(plan([MODELS[CODER], MODELS[SMOLLM]], [TASKS["code"]], ["ia3"], (0,))) == 3


def test_the_first_seed_tries_learning_rates_and_the_others_take_the_chosen_one():
    run = next(run for run in whole() if run.method == "full")
    first, *_ = [one.shown() for one in stages_of(run, OUT, None)]
    assert "--sweep lr=2e-05,6e-05,0.0002" in first and "--validation" in first and "--lr " not in first
    train, answer, texts = [one.shown() for one in stages_of(replace(run, seed=2, rate_from=run), OUT, 6e-05)]
    assert "--lr 6e-05" in train and "--seed 2" in train and "--sweep" not in train and "--method full" in train
    assert answer.startswith("python -m eval.text") and texts.startswith("python -m eval.perplexity")
    assert all("--adapter" not in one and f"{run.task.rows}-rows/seed-2/run/model" in one for one in (answer, texts))


def test_an_adapter_is_measured_on_its_base_and_an_untrained_model_alone():
    runs = {run.method: run for run in whole() if run.model.name == SMOLLM and run.task.name == "code"}
    train, answer, texts = [one.shown() for one in stages_of(replace(runs["prefix"], rate_from=None), OUT, None)]
    assert train.startswith(f"python train_sft.py --model {SMOLLM} ")
    assert all(f"--model {SMOLLM} --adapter " in one for one in (answer, texts))
    assert "eval.instruct" in answer and "--samples 0 --k 1" in answer
    assert len(stages_of(runs[ZERO_SHOT], OUT, None)) == 2
    (few,) = stages_of(runs[FEW_SHOT], OUT, None)
    assert "test-5-shot.jsonl" in few.shown()
    (few,) = stages_of(next(run for run in whole() if run.method == FEW_SHOT), OUT, None)
    assert "--shots 5" in few.shown() and "train-600.jsonl" in few.shown()
