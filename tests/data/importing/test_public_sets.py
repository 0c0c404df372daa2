"""Each public data set is read as it is published. The records here are made up; only their form is the sets' own."""

from __future__ import annotations

import gzip
import json

import pyarrow
import pyarrow.parquet
import pytest

from common.console import UserError
from data.importing.public_sets import LeftOutError, recognise, text_row, unknown_set
from data.importing.records import read_records

TREC = ["abbreviation", "entity", "description", "human", "location", "number"]
AG_NEWS = ["World", "Sports", "Business", "Sci/Tech"]
VERDICTS = ["yes", "no", "maybe"]
SQUAD = {
    "version": "1.1",
    "data": [
        {
            "title": "Rivers",
            "paragraphs": [
                {
                    "context": "The Oder is long.",
                    "qas": [
                        {"id": "q1", "question": "What is long?", "answers": [
                            {"text": "The Oder", "answer_start": 0}, {"text": "Oder", "answer_start": 4},
                            {"text": "Oder", "answer_start": 4}]},
                        {"id": "q2", "question": "What is short?", "answers": [], "is_impossible": True},
                    ],
                }
            ],
        }
    ],
}  # fmt: skip
PUBMEDQA = {
    "7": {"QUESTION": "Does rest help?", "CONTEXTS": ["We rested.", "It helped."], "LABELS": ["A", "B"],
          "final_decision": "maybe", "LONG_ANSWER": "It may."},
}  # fmt: skip
ASKED = {"question": "Does rest help?", "context": "We rested.\nIt helped.", "answer": "maybe", "labels": VERDICTS}

