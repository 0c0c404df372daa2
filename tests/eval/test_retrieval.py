import json
import math

import numpy as np
import pytest
import torch

from eval import retrieval
from eval.retrieval import (
    evaluate_retrieval,
    mrr_at_10,
    ndcg_at_10,
    own_candidates,
    rank,
    recall_at_10,
    worst_queries,
)
from model.console import UserError


class TableEncoder:
    """Vectors from a table of angles: texts of near angles are near."""

    def __init__(self, angles):
        self.angles = angles

    def encode(self, texts, kind):
        assert kind in ("query", "passage")
        angle = torch.tensor([self.angles[text] for text in texts])
        return torch.stack([angle.cos(), angle.sin()], dim=1)

    def describe(self):
        return {"model": "table", "weights_sha256": "0" * 64}


def codes(n):
    return [
        {"id": f"c{i}", "code": f"def f{i}(): pass", "source": {"path": "a.py", "qualname": f"f{i}"}} for i in range(n)
    ]


def test_metrics_of_a_worked_example():
    ranked = np.array([0, 1, 0, 2] + [0] * 7 + [1])  # the last relevant one is twelfth
    assert mrr_at_10(ranked) == 1 / 2
    ideal = 2 / math.log2(2) + 1 / math.log2(3) + 1 / math.log2(4)
    assert ndcg_at_10(ranked) == pytest.approx((1 / math.log2(3) + 2 / math.log2(5)) / ideal)
    assert recall_at_10(ranked) == 2 / 3


def test_a_rank_of_ten_counts_and_eleven_does_not():
    for place, counts in ((9, True), (10, False)):
        ranked = np.eye(20, dtype=int)[place]
        assert (mrr_at_10(ranked) > 0, ndcg_at_10(ranked) > 0, recall_at_10(ranked) > 0) == (counts,) * 3


def test_equal_scores_rank_the_relevant_code_last():
    grades = np.array([1, 0, 2, 0])
    assert grades[rank(np.ones(4), grades)].tolist() == [0, 0, 1, 2]
    assert rank(np.array([0.1, 0.9, 0.5, 0.5]), grades).tolist() == [1, 3, 2, 0]


def test_a_model_that_scores_everything_alike_gets_nothing():
    candidates = codes(30)
    queries = [{"id": f"q{i}", "query": f"query {i}", "code_id": f"c{i}"} for i in range(5)]
    same = dict.fromkeys([row["code"] for row in candidates] + [row["query"] for row in queries], 0.3)
    result = evaluate_retrieval(TableEncoder(same), queries, candidates)
    assert result["metrics"] == {"mrr@10": 0, "ndcg@10": 0, "recall@10": 0}
    assert [row["rank"] for row in result["results"]] == [30] * 5


def test_scores_that_differ_by_rounding_alone_are_ties():
    class Noisy(TableEncoder):
        def encode(self, texts, kind):
            vectors = torch.tensor([[1.0, 0.0]]).repeat(len(texts), 1)
            vectors[0, 0] += 2e-7 * (kind == "passage")  # as another place in a batch may do to equal texts
            return vectors

    queries = [{"id": "q", "query": "x", "code_id": "c0"}]
    assert evaluate_retrieval(Noisy({}), queries, codes(30))["results"][0]["rank"] == 30


def test_the_result_says_rank_status_and_what_was_found():
    candidates = codes(20)
    angles = {row["code"]: i / 10 for i, row in enumerate(candidates)}
    queries = [
        {"id": "near", "query": "first", "code_id": "c0"},
        {"id": "third", "query": "second", "code_id": ["c2", "c19"]},
        {"id": "far", "query": "third", "code_id": "c19"},
    ]
    angles |= {"first": 0.0, "second": 0.01, "third": 0.0}
    result = evaluate_retrieval(TableEncoder(angles), queries, candidates)
    assert [(row["id"], row["status"], row["rank"]) for row in result["results"]] == [
        ("near", "pass", 1),
        ("third", "pass", 3),
        ("far", "wrong", 20),
    ]
    assert result["results"][0]["top"] == [f"c{i}" for i in range(10)]
    assert result["values"]["mrr@10"] == {"near": 1.0, "third": 1 / 3, "far": 0.0}
    assert result["values"]["recall@10"]["third"] == 0.5
    assert result["metrics"]["mrr@10"] == pytest.approx(4 / 9) and result["n"] == 3
    low, high = result["intervals"]["mrr@10"]
    assert low == 0.0 and high == 1.0
    assert result["bm25"]["metrics"].keys() == result["metrics"].keys()
    assert result["environment"]["encoder_model"] == "table" and result["sandbox"] is None
    json.dumps(result, allow_nan=False)


