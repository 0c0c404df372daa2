"""What a figure is judged by, graded like the model's answers; what is not possible says why."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from data.importing.places import open_place
from data.importing.text_import import import_text_rows
from eval.text import grade
from eval.text.baselines import MAJORITY, NEIGHBOUR, REGRESSION, baselines, changes_over
from eval.text.table import baseline_lines
from eval.text.tasks import read_text_tasks, read_training_tasks

TREC = Path(os.environ.get("TRITUNE_DATA", "/nowhere")) / "trec"
LABELS = ["fruit", "metal"]
TRAIN = [
    ("a red apple", "fruit"),
    ("an apple and a pear", "fruit"),
    ("iron and tin", "metal"),
    ("pear", "fruit"),
    ("tin", "metal"),
]
TEST = [("apple pie", "fruit"), ("tin", "metal"), ("a red tin", "metal"), ("hot iron", "metal")]


def rows(pairs):
    return [{"id": str(i), "text": text, "label": label, "labels": LABELS} for i, (text, label) in enumerate(pairs)]


def test_labels_are_predicted_by_the_majority_and_by_words():
    found, missing = baselines("classification", read_training_tasks(rows(TRAIN)), read_text_tasks(rows(TEST)))
    assert [*found] == [MAJORITY, REGRESSION, NEIGHBOUR] and missing == []
    assert found[MAJORITY]["metrics"]["accuracy"] == 1 / 4  # "fruit", the most frequent training label
    # "a red apple" is near "a red tin"
    assert found[NEIGHBOUR]["values"]["accuracy"] == {"0": 1, "1": 1, "2": 0, "3": 1}
    assert found[REGRESSION]["values"]["accuracy"]["1"] == 1 and found[REGRESSION]["intervals"].keys() >= {"accuracy"}


def test_without_training_rows_there_is_only_the_majority_and_a_line_that_says_so():
    found, missing = baselines("classification", [], read_text_tasks(rows(TEST)))
    assert [*found] == [MAJORITY] and found[MAJORITY]["metrics"]["accuracy"] == 3 / 4
    assert missing == [f"{REGRESSION}, {NEIGHBOUR}: there are no training rows to learn from"]


def test_without_scikit_learn_a_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    found, (line,) = baselines("classification", read_training_tasks(rows(TRAIN)), read_text_tasks(rows(TEST)))
    assert [*found] == [MAJORITY] and line.endswith("pip install scikit-learn") and REGRESSION in line


def test_training_rows_of_other_tasks_are_not_learnt_from():
    other = [{"instruction": "Add.", "output": "1 + 1"}, *rows(TRAIN)]
    tasks = read_text_tasks(rows(TEST))
    assert baselines("classification", read_training_tasks(other), tasks) == baselines(
        "classification", read_training_tasks(rows(TRAIN)), tasks
    )


def test_questions_and_summaries_have_baselines_of_their_own():
    asked = [
        {"id": "a", "question": "Where does the river end?", "context": "It is long. The river ends here. So.",
         "answer": "The river ends here."},
    ]  # fmt: skip
    found, _ = baselines("qa", [], read_text_tasks(asked))
    assert found["closest sentence"]["metrics"] == {"exact_match": 1, "token_f1": 1}
    verdicts = [{"id": str(i), "question": "?", "answer": one, "labels": ["yes", "no"]} for i, one in enumerate("yyn")]
    verdicts = [row | {"answer": {"y": "yes", "n": "no"}[row["answer"]]} for row in verdicts]
    found, _ = baselines("qa", [], read_text_tasks(verdicts))
    assert found[MAJORITY]["metrics"]["accuracy"] == pytest.approx(2 / 3)
    document = "One one. Two two! Three three? Four four."
    summaries = [{"id": "s", "document": document, "summary": "One one. Two two! Three three?"}]
    found, _ = baselines("summarization", [], read_text_tasks(summaries))
    assert found["lead-3"]["metrics"]["rouge1"] == 1 and found["lead-1"]["metrics"]["rouge1"] == pytest.approx(0.5)


@pytest.mark.skipif(not TREC.is_dir(), reason="TRITUNE_DATA names no folder with trec/")
def test_the_figures_of_the_documentation_on_trec():
    """docs/evaluation.md: what a language model has to beat, with all training rows."""
    splits = import_text_rows(open_place(str(TREC))).splits.rows
    found, _ = baselines("classification", read_training_tasks(splits["train"]), read_text_tasks(splits["test"]))
    assert round(found[REGRESSION]["metrics"]["accuracy"], 2) == 0.88
    assert round(found[MAJORITY]["metrics"]["accuracy"], 2) == 0.19


def test_a_result_is_compared_with_a_baseline_task_by_task():
    tasks = read_text_tasks(rows([(f"text {i}", LABELS[i % 2]) for i in range(40)]))
    right = {task["id"]: task["references"][0] for task in tasks}
    scores = {task["id"]: {label: float(label == "fruit") for label in LABELS} for task in tasks}
    result = grade("classification", tasks, right, scores={"likelihood_": scores})
    found, _ = baselines("classification", [], tasks)
    changes = changes_over(found[MAJORITY], result)
    assert changes["accuracy"]["value"] == 0.5 and changes["accuracy"]["distinguishable"]
    assert changes["likelihood_accuracy"]["value"] == 0 and changes["accuracy"]["p"] == pytest.approx(2 / 2**20)
    first, second = baseline_lines(result, found)
    assert first.startswith(MAJORITY) and "0.500  accuracy +0.500 [+0.3" in first and first.endswith("better")
    assert "likelihood_accuracy" in second and second.endswith("not distinguishable")
