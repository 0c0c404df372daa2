"""The command: a model or given answers, the task from the rows, baselines from the training rows."""

from __future__ import annotations

import sys

import pytest

from common.files import read_json, write_jsonl
from tests.commands import run

QUESTIONS = ["Who was Galileo?", "Where is Denver?", "Who sang?", "How far?"]
LABELS = ["person", "place", "person", "number"]
ROWS = [
    {"id": f"q{i}", "text": question, "label": label}
    for i, (question, label) in enumerate(zip(QUESTIONS, LABELS, strict=True))
]  # fmt: skip
PLAIN = [{"id": row["id"], "instruction": row["text"], "output": row["label"]} for row in ROWS]


@pytest.fixture
def files(tmp_path):
    write_jsonl(tmp_path / "train.jsonl", ROWS)
    write_jsonl(tmp_path / "data.jsonl", ROWS[:3])
    write_jsonl(tmp_path / "plain.jsonl", PLAIN)
    write_jsonl(tmp_path / "answers.jsonl", [{"id": row["id"], "output": row["label"]} for row in ROWS])
    return tmp_path


def evaluate(files, *arguments, data="data.jsonl"):
    done = run("-m", "eval.text", "--data", files / data, "--out", files / "f.json", *arguments)
    return done, read_json(files / "f.json") if done.returncode == 0 else {}


def test_a_model_is_asked_and_compared_with_baselines(files, tiny_folder):
    asked = ("--model", tiny_folder, "--max-new-tokens", 4, "--device", "cpu")
    done, result = evaluate(files, *asked, "--train", files / "train.jsonl")
    assert done.returncode == 0, done.stderr
    assert result["n"] == 3 and result["task"] == "classification" and result["shortened"] == 0
    assert result["metrics"].keys() >= {"accuracy", "likelihood_accuracy"}
    assert result["likelihood"]["confusion"]["rows"] == ["number", "person", "place"]  # of the training rows
    assert [*result["baselines"]] == ["majority class", "TF-IDF + logistic regression", "TF-IDF nearest neighbour"]
    compared = {"accuracy", "likelihood_accuracy", "per_token_accuracy"}
    assert {metric: change["n"] for metric, change in result["changes"]["majority class"].items()} == (
        dict.fromkeys(compared, 3)
    )
    for words in ("likelihood_macro_f1", "errors: ", "majority class ", "TF-IDF nearest neighbour "):
        assert words in done.stdout
    done, plain = evaluate(files, *asked, "--task", "classification", data="plain.jsonl")
    assert plain["n"] == 4 and "no baseline of TF-IDF + logistic regression" in done.stdout
    done, _ = evaluate(files, *asked, "--calibrate", "--max-length", 30)
    assert done.returncode == 2 and "data.jsonl:1: a prompt of" in done.stderr


def test_given_answers_are_graded(files):
    given = ("--answers", files / "answers.jsonl")
    done, result = evaluate(files, *given, "--task", "classification", data="plain.jsonl")
    assert result["metrics"] == {"accuracy": 1, "macro_f1": 1} and "accuracy" in done.stdout
    assert result["environment"].keys() >= {"torch", "tasks_sha256", "answers_sha256"}
    done, _ = evaluate(files, *given, data="plain.jsonl")
    assert done.returncode == 2 and "do not say what the task is (rows of another form); give --task" in done.stderr
    done, _ = evaluate(files, *given, "--task", "qa")
    assert "data.jsonl: --task qa, but these are rows of classification" in done.stderr
    done, _ = evaluate(files, *given)
    assert "1 answers belong to no task in the data, such as 'q3'" in done.stderr


def test_what_measures_summaries_is_missed_before_the_model_answers(files, tiny_folder, monkeypatch):
    write_jsonl(files / "data.jsonl", [{"id": "a", "document": "One. Two.", "summary": "One."}])
    monkeypatch.setitem(sys.modules, "sacrebleu", None)
    monkeypatch.setattr("eval.text.__main__.ask", None)
    done, _ = evaluate(files, "--model", tiny_folder, "--device", "cpu")
    assert done.returncode == 2 and "BLEU needs the extra package 'sacrebleu'" in done.stderr


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([{"id": "q0"}], "answers.jsonl:1: an answer needs"),
        ([{"id": "q0", "output": "person"}] * 2, "a task that has one already"),
    ],
)
def test_answers_that_cannot_be_read_are_named(files, rows, says):
    write_jsonl(files / "answers.jsonl", rows)
    done, _ = evaluate(files, "--answers", files / "answers.jsonl")
    assert done.returncode == 2 and says in done.stderr


def test_a_label_that_was_never_trained_is_refused(files):
    write_jsonl(files / "data.jsonl", [*ROWS[:1], {"id": "x", "text": "Why?", "label": "reason"}])
    given = ("--answers", files / "answers.jsonl", "--train", files / "train.jsonl")
    done, _ = evaluate(files, *given)
    assert "data.jsonl:2: the label 'reason' does not occur in training, only number, person, place" in done.stderr
    done, _ = evaluate(files, *given, "--calibrate")
    assert "--calibrate goes with --model" in done.stderr