FILES = {  # name -> (content, the set, the rows or the reasons why there is none)
    "train.label": (
        "DESC:manner How do trees drink ?\nHUM:ind Who swam\xf0here ?\nNUM:count How many ?\n".encode("latin-1"),
        "trec",
        [
            {"text": "How do trees drink ?", "label": "description", "labels": TREC, "fine": "DESC:manner"},
            {"text": "Who swam\xf0here ?", "label": "human", "labels": TREC, "fine": "HUM:ind"},
            {"text": "How many ?", "label": "number", "labels": TREC, "fine": "NUM:count"},
        ],
    ),
    "TREC.train.all": (
        b"\xef\xbb\xbf0 What is rain ?\r\n1 What color is it ?\r\n2 What is a WWW ?\n3 Who ?\n4 Where ?\n5 When ?\n",
        "trec",
        [
            {"text": text, "label": label, "labels": TREC}
            for text, label in [
                ("What is rain ?", "description"), ("What color is it ?", "entity"),
                ("What is a WWW ?", "abbreviation"), ("Who ?", "human"), ("Where ?", "location"), ("When ?", "number"),
            ]
        ],
    ),
    "trec.jsonl": (
        [{"text": "What is rain ?", "coarse_label": 2, "fine_label": 7}, {"text": "U ?", "coarse_label": "ABBR"}],
        "trec",
        [
            {"text": "What is rain ?", "label": "description", "labels": TREC},
            {"text": "U ?", "label": "abbreviation", "labels": TREC},
        ],
    ),
    "train.csv": (
        b'"3","Oil up","Prices ""rise""\\nagain\\today"\n"4","Moon","A probe, landed"\n',
        "ag_news",
        [
            {"text": 'Oil up Prices "rise" again today', "label": "Business", "labels": AG_NEWS},
            {"text": "Moon A probe, landed", "label": "Sci/Tech", "labels": AG_NEWS},
        ],
    ),
    "kaggle.csv": (
        b"Class Index,Title,Description\n1,Vote,Today\n",
        "ag_news",
        [{"text": "Vote Today", "label": "World", "labels": AG_NEWS}],
    ),
    "ag.jsonl": (
        [{"text": "Vote\\today", "label": "World"}],
        "ag_news",
        [{"text": "Vote today", "label": "World", "labels": AG_NEWS}],
    ),
    "sst.tsv": (
        b'sentence\tlabel\na "fine film \t1\ndull \t0\n',
        "sst2",
        [
            {"text": 'a "fine film', "label": "positive", "labels": ["negative", "positive"]},
            {"text": "dull", "label": "negative", "labels": ["negative", "positive"]},
        ],
    ),
    "sst-test.tsv": (b"index\tsentence\n0\tfine\n", "sst2", ["no label: the set keeps it secret"]),
    "sst.jsonl": (
        [{"idx": 0, "sentence": "fine ", "label": 1}, {"idx": 1, "sentence": "x", "label": -1}],
        "sst2",
        [
            {"text": "fine", "label": "positive", "labels": ["negative", "positive"]},
            "no label: the set keeps it secret",
        ],
    ),
    "train-v1.1.json": (
        SQUAD,
        "squad",
        [
            {"id": "q1", "question": "What is long?", "context": "The Oder is long.", "answer": "The Oder",
             "references": ["Oder"]},
            "no answer in the context (SQuAD 2.0)",
        ],
    ),
    "squad.jsonl": (
        [{"id": "q", "title": "t", "context": "c", "question": "?", "answers": {"text": ["a"], "answer_start": [0]}}],
        "squad",
        [{"id": "q", "question": "?", "context": "c", "answer": "a"}],
    ),
    "boolq.jsonl": (
        [{"question": "is it", "title": "t", "answer": True, "passage": "It is."},
         {"question": "is it not", "title": "t", "answer": False, "passage": "It is."}],
        "boolq",
        [
            {"question": "is it", "context": "It is.", "answer": "yes", "labels": ["yes", "no"]},
            {"question": "is it not", "context": "It is.", "answer": "no", "labels": ["yes", "no"]},
        ],
    ),
    "superglue.jsonl": (
        [{"question": "q", "passage": "p", "idx": 0, "label": 1}, {"question": "q", "passage": "p", "idx": 1}],
        "boolq",
        [
            {"question": "q", "context": "p", "answer": "yes", "labels": ["yes", "no"]},
            "no label: the set keeps it secret",
        ],
    ),
    "ori_pqal.json": (PUBMEDQA, "pubmedqa", [{"id": "7", **ASKED}]),
    "pubmedqa.jsonl": (
        [
            {"pubid": 7, "question": ASKED["question"], "context": {"contexts": ["We rested.", "It helped."]},
             "long_answer": "It may.", "final_decision": "maybe"},
            {"pubid": 8, "question": "x", "context": {"contexts": ["y"]}, "final_decision": None},
        ],
        "pubmedqa",
        [{"id": "7", **ASKED}, "no final_decision"],
    ),
    "scitldr.jsonl": (
        [
            {"source": ["We try.", "It works."], "source_labels": [0, 1], "paper_id": "B1", "title": "T",
             "target": ["It works.", "Trying works."]},
            {"source": ["One."], "paper_id": "", "target": [" "]},
        ],
        "scitldr",
        [
            {"id": "B1", "document": "We try. It works.", "summary": "It works.", "references": ["Trying works."]},
            "no answer",
        ],
    ),
    "cnn.jsonl": (
        [{"article": " A long article. ", "highlights": "One .\nTwo .", "id": "f0"}],
        "cnn_dailymail",
        [{"id": "f0", "document": "A long article.", "summary": "One .\nTwo ."}],
    ),
    "xsum.json": (
        [{"document": "A story.", "summary": "Told.", "id": "3"}],
        "rows",
        [{"document": "A story.", "summary": "Told.", "id": "3"}],
    ),
    "own.csv": (
        b"id,text,label\nx1,one,a\nx2, ,b\n", "rows", [{"id": "x1", "text": "one", "label": "a"}, "empty text"],
    ),
}  # fmt: skip


def written(folder, name, content):
    path = folder / name
    if isinstance(content, list):
        lines = json.dumps(content) if name.endswith(".json") else "".join(json.dumps(row) + "\n" for row in content)
        content = lines.encode()
    path.write_bytes(json.dumps(content).encode() if isinstance(content, dict) else content)
    return path


def rows_of(path, name=None):
    records, notes = read_records(path)
    public = recognise(records[0], name, str(path))
    rows = []
    for number, record in enumerate(records, 1):
        try:
            rows.append(text_row(public, record, f"{path.name}:{number}"))
        except LeftOutError as reason:
            rows.append(str(reason))
    return public.name, rows, notes


@pytest.mark.parametrize("name", FILES)
def test_a_set_is_recognised_and_read_as_published(tmp_path, name):
    content, public, expected = FILES[name]
    path = written(tmp_path, name, content)
    assert rows_of(path)[:2] == (public, expected)
    packed = tmp_path / f"{name}.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert rows_of(packed, public)[:2] == (public, expected)


def test_what_is_not_utf_8_is_read_as_latin_1_and_said(tmp_path):
    content, _, expected = FILES["train.label"]
    _, rows, notes = rows_of(written(tmp_path, "train.label", content))
    assert notes == ["train.label: not UTF-8, read as Latin-1"] and rows == expected
    utf_8 = content.decode("latin-1")
    for data in (utf_8.encode(), b"\xef\xbb\xbf" + utf_8.encode(), utf_8.encode("utf-16")):
        assert rows_of(written(tmp_path, "train.label", data)) == ("trec", expected, [])
    with pytest.raises(UserError, match=r"x\.jsonl:1: not UTF-8"):  # JSON is UTF-8 by its standard
        read_records(written(tmp_path, "x.jsonl", b'{"text": "\xf0"}\n'))


