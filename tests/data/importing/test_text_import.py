"""A public set as rows: its splits, no text in two of them, everything left out counted, and a card."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

import pytest

from common.console import UserError
from common.files import read_json, read_jsonl, write_jsonl
from data.importing.places import open_place
from data.importing.text_import import import_text_rows
from data.importing.text_splits import split_text_rows
from data.text_rows import PROMPTS
from tests.commands import run

SETS = Path(os.environ.get("TRITUNE_DATA", "/nowhere"))
QUESTIONS = [f"{label}:x What is number {i} of {label} ?" for i in range(20) for label in ("HUM", "LOC")]


def classified(*texts, label="a"):
    return [{"id": f"{label}{i}", "text": text, "label": label} for i, text in enumerate(texts)]


def ids(splits):
    return {split: [row["id"] for row in rows] for split, rows in splits.rows.items()}


def test_published_splits_stay_and_missing_ones_are_drawn_by_the_seed():
    rows = {"train": classified(*map(str, range(50))), "test": classified("x", "y", label="t")}
    splits = [split_text_rows(rows, test_share=0.2, validation_share=0.1, seed=seed) for seed in (0, 0, 1)]
    sizes = {split: len(of_split) for split, of_split in splits[0].rows.items()}
    assert sizes == {"train": 45, "validation": 5, "test": 2}
    assert splits[0].drawn == ["validation"] and ids(splits[0]) == ids(splits[1]) != ids(splits[2])
    assert len({row["id"] for of_split in splits[0].rows.values() for row in of_split}) == 52
    all_drawn = split_text_rows({"train": rows["train"]}, test_share=0.2, validation_share=0.1, seed=0)
    assert {split: len(of_split) for split, of_split in all_drawn.rows.items()} == {
        "train": 35, "validation": 5, "test": 10,
    }  # fmt: skip
    assert split_text_rows(rows, test_share=0, validation_share=0, seed=0).drawn == []


def test_a_text_in_two_splits_stays_in_the_one_that_is_tested_on():
    rows = {
        "train": classified("Who?", "where ", "when", "how", "how"),
        "validation": classified("WHERE", "why", label="v"),
        "test": classified("who?", "Why", "what", "what", label="t"),
    }
    splits = split_text_rows(rows, test_share=0.1, validation_share=0.1, seed=0)
    assert ids(splits) == {"train": ["a2", "a3", "a4"], "validation": ["v0"], "test": ["t0", "t1", "t2", "t3"]}
    assert splits.duplicates == {
        "validation and test": 1,
        "train and test": 1,
        "train and validation": 1,
    }  # within a split a repetition is the set's own


def test_questions_about_one_context_are_not_divided():
    rows = [
        {"id": f"{c}/{q}", "question": f"q{q}?", "context": f"context {c}", "answer": "x"}
        for c in range(12) for q in range(4)
    ]  # fmt: skip
    splits = split_text_rows({"train": rows}, test_share=0.25, validation_share=0.25, seed=0)
    contexts = {split: {row["context"] for row in of_split} for split, of_split in splits.rows.items()}
    assert [len(contexts[split]) for split in ("train", "validation", "test")] == [6, 3, 3]
    assert not contexts["train"] & contexts["test"] and not contexts["validation"] & contexts["test"]
    assert splits.duplicates == {}  # other questions about a context are no duplicates
    asked = {"train": rows[:2], "test": [rows[0] | {"id": "t"}]}
    assert ids(split_text_rows(asked, test_share=0.1, validation_share=0, seed=0))["train"] == ["0/1"]


@pytest.fixture
def trec(tmp_path):
    folder = tmp_path / "trec"
    folder.mkdir()
    (folder / "train_5500.label").write_text("\n".join(QUESTIONS) + "\n")
    (folder / "TREC_10.label").write_text("HUM:ind Who swam\xf0here ?\n" + QUESTIONS[0] + "\n", encoding="latin-1")
    return folder


def test_the_command_writes_rows_a_card_and_what_became_of_the_rest(trec, tmp_path):
    done = run("-m", "data.importing", trec, "--out", tmp_path / "out", "--license", "MIT", "--train-rows", 30)
    assert done.returncode == 0, done.stderr
    rows = {split: read_jsonl(tmp_path / "out" / f"{split}.jsonl") for split in ("train", "validation", "test")}
    assert {split: len(of_split) for split, of_split in rows.items()} == {"train": 30, "validation": 4, "test": 2}
    first = rows["test"][0]
    assert first.pop("source") == {"path": str(trec), "commit": None, "license": "MIT"}
    assert first == {
        "id": "test/1", "text": "Who swam\xf0here ?", "label": "human", "fine": "HUM:ind",
        "labels": ["abbreviation", "entity", "description", "human", "location", "number"],
    }  # fmt: skip
    about = read_json(tmp_path / "out" / "about.json")
    assert about["set"] == "trec" and about["task"] == "classification" and about["drawn"] == ["validation"]
    assert about["left_out"] == {"train": 5} and about["duplicates"] == {"train and test": 1}
    for line in (
        "trec · classification · 6 labels", "left out         5 rows of train", "removed          1 duplicates in",
        "note       TREC_10.label: not UTF-8, read as Latin-1", "drawn from the training rows", "human 2",
    ):  # fmt: skip
        assert line in done.stdout
    card = (tmp_path / "out" / "data_card.md").read_text()
    assert PROMPTS["classification"] in card and "| human |" in card and "- text-classification" in card
    assert "duplicates removed in train and test | 1" in card and "- mit" in card
    assert "read as Latin-1" in card and "HUM" not in card.partition("## Examples")[0]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "train.jsonl", "validation.jsonl", "test.jsonl", "rejects.jsonl", "about.json", "data_card.md",
        "data_card.html", "croissant.json",
    }  # fmt: skip


def test_the_command_names_what_it_cannot_import_and_writes_nothing(trec, tmp_path):
    (tmp_path / "x.jsonl").write_text('{"headline": "a"}\n')
    (tmp_path / "one.jsonl").write_text('{"text": "a", "label": "b"}\n' * 3)
    (tmp_path / "two.jsonl").write_text('{"text": "a", "label": "b"}\n{"document": "a", "summary": "b"}\n')
    (tmp_path / "secret.jsonl").write_text('{"sentence": "a", "label": -1}\n')
    (tmp_path / "empty.csv").write_text("")
    for place, more, says in (
        ("x.jsonl", (), "no known data set (found headline). Known are trec: lines such as"),
        ("trec", ("--as", "squad"), 'not squad: expected "id", "context", "question"'),
        ("trec", ("--as", "imdb"), "must be one of trec, ag_news, sst2"),
        ("one.jsonl", (), "only the label 'b' occurs"),
        ("two.jsonl", (), "no set of rows to import (rows of several tasks)"),
        ("secret.jsonl", (), "no set of rows to import (no label: the set keeps it secret)"),
        ("empty.csv", (), "no record in it"),
    ):
        done = run("-m", "data.importing", tmp_path / place, "--out", tmp_path / "out", *more)
        assert done.returncode == 2 and says in done.stderr and done.stderr.count("\n") == 1, done.stderr
    assert not (tmp_path / "out").exists()


def test_ids_that_splits_number_alike_get_the_splits_name(tmp_path):
    for split in ("train", "test"):
        rows = [{"id": i, "text": f"{split} {i}", "label": "ab"[i % 2]} for i in range(4)]
        write_jsonl(tmp_path / "set" / f"{split}.jsonl", rows)
    found = import_text_rows(open_place(str(tmp_path / "set")), shares=(0, 0))
    assert ids(found.splits)["test"] == ["test/0", "test/1", "test/2", "test/3"] and found.labels == ["a", "b"]
    write_jsonl(tmp_path / "set" / "test.jsonl", rows[:1] * 2)
    with pytest.raises(UserError, match="1 ids are used twice, such as 'test/0'"):
        import_text_rows(open_place(str(tmp_path / "set")))


def test_pubmedqas_list_of_test_ids_is_the_test_split(tmp_path):
    rows = {
        str(i): {"QUESTION": f"q{i}", "CONTEXTS": [f"c{i}"], "final_decision": ("yes", "no")[i % 2]} for i in range(20)
    }
    (tmp_path / "ori_pqal.json").write_text(json.dumps(rows))
    truth = tmp_path / "test_ground_truth.json"
    truth.write_text(json.dumps({"3": "no", "4": "yes"}))
    for place in (tmp_path, tmp_path / "ori_pqal.json"):
        splits = import_text_rows(open_place(str(place))).splits
        assert ids(splits)["test"] == ["3", "4"] and splits.drawn == ["validation"]
    truth.write_text(json.dumps({"3": "no", "99": "yes"}))
    with pytest.raises(UserError, match=r"test_ground_truth.json: 1 of its ids are not in the data, such as 99"):
        import_text_rows(open_place(str(tmp_path)))


@pytest.mark.skipif(not (SETS / "trec").is_dir(), reason="TRITUNE_DATA names no folder with trec/")
@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("trec", {"train": 5452, "test": 500}),
        ("pubmedqa", {"train": 500, "test": 500}),
        ("scitldr", {"train": 1992, "validation": 619}),
    ],
)
def test_the_published_sets_are_read_in_full(name, counts):
    splits = import_text_rows(open_place(str(SETS / name)), shares=(0, 0)).splits
    removed = Counter({pair.split(" ")[0]: count for pair, count in splits.duplicates.items()})
    assert {split: len(rows) + removed[split] for split, rows in splits.rows.items() if rows} == counts
    if name == "pubmedqa":
        assert Counter(row["answer"] for row in splits.rows["test"]) == {"yes": 276, "no": 169, "maybe": 55}