def test_causes_are_told_by_program():
    def candidate(i, code, qualname):
        return {"id": i, "code": code, "source": {"path": "m.py", "qualname": qualname}}

    candidates = [
        candidate("a", "def walk(tree): return alpha(beta, gamma, delta, tree)", "A.walk"),
        candidate("b", "def walk(tree): return alpha(beta, gamma, delta, tree, 1)", "B.walk"),
        candidate("c", "def walk(x): return x", "C.walk"),
        candidate("d", "def other(y): yield y", "other"),
        {"id": "file", "code": "# m.py: walk, other", "source": {"path": "m.py", "qualname": None}},
        *codes(10),
    ]
    queries = [
        {"id": "copy", "query": "something else", "code_id": "a"},
        {"id": "name", "query": "walk quickly over it", "code_id": "a"},
        {"id": "blind", "query": "nothing shared", "code_id": "d"},
        {"id": "file", "query": "which file is it", "code_id": "file"},
        {"id": "first", "query": "other", "code_id": "d"},
    ]
    angles = {row["code"]: 1.0 + i / 10 for i, row in enumerate(candidates)}
    angles |= {
        "something else": 1.12,
        "walk quickly over it": 1.2,
        "nothing shared": 2.3,
        "other": 1.3,
        "which file is it": 1.2,
    }
    rows = worst_queries(evaluate_retrieval(TableEncoder(angles), queries, candidates), queries, candidates)
    causes = {row["id"]: row["cause"] for row in rows}
    assert "near-duplicate" in causes["copy"]
    assert "same name" in causes["name"]
    assert causes["blind"] == "the query shares no word with the code"
    assert "first" not in causes  # its code came first
    assert all(row.keys() == {"id", "category", "prompt", "answer", "cause", "check"} for row in rows)
    name = next(row for row in rows if row["id"] == "name")
    assert "found first: m.py C.walk" in name["answer"] and "wanted: m.py A.walk" in name["check"]


@pytest.mark.parametrize(
    ("queries", "candidates", "says"),
    [
        ([], codes(1), "nothing to evaluate"),
        ([{"id": "q", "query": "x", "code_id": "gone"}], codes(1), "'gone', which is not among the candidates"),
        ([{"id": "q", "query": "x"}], codes(1), "query 1: 'code_id' is missing"),
        ([{"id": "q", "query": "x", "code_id": "c0"}] * 2, codes(1), "query id 'q' is used twice"),
        ([{"id": "q", "query": "x", "code_id": "c0"}], codes(1) * 2, "candidate id 'c0' is used twice"),
    ],
)
def test_bad_rows_are_told(queries, candidates, says):
    with pytest.raises(UserError, match=says):
        evaluate_retrieval(TableEncoder({}), queries, candidates)


def test_a_model_that_diverged_is_told():
    queries = [{"id": "q", "query": "x", "code_id": "c0"}]
    with pytest.raises(UserError, match="not finite"):
        evaluate_retrieval(TableEncoder({"x": 0.0, codes(1)[0]["code"]: math.nan}), queries, codes(1))


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


def test_the_command_tells_bad_data_before_it_loads_a_model(tmp_path, monkeypatch):
    data = tmp_path / "pairs.jsonl"
    data.write_text('{"id": "1", "query": "", "code": "x"}\n')
    out = tmp_path / "out.json"
    monkeypatch.setattr("sys.argv", ["retrieval", "--model", "nowhere", "--data", str(data), "--out", str(out)])
    with pytest.raises(UserError, match="query 1: 'query' is missing or empty"):
        retrieval.main()
    assert not out.exists()
