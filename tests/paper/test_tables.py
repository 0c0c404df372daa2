"""Every figure of a table stands where the results have it; what is missing is a dash, and an empty table says so."""

from __future__ import annotations

import re

import pytest

from paper import tables
from paper.latex import NOT_RUN
from paper.study import Study
from tests.paper.made_up import METHODS, made_up_study

MODEL = "smollm2-135m"


@pytest.fixture
def study():
    return Study.of(made_up_study())


def cells(table, first):
    """The cells of the first row that begins with a text."""
    (line, *_) = [line for line in table.splitlines() if line.startswith(f"{first} & ")]
    return [cell.strip() for cell in re.split(r"(?<!\\)&", line.removesuffix("\\\\"))]


def test_a_row_has_the_figures_of_its_method_and_task(study):
    row = study.rows("summary", model=MODEL, task="pubmedqa", method="lora-8")[0]
    row["metrics"]["accuracy"], row["intervals"]["accuracy"], row["minutes"] = 0.567, [0.5, 0.6], 33.0
    found = cells(tables.quality(study, MODEL), "LoRA (r = 8)")
    assert found[2] == r"0.567$^{+}$ {\scriptsize [0.500, 0.600]}"
    assert found[1].startswith("0.690$^{+}$") and found[5:] == ["2.4 M", "8.5--33.0", "1.3"]


def test_marks_follow_the_verdict(study):
    table = tables.quality(study, MODEL)
    assert "$^{-}$" in cells(table, "IA3")[1] and "^" not in cells(table, "prompt tuning (20 tokens)")[1]
    assert "^" not in cells(table, "TF-IDF + logistic regression")[1]


def test_what_a_method_was_not_run_on_is_a_dash(study):
    study.results["summary"] = [
        row for row in study.results["summary"] if (row["method"], row["task"]) != ("ia3", "scitldr")
    ]
    assert cells(tables.quality(study, MODEL), "IA3")[3] == "--"
    assert cells(tables.quality(study, MODEL), "majority class")[3:] == ["--"] * 5


def test_the_changes_stand_under_what_they_are_against(study):
    groups = tables.against(study, MODEL).split("\\midrule\n")[1:]
    assert [group.split(" &")[0] for group in groups] == [
        "the few-shot prompt",
        "the classical baseline",
        "full fine-tuning",
    ]
    assert [group.count("\\\\") for group in groups] == [7, 7, 6]
    assert cells(groups[1], "the classical baseline")[2:] == ["+0.090 [+0.050, +0.130]$^{+}$"] * 3 + ["--"]


def test_forgetting_names_before_and_marks_what_is_worse(study):
    table = tables.forgetting(study)
    assert cells(table, "code")[1:] == ["before training", *["5.600"] * 4]
    assert cells(table, "")[1:] == ["full fine-tuning", *["6.000$^{-}$"] * 4] and table.count("5.550$^{+}$") == 8


def test_learning_rates_at_the_edge_are_marked(study):
    assert cells(tables.rates(study), "full fine-tuning")[1:4] == [
        r"\texttt{-{}-method full}",
        "1e-4, 3e-4, 1e-3",
        "1e-3$^{*}$",
    ]
    assert cells(tables.rates(study), "LoRA (r = 8)")[3] == "3e-4"


def test_causes_are_of_the_prompt_the_best_and_the_worst(study):
    table = tables.causes(study)
    assert cells(table, "TREC") == [
        "TREC",
        "zero-shot",
        "47 of 200",
        "no label 30; entity taken for description 12; several labels 4",
    ]
    assert table.count("full fine-tuning") == table.count("IA3") == 4 and "LoRA" not in table