def test_classes_of_a_parquet_file_have_the_names_that_it_keeps(tmp_path):
    """As the `datasets` library writes them; a secret label stays -1."""
    features = {"label": {"names": ["bad", "good"], "_type": "ClassLabel"}, "text": {"dtype": "string"}}
    table = pyarrow.Table.from_pylist([{"text": "fine", "label": 1}, {"text": "dull", "label": 0}])
    table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pyarrow.parquet.write_table(table, tmp_path / "x.parquet")
    assert rows_of(tmp_path / "x.parquet")[:2] == (
        "rows",
        [{"text": "fine", "label": "good"}, {"text": "dull", "label": "bad"}],
    )
    bare = pyarrow.Table.from_pylist([{"text": "Vote", "label": 0}])
    pyarrow.parquet.write_table(bare, tmp_path / "y.parquet")
    assert rows_of(tmp_path / "y.parquet", "ag_news")[1] == [{"text": "Vote", "label": "World", "labels": AG_NEWS}]
    assert recognise({"text": "Vote", "label": 0}, None, "y") is None  # any set has such fields


@pytest.mark.parametrize(
    ("name", "content", "number", "says"),
    [
        ("t.label", b"HUM:ind Who ?\nGalileo\n", 2, "not trec: expected lines such as"),
        ("t.label", b"HUM:ind Who ?\nFUN:ny Why ?\n", 2, r"not trec: .*found 'FUN:ny Why \?'"),
        ("t.all", b"3 Who ?\n6 Why ?\n", 2, r"not trec: .*\(a digit from 0 to 5\)"),
        ("t.all", b"3 Who ?\n\n3 Who else ?\n", 2, "not trec"),
        ("a.csv", b"1,a,b\n5,a,b\n", 2, r"not ag_news: expected three columns: class \(1 to 4\)"),
        ("a.csv", b"1,a,b\n0,a,b\n", 2, "not ag_news"),
        ("a.csv", b"1,a,b\n2,a\n", 2, "not ag_news"),
        ("s.jsonl", [{"sentence": "a", "label": 1}, {"sentence": "b", "label": 2}], 2, "not sst2"),
        ("b.jsonl", [{"question": "a", "passage": "b", "answer": "maybe"}], 1, "not boolq"),
        ("p.json", {"1": {"QUESTION": "?", "CONTEXTS": ["c"], "final_decision": "perhaps"}}, 1, "not pubmedqa"),
        ("p.json", {"1": {"QUESTION": "?", "final_decision": "yes"}}, 1, "not pubmedqa"),
        ("c.jsonl", [{"source": "One.", "target": None}], 1, "not scitldr"),
    ],
)
def test_a_record_of_another_form_is_named_with_what_was_expected(tmp_path, name, content, number, says):
    with pytest.raises(UserError, match=rf"{name}:{number}: {says}"):
        rows_of(written(tmp_path, name, content))


def test_what_is_no_known_set_says_what_would_be(tmp_path):
    with pytest.raises(UserError, match=r"not sst2: expected \"sentence\" and \"label\" \(0 or 1\) \(found 'Hello'\)"):
        recognise({"line": "Hello"}, "sst2", "x")
    assert recognise({"line": "Hello"}, None, "x") is None
    assert recognise({"sentence": "a", "label": 1, "start": 3}, None, "x") is None  # another task of the same kind
    said = str(unknown_set({"headline": "a", "category": "b"}, "x"))
    assert "found headline, category" in said and all(name in said for name in ("trec", "squad", "scitldr", "rows"))


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.csv", b"text,label\none,a\ntwo\n", r"a\.csv: row 3 has 1 cells, the header 2 \(text, label\)"),
        ("a.csv", b'text,label\n"one,a\n', r"a\.csv: not readable as a table"),
        ("q.json", {"data": [{"paragraphs": [{"context": "c"}]}]}, r"q\.json: not SQuAD's form"),
        ("p.json", {"1": {"QUESTION": "?"}, "2": []}, r"p\.json: 2: expected an object with QUESTION"),
        ("r.json", b"{", r"r\.json:1: not JSON"),
        ("r.json", b'[{"a": 1}', r"r\.json: not readable as JSON"),
        ("r.json", b"[1]", r"r\.json: expected a list of objects"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, name, content, says):
    with pytest.raises(UserError, match=says):
        read_records(written(tmp_path, name, content))
