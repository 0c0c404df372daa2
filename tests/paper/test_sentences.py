"""What the text claims is what the verdicts say, and nothing when nothing was run."""

from __future__ import annotations

import pytest

from paper import sentences
from paper.study import Study
from tests.paper.made_up import made_up_study

MODEL = "smollm2-135m"
OF_STUDY = (
    "tally",
    "forgetting",
    "cost",
    "seeds",
    "curves",
    "rates",
    "errors",
    "progress",
    "energy",
    "on_other_models",
)


@pytest.fixture
def study():
    return Study.of(made_up_study())


def test_methods_are_sorted_by_their_verdicts_and_tasks_by_what_was_found(study):
    for change in study.rows("changes", model=MODEL, task="scitldr", method="ia3", against="zero-shot"):
        change |= {"value": 0.6, "interval": [0.5, 0.7]}
    assert sentences.compared(study, MODEL, "zero-shot") == (
        "On TREC, PubMedQA and networkx (executed), better: all methods but prompt tuning and IA3; worse: IA3; not "
        "distinguishable: prompt tuning. On SciTLDR, better: all methods but prompt tuning; not distinguishable: "
        "prompt tuning. The largest change is +0.600 [+0.500, +0.700], n = 200 (SciTLDR with IA3)."
    )


def test_a_change_that_is_not_distinguishable_is_never_called_better(study):
    for change in study.results["changes"]:
        change |= {"distinguishable": False}
    text = sentences.compared(study, MODEL, "zero-shot")
    assert "not distinguishable: all methods." in text and "better" not in text and "worse" not in text


def test_a_task_without_a_baseline_is_not_compared_with_it(study):
    assert "networkx" not in sentences.compared(study, MODEL, "classical")
    assert sentences.compared(study, "TinyLlama/TinyLlama-1.1B-Chat-v1.0", "zero-shot") == "Not run yet."


def test_the_tally_counts_every_model_task_and_method_once(study):
    text = sentences.tally(study)
    assert "40 of 56 are better than the zero-shot prompt, 8 worse and 8 not distinguishable" in text
    assert "0 of 48 are better than full fine-tuning, 32 worse and 16 not distinguishable." in text


def test_a_lower_perplexity_is_better(study):
    assert "held-out code worse in 20 and better in 4 of 28 cases" in sentences.forgetting(study)


def test_costs_and_seeds_are_the_extremes(study):
    assert "from 11,520 trainable parameters (TREC with prompt tuning) to 134,515,008" in sentences.cost(study)
    study.rows("summary", model=MODEL, task="code", method="ia3")[0]["range"]["pass@1"] = [0.1, 0.4]
    assert "on networkx (executed) with IA3 (0.100 to 0.400)" in sentences.seeds(study)


def test_energy_is_minutes_times_watts_and_called_an_estimate(study):
    assert sentences.energy(study) == (
        "The 60 runs took 4.0 hours. At an assumed 20 W for two cores and their memory, this is an estimated 0.08 kWh."
    )


def test_the_second_model_is_named(study):
    assert sentences.on_other_models(study).startswith(
        "Qwen2.5-Coder-0.5B-Instruct against its zero-shot prompt: On TREC,"
    )


@pytest.mark.parametrize("name", OF_STUDY)
def test_what_was_not_run_is_said_and_no_figure_given(name):
    text = getattr(sentences, name)(Study.of(None))
    assert ("yet" in text or "None" in text) and not any(character.isdigit() for character in text)


@pytest.mark.parametrize("name", ["executed", "published", "choices"])
def test_an_experiment_that_was_not_run_is_said(name):
    assert "not been" in getattr(sentences, name)(None)


def change(value, sure):
    return {"value": value, "interval": [value - 0.1, value + 0.1], "n": 71, "distinguishable": sure, "p_holm": 0.01}


def test_the_other_experiments_are_told_with_their_intervals():
    arms = {"rows": [], "changes": {"gold": {"pass@1": change(0.2, True)}, "teacher": {"pass@1": change(-0.2, True)}}}
    assert sentences.executed(arms) == (
        "The changes of pass@1 on 71 executed tasks are: gold +0.200 [+0.100, +0.300] (better); teacher −0.200 "
        "[−0.300, −0.100] (worse)."
    )
    runs = {"changes": {"Qwen": {"published_pass@1": change(0.2, True), "pass@1": change(0.0, False)}}}
    text = sentences.published(runs)
    assert "by form +0.200" in text and "by execution +0.000 [−0.100, +0.100] (n = 71, not distinguishable)" in text