def test_the_example_is_one_that_the_methods_disagree_on(study):
    for answer in study.results["examples"]["trec"][0]["answers"]:
        answer["status"] = "pass"
    study.results["examples"]["trec"][1]["prompt"] = "a" * 90 + "omitted" * 50 + "z" * 130
    text = tables.examples(study)
    assert "a" * 90 + r" \dots{} " + "z" * 130 in text and "omitted" not in text
    assert "an answer\\_0 with 100 \\% (right)" in text and "an answer\\_7 with 100 \\% (wrong)" in text


def test_models_and_tasks_are_listed_with_their_sizes(study):
    assert cells(tables.models(study), "TinyLlama-1.1B-Chat")[2:] == ["--", "Apache-2.0", "recipe"]
    assert cells(tables.models(study), "SmolLM2-135M-Instruct")[2:] == ["135 M", "Apache-2.0", "yes"]
    assert cells(tables.tasks(study), "TREC")[3:5] == [r"5,452 / \textendash{} / 500", "1,000 / 100 / 200"]


@pytest.mark.parametrize("name", ["models", "tasks", "forgetting", "rates", "causes", "examples"])
def test_a_table_without_runs_says_so(name):
    assert getattr(tables, name)(Study.of(None)) == NOT_RUN


@pytest.mark.parametrize("name", ["quality", "further", "against"])
def test_a_table_of_a_model_without_runs_says_so(name):
    assert getattr(tables, name)(Study.of(None), "") == NOT_RUN


@pytest.mark.parametrize("name", ["executed", "published", "choices"])
def test_a_table_of_an_experiment_without_results_says_so(name):
    assert getattr(tables, name)(None) == NOT_RUN


def test_a_grid_that_has_just_begun_gives_what_it_has():
    """One prompted row, and not yet a method: every table and every dash, but no error."""
    results = made_up_study()
    results["summary"] = [
        row for row in results["summary"] if (row["model"], row["method"], row["task"]) == (MODEL, "zero-shot", "trec")
    ]
    for part in ("changes", "forgetting", "learning_rates", "curves", "causes"):
        results[part] = []
    results["examples"] = {}
    study = Study.of(results)
    assert cells(tables.quality(study, MODEL), "zero-shot")[1].startswith("0.310 ") and not set(METHODS) & set(
        tables.quality(study, MODEL)
    )
    assert tables.against(study, MODEL) == tables.forgetting(study) == tables.rates(study) == NOT_RUN


def of_verl(when, metrics):
    return {"model": "Qwen", "when": when, "metrics": metrics}


def test_the_other_experiments_stand_in_their_tables():
    change = {"value": 0.2, "interval": [0.1, 0.3], "n": 71, "distinguishable": True, "p_holm": 0.004}
    rows = [{"arm": arm, "seed": seed, "metrics": {"pass@1": value}} for arm, seed, value in
            (("base", None, 0.1), ("gold", 0, 0.2), ("gold", 1, 0.4))]  # fmt: skip
    table = tables.executed({"rows": rows, "changes": {"gold": {"pass@1": change}}})
    assert cells(table, "gold") == ["gold", "2", "0.300", "+0.200 [+0.100, +0.300]$^{+}$", "0.004"]

    runs = [
        of_verl("before", {"published_pass@1": 0.3, "pass@1": 0.1}),
        of_verl("after", {"published_pass@1": 0.5, "pass@1": 0.2}),
    ]
    theirs = {"before": {"published_pass@1": 0.565}, "after": {"published_pass@1": 0.804}}
    table = tables.published({"published": theirs, "rows": runs})
    assert cells(table, "pass@1, by form") == ["pass@1, by form", "0.565", "0.804", "0.300", "0.500"]
    assert cells(table, "pass@1, executed") == ["pass@1, executed", "--", "--", "0.100", "0.200"]


def test_an_empty_answer_and_the_cause_of_an_error_are_shown(study):
    study.results["examples"]["trec"][0]["answers"][0] |= {"answer": " ", "status": "extraction", "cause": "empty"}
    assert "zero-shot & \\textendash{} (empty)" in tables.examples(study)
