import json
import os
from pathlib import Path

import numpy as np
import pytest

from common.console import UserError
from data.search.bm25 import BM25
from eval.retrieval.codes import in_form
from eval.retrieval.files import own_candidates, read_retrieval, relevance
from eval.retrieval.metrics import METRICS, ranks_of

COSQA = Path(os.environ.get("TRITUNE_DATA", "/nowhere")) / "cosqa" / "cosqa-retrieval-dev-500.json"


def lines(path, *rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def pair(i, **other):
    return {"id": i, "query": f"query {i}", "code": f"def f{i}(): pass"} | other


def test_without_candidates_the_distinct_codes_compete():
    pairs = [
        {"id": "1", "query": "a", "code": "one", "source": {"path": "x"}},
        {"id": "2", "query": "b", "code": "two", "code_id": "ignored"},
        {"id": "3", "query": "c", "code": "one"},
    ]
    queries, candidates = own_candidates(pairs)
    assert candidates == [
        {"id": "1", "code": "one", "source": {"path": "x"}},
        {"id": "2", "code": "two", "source": None},
    ]
    assert [query["code_id"] for query in queries] == ["1", "2", "1"]


def test_a_query_may_have_one_code_several_or_grades():
    candidates = [{"id": i, "code": "x"} for i in "abc"]
    queries = [pair(i, code_id=wanted) for i, wanted in enumerate(["b", ["a", "c"], {"c": 3, "b": 0, "a": 1}], 1)]
    found = [(columns.tolist(), grades.tolist()) for columns, grades in relevance(queries, candidates)]
    assert found == [([1], [1]), ([0, 2], [1, 1]), ([2, 0], [3, 1])]


def test_a_folder_of_pairs_brings_its_candidates(tmp_path):
    lines(tmp_path / "test.jsonl", pair("q", code_id="b"))
    lines(tmp_path / "candidates.jsonl", {"id": "a", "code": "x"}, {"id": "b", "code": "y"})
    queries, candidates = read_retrieval(tmp_path)
    assert [row["id"] for row in queries] == ["q"] and [row["id"] for row in candidates] == ["a", "b"]


def test_codesearchnets_rows_ask_by_their_docstring(tmp_path):
    row = {
        "docstring_tokens": ["Walk", "a", "tree", "."],
        "code": "def walk(t): ...",
        "path": "a.py",
        "func_name": "walk",
    }
    queries, candidates = read_retrieval(lines(tmp_path / "test.jsonl", row, row | {"code": "def other(): ..."}))
    assert [(row["query"], row["code_id"]) for row in queries] == [("Walk a tree .", "1"), ("Walk a tree .", "2")]
    assert candidates[0] == {"id": "1", "code": "def walk(t): ...", "source": {"path": "a.py", "qualname": "walk"}}


def beir(folder, *judgements):
    lines(
        folder / "corpus.jsonl",
        {"_id": "c1", "title": "Title", "text": "one"},
        {"_id": "c2", "title": "", "text": "two"},
    )
    lines(
        folder / "queries.jsonl",
        {"_id": "q1", "text": "first"},
        {"_id": "q2", "text": "second"},
        {"_id": 3, "text": "x"},
    )
    lines(folder / "qrels" / "test.tsv", "query-id\tcorpus-id\tscore", *judgements)
    return folder


def test_beirs_and_coirs_folders_bring_grades_and_leave_out_queries_that_nobody_judged(tmp_path):
    folder = beir(tmp_path, "q1\tc1\t2", "q1\tc2\t1", "3\tc2\t1", "q2\tc1\t0")
    queries, candidates = read_retrieval(folder)
    assert [(row["id"], row["code_id"]) for row in queries] == [("q1", {"c1": 2, "c2": 1}), ("3", {"c2": 1})]
    assert [row["code"] for row in candidates] == ["Title one", "two"]
    (folder / "qrels" / "test.tsv").rename(folder / "qrels" / "dev.tsv")
    assert read_retrieval(folder / "qrels" / "dev.tsv") == (queries, candidates)


def cosqa(folder, rows, codes):
    (folder / "dev.json").write_text(json.dumps(rows))
    (folder / "code_idx_map.txt").write_text(json.dumps(codes))
    return folder / "dev.json"


def test_cosqas_queries_find_the_codes_beside_them(tmp_path):
    data = cosqa(
        tmp_path, [{"idx": "q", "doc": "walk a tree", "retrieval_idx": 7}], {"def f(): pass": 3, "def g(): pass": 7}
    )
    queries, candidates = read_retrieval(data)
    assert queries == [{"id": "q", "query": "walk a tree", "code_id": 7}]
    assert candidates == [{"id": 3, "code": "def f(): pass"}, {"id": 7, "code": "def g(): pass"}]


@pytest.mark.skipif(not COSQA.is_file(), reason="TRITUNE_DATA names no folder with cosqa/")
@pytest.mark.parametrize(("form", "known"), [("as-is", 0.373), ("no-docstrings", 0.237)])
def test_bm25_on_cosqa_is_what_is_known_of_it(form, known):
    queries, candidates = read_retrieval(COSQA)
    assert (len(queries), len(candidates)) == (500, 6266)
    bm25 = BM25([row["code"] for row in in_form(candidates, form)[0]])
    found = [
        ranks_of(bm25.scores(query["query"]), *wanted)
        for query, wanted in zip(queries, relevance(queries, candidates), strict=True)
    ]
    assert np.mean([METRICS["ndcg@10"](*one) for one in found]) == pytest.approx(known, abs=0.01)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (pair("b", query=5), '"query" is missing, empty or not text'),
        (pair("b", code=["x"]), '"code" is missing, empty or not text'),
        (pair("b", code=" "), '"code" is missing, empty or not text'),
        (pair({"x": 1}), '"id" is missing or not text'),
        (pair("a"), "the id 'a' is used twice"),
        (pair("b", source="a.py"), '"source" is not an object'),
        ({"docstring_tokens": "x", "code": "x"}, '"query" is missing'),
    ],
)
def test_a_bad_pair_is_named(tmp_path, row, reason):
    data = lines(tmp_path / "pairs.jsonl", pair("a"), row)
    with pytest.raises(UserError) as error:
        read_retrieval(data)
    assert str(error.value).startswith(f"{data}:2: ") and reason in str(error.value)


