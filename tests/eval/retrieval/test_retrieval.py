import json
import math
import re

import pytest
import torch

from common.console import UserError
from common.files import write_jsonl
from eval.retrieval import __main__ as command
from eval.retrieval import evaluate_retrieval, worst_queries
from eval.retrieval.__main__ import main
from eval.retrieval.codes import in_form
from eval.retrieval.metrics import FILE_METRICS


class TableEncoder:
    """Vectors from a table of angles: texts of near angles are near."""

    def __init__(self, angles):
        self.angles = angles

    def encode(self, texts, kind):
        assert kind in ("query", "passage")
        angle = torch.tensor([self.angles[text] for text in texts])
        return torch.stack([angle.cos(), angle.sin()], dim=1)

    def identity(self):
        return {"model": "table", "weights_sha256": "0" * 64}


def codes(n):
    return [
        {"id": f"c{i}", "code": f"def f{i}(): pass", "source": {"path": "a.py", "qualname": f"f{i}"}} for i in range(n)
    ]


def test_a_model_that_scores_everything_alike_gets_nothing():
    candidates = codes(30)
    queries = [{"id": f"q{i}", "query": f"query {i}", "code_id": f"c{i}"} for i in range(5)]
    same = dict.fromkeys([row["code"] for row in candidates] + [row["query"] for row in queries], 0.3)
    result = evaluate_retrieval(TableEncoder(same), queries, candidates)
    assert result["metrics"].pop("map") == pytest.approx(1 / 30)
    of_files = {name: result["metrics"].pop(name) for name in FILE_METRICS}
    assert set(of_files.values()) == {1} and not any(result["metrics"].values())  # there is one file
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
    assert result["bm25"]["metrics"].keys() == result["metrics"].keys() >= {"ndcg@5", "recall@1", "map"}
    assert result["environment"]["encoder_model"] == "table" and result["sandbox"] is None
    json.dumps(result, allow_nan=False)


def test_grades_count_in_the_gain():
    candidates = codes(3)
    angles = {row["code"]: i / 10 for i, row in enumerate(candidates)} | {"x": 0.0}
    gains = [
        evaluate_retrieval(TableEncoder(angles), [{"id": "q", "query": "x", "code_id": wanted}], candidates)["metrics"]
        for wanted in ({"c0": 3, "c1": 1}, {"c0": 1, "c1": 3}, {"c1": 1, "c0": 0})
    ]
    assert gains[0]["ndcg@10"] == 1 > gains[1]["ndcg@10"] > gains[2]["ndcg@10"] == pytest.approx(1 / math.log2(3))


def ten_queries():
    """Codes whose words and places tell; the tuned encoder is always right, the base never."""
    numbers = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    candidates = [
        {"id": n, "code": f"def {n}(): return {n}", "source": {"path": f"{numbers[-i]}.py", "qualname": None}}
        for i, n in enumerate(numbers)
    ]
    queries = [
        {"id": f"q{i}", "query": f"find {n}", "code_id": n, "kind": "function", "origin": "call" if i < 4 else "name"}
        for i, n in enumerate(numbers)
    ]
    right = {row["code"]: i / 4 for i, row in enumerate(candidates)} | {
        f"find {n}": i / 4 for i, n in enumerate(numbers)
    }
    return queries, candidates, TableEncoder(right), TableEncoder(dict.fromkeys(right, 0.0))


def test_every_other_way_to_search_stands_beside_the_model():
    queries, candidates, tuned, base = ten_queries()
    result = evaluate_retrieval(tuned, queries, candidates, base=base)
    first = {system: result[system]["metrics"]["recall@1"] for system in result["changes"]}
    assert result["metrics"]["recall@1"] == 1
    # Paths hold the words of other codes but for two; where both are right, so are they together, but for
    # rules that go by the path; to the base all is one.
    assert first == {
        "bm25": 1,
        "path": 0.2,
        "random": pytest.approx(0.1, abs=0.2),
        "hybrid": 1,
        "search": 0.7,
        "base": 0,
    }
    change = result["changes"]["base"]["recall@1"]
    assert change["value"] == -1 and change["interval"][1] < 0 and change["p"] <= change["p_holm"] < 0.02
    assert result["changes"]["bm25"]["recall@1"]["value"] == 0
    assert evaluate_retrieval(tuned, queries, candidates, base=base) == result  # chance is seeded
    assert evaluate_retrieval(tuned, queries, candidates, seed=1)["random"]["values"] != result["random"]["values"]


