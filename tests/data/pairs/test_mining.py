from __future__ import annotations

import numpy as np

from data.hard_negatives import MARGIN
from data.pairs.mining import Dense, consistent, scorers, with_negatives


class Table:
    """Scores from a table."""

    def __init__(self, **table):
        self.table = {query.replace("_", " "): np.array(row, dtype=float) for query, row in table.items()}

    def scores(self, query):
        return self.table[query]


def pool(*codes, kind="function"):
    return [unit(f"c{i}", code, kind) for i, code in enumerate(codes)]


def unit(id, code, kind="function", qualname=None):
    return {"id": id, "kind": kind, "code": code, "source": {"qualname": qualname}}


def pair(query, code_id, kind="function"):
    return {"id": f"q/{code_id}", "kind": kind, "query": query, "code_id": code_id, "negatives": []}


CODES = pool(*(f"def f{i}(): return {i} + {'x' * (i + 1)}" for i in range(6)))


def test_a_pair_is_kept_when_its_code_is_among_the_best_for_its_query():
    scorer = Table(first=[3, 1, 2], second=[3, 2, 1], third=[3, 1, 2], tied=[2, 2, 2])
    pairs = [pair("first", "c0"), pair("second", "c1"), pair("third", "c1"), pair("tied", "c0")]
    kept, rejects = consistent(pairs, CODES[:3], scorer, top=2)
    assert [one["query"] for one in kept] == ["first", "second"]
    assert rejects[0] == {"id": "c1", "reason": "not in the top 2 for its query", "detail": "rank 3 for 'third'"}
    assert rejects[1]["detail"].startswith("rank 3")  # where all score alike none is found
    files = [one | {"kind": "file"} for one in CODES[1:3]]
    assert consistent([pair("q", "c0")], [CODES[0], *files], Table(q=[1, 2, 3]), top=1)[0]  # files do not compete


def test_no_negative_comes_near_the_own_code():
    scorer = Table(q=[1.0, 0.96, MARGIN, 0.94, 0.5, -0.2])
    (done,) = with_negatives([pair("q", "c0")], CODES, [scorer], count=9)
    assert done["negative_ids"] == ["c3", "c4"]
    assert done["negatives"] == [CODES[3]["code"], CODES[4]["code"]]


def test_a_function_of_the_same_name_is_no_negative():
    named = ["Graph.copy", "DiGraph.copy", "copy", "Graph.copy_all", None]
    units = [unit(f"c{i}", CODES[i]["code"], qualname=name) for i, name in enumerate(named)]
    (done,) = with_negatives([pair("q", "c0")], units, [Table(q=[1.0, 0.9, 0.8, 0.7, 0.6])], count=4)
    assert done["negative_ids"] == ["c3", "c4"]
    (done,) = with_negatives([pair("q", "c4")], units, [Table(q=[0.5, 0.4, 0.3, 0.2, 1.0])], count=4)
    assert done["negative_ids"] == ["c0", "c1", "c2", "c3"]


def test_scorers_put_forward_their_best_in_turn_and_the_first_judges():
    judge, other = Table(q=[1, 0.1, 0.2, 0.3, 0.99, 0.05]), Table(q=[0, 5, 0, 4, 9, 3])
    (done,) = with_negatives([pair("q", "c0")], CODES, [judge, other], count=4)
    assert done["negative_ids"] == ["c3", "c1", "c2", "c5"]  # c4 is best for the other, and too near for the judge
    (done,) = with_negatives([pair("q", "c0")], CODES, [judge, other], count=3)
    assert done["negative_ids"] == ["c3", "c1", "c2"]


def test_another_kind_and_a_twin_are_never_negatives():
    code = "def f(graph, source, target): return graph.shortest(source, target) + graph.length(source)"
    units = [*pool(code, code + "  # again", "def g(): pass"), unit("file", "def f, g", "file")]
    (done,) = with_negatives([pair("q", "c0")], units, [Table(q=[1.0, 0.5, 0.4, 0.6])], count=3)
    assert done["negative_ids"] == ["c2"]


class TwoSides:
    """Texts with "a" are orthogonal to those without."""

    def encode(self, texts, kind):
        assert kind in ("query", "passage")
        return np.array([[1.0, 0.0] if "a" in text else [0.0, 1.0] for text in texts])


def test_the_encoder_judges_where_there_is_one():
    dense, bm25 = scorers(["a b", "c d"], TwoSides())
    assert isinstance(dense, Dense) and dense.scores("xa").tolist() == [1.0, 0.0]
    assert bm25.scores("c")[1] > 0 and len(scorers(["a"])) == 1