@pytest.mark.parametrize("wanted", [None, [], ["b", []], {"b": "1"}, {"b": 0}, {"b": True}, 1.5, True])
def test_a_code_id_that_names_no_code_is_told(tmp_path, wanted):
    data = lines(tmp_path / "pairs.jsonl", pair("a", code_id=wanted))
    codes = lines(tmp_path / "codes.jsonl", {"id": "b", "code": "x"})
    with pytest.raises(UserError, match=r'pairs.jsonl:1: "code_id" names no code'):
        read_retrieval(data, codes)


@pytest.mark.parametrize(
    ("rows", "code", "reason"),
    [
        ([pair("a", code_id="gone")], {"id": "b", "code": "x"}, "pairs.jsonl:1: its code 'gone' is not among the"),
        ([pair("a", code_id="b")], {"id": "b", "code": {}}, 'codes.jsonl:1: "code" is missing, empty or not text'),
        ([pair("a", code_id="b")], {"id": None, "code": "x"}, 'codes.jsonl:1: "id" is missing or not text'),
        ([], {"id": "b", "code": "x"}, "nothing to evaluate"),
    ],
)
def test_queries_and_candidates_that_do_not_fit_are_told(tmp_path, rows, code, reason):
    data, codes = lines(tmp_path / "pairs.jsonl", *rows), lines(tmp_path / "codes.jsonl", code)
    with pytest.raises(UserError, match=reason):
        read_retrieval(data, codes)


@pytest.mark.parametrize(
    ("judgement", "reason"),
    [("q1\tc1", "by tabs"), ("q1\tc1\tmuch", "by tabs"), ("q1\tc9\t1", "'c9' is not in corpus.jsonl")],
)
def test_a_bad_judgement_is_named(tmp_path, judgement, reason):
    folder = beir(tmp_path, "q1\tc1\t1", judgement)
    with pytest.raises(UserError, match=f"test.tsv:3: .*{reason}"):
        read_retrieval(folder)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"_id": ["c"], "text": "x"}, '"_id"'),
        ({"_id": "c", "text": None}, '"text" is missing'),
        ({"_id": "c", "title": 1, "text": "x"}, '"title"'),
    ],
)
def test_a_bad_row_of_a_corpus_is_named(tmp_path, row, reason):
    folder = beir(tmp_path, "q1\tc1\t1")
    lines(folder / "corpus.jsonl", {"_id": "c1", "text": "one"}, row)
    with pytest.raises(UserError, match=f"corpus.jsonl:2: .*{reason}"):
        read_retrieval(folder)
    lines(folder / "corpus.jsonl", {"_id": "c1", "text": "one"}, {"_id": "c1", "text": "two"})
    with pytest.raises(UserError, match=r"corpus.jsonl:2: the id 'c1' is used twice"):
        read_retrieval(folder)


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ({"doc": "x"}, 'row 1: "retrieval_idx" is missing'),
        ([{"idx": "q", "doc": ["x"], "retrieval_idx": 3}], 'row 1: "doc" is missing'),
        ([{"idx": "q", "doc": "x", "retrieval_idx": "3"}], "row 1: its code '3' is not among the candidates"),
        ([{"idx": "q", "doc": "x", "retrieval_idx": []}], 'row 1: "retrieval_idx" is missing or not an id'),
    ],
)
def test_a_bad_row_of_cosqa_is_named(tmp_path, rows, reason):
    data = cosqa(tmp_path, rows, {"def f(): pass": 3})
    with pytest.raises(UserError, match=f"dev.json: .*{reason}"):
        read_retrieval(data)


def test_a_folder_that_is_none_of_these_is_told(tmp_path):
    with pytest.raises(UserError, match=r"corpus.jsonl: no such file"):
        read_retrieval(tmp_path)