def test_without_places_there_is_no_search_by_them():
    queries, candidates, tuned, _ = ten_queries()
    result = evaluate_retrieval(tuned, queries, [row | {"source": None} for row in candidates])
    assert (
        result["changes"].keys() == {"random", "bm25", "hybrid", "search"}
        and "path" not in result
        and "base" not in result
    )


def test_figures_by_kind_of_query():
    queries, candidates, tuned, base = ten_queries()
    result = evaluate_retrieval(tuned, queries, candidates, base=base)
    assert {kind: row["n"] for kind, row in result["by_category"].items()} == {"function": 6, "usage": 4}
    assert result["base"]["by_category"]["usage"]["metrics"]["recall@10"] == 1
    path = result["path"]
    mean = sum(path["values"]["mrr@10"][f"q{i}"] for i in range(4)) / 4
    assert path["by_category"]["usage"]["metrics"]["mrr@10"] == pytest.approx(mean) != path["metrics"]["mrr@10"]


def test_queries_that_stand_in_their_code_are_counted():
    candidates = [
        {"id": "a", "code": 'def f():\n    """Walk the tree.\n\n    More."""'},
        {"id": "b", "code": "def walk(): the"},
    ]
    queries = [
        {"id": str(i), "query": q, "code_id": c}
        for i, (q, c) in enumerate([("Walk the tree", "a"), ("walk the tree", "b"), ("alk the tree", "a")])
    ]
    same = dict.fromkeys([*(row["code"] for row in candidates), *(row["query"] for row in queries)], 0.0)
    assert evaluate_retrieval(TableEncoder(same), queries, candidates)["verbatim"] == 1


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


def test_a_model_that_diverged_is_told():
    queries = [{"id": "q", "query": "x", "code_id": "c0"}]
    with pytest.raises(UserError, match="non-finite"):
        evaluate_retrieval(TableEncoder({"x": 0.0, codes(1)[0]["code"]: math.nan}), queries, codes(1))


def test_the_command_tells_bad_data_before_it_loads_a_model(tmp_path, monkeypatch):
    data = tmp_path / "pairs.jsonl"
    data.write_text('{"id": "1", "query": "", "code": "x"}\n')
    out = tmp_path / "out.json"
    monkeypatch.setattr("sys.argv", ["retrieval", "--model", "nowhere", "--data", str(data), "--out", str(out)])
    with pytest.raises(UserError, match=r'pairs.jsonl:1: "query" is missing, empty'):
        main()
    assert not out.exists()


def test_the_command_measures_every_form_and_explains_the_worst(tmp_path, monkeypatch, capsys):
    queries, candidates, tuned, base = ten_queries()
    bare = [row["code"] for row in in_form(candidates, "renamed")[0]]
    tuned.angles |= dict.fromkeys(bare, 0.0)
    base.angles |= dict.fromkeys(bare, 0.0)
    write_jsonl(tmp_path / "test.jsonl", queries)
    write_jsonl(tmp_path / "candidates.jsonl", candidates)
    monkeypatch.setattr(command, "load_encoder", lambda name, **_: {"tuned": tuned, "base": base}[name])
    arguments = ["--model", "tuned", "--base", "base", "--code", "as-is", "renamed", "--out", tmp_path / "out.json"]
    monkeypatch.setattr("sys.argv", ["retrieval", "--data", str(tmp_path), *map(str, arguments)])
    main()
    result = json.loads((tmp_path / "out.json").read_text())
    assert result["form"] == "as-is" and result["changed"] == 0 and result["metrics"]["recall@1"] == 1
    assert result["forms"]["renamed"]["changed"] == 10 and result["forms"]["renamed"]["metrics"]["recall@1"] == 0
    assert not result["worst"] and len(result["forms"]["renamed"]["worst"]) == 10
    said = capsys.readouterr().out
    for words in ("10 queries against 10 candidates", "tuned + BM25", "path and name", "chance", "usage, n = 4"):
        assert words in said and words in (tmp_path / "out.md").read_text()
    assert re.search(r"its base +0.100 .* worse", said)
