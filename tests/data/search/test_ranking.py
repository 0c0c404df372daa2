"""The rules of ranking: each by itself, and what they do together."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from data.search.bm25 import BM25
from data.search.ranking import (
    CHOSEN,
    NONE,
    Places,
    asks_for_aside,
    definers,
    names_in,
    offered_by_files,
    order,
    scaled,
    share_of,
    stands_aside,
    telling_words,
)


def unit(path: str, qualname: str | None = None, kind: str = "function") -> dict:
    return {"kind": kind, "code": "", "source": {"path": path, "qualname": qualname, "lines": [1, 2]}}


UNITS = [
    unit("lib/router.go", "Router.Route"),
    unit("lib/router.go", "Router.Match"),
    unit("lib/tree.go", "Node.route"),
    unit("lib/tests/router_test.go", "TestRoute"),
    unit("lib/logs.go", None, "file"),
]
ROWS = np.arange(5)


def ranked(query: str, cosines, bm25=None, k: int = 5, **weights) -> list[int]:
    words = np.zeros(5) if bm25 is None else np.array(bm25, float)
    rows, scores = order(query, Places(UNITS), ROWS, np.array(cosines, float), words, k, replace(NONE, **weights))
    assert np.all(np.diff(scores) <= 0) and len(rows) == len(set(rows.tolist()))
    return rows.tolist()


def test_what_a_query_says():
    assert telling_words("How does the Router match a path?") == "router match path"
    assert telling_words("what is it") == "what is it"
    assert names_in("Command") == ["Command"] and names_in("save") == ["save"] and names_in("nil?") == ["nil?"]
    assert names_in("how a Router matches") == []
    asked = "how from_bytes and parseHeader call http.Client, std::sort, Array#each, _x"
    assert names_in(asked) == ["from_bytes", "parseHeader", "Client", "sort", "each"]
    assert asks_for_aside("tests of the router") and not asks_for_aside("the latest router")


@pytest.mark.parametrize(
    ("path", "aside"),
    [
        ("src/router.py", False), ("src/latest.py", False), ("contest/a.c", False), ("a/attest.go", False),
        ("tests/a.py", True), ("pkg/Examples/a.go", True), ("a_test.go", True), ("test_a.py", True),
        ("a.spec.ts", True), ("src/ParserTest.java", True), ("benchmarks/x.rs", True), ("bench-tree.js", True),
    ],
)  # fmt: skip
def test_what_stands_aside(path, aside):
    assert stands_aside(path) is aside


def test_the_parts_of_a_score():
    assert scaled(np.array([2.0, 4.0, 3.0]), 2.0).tolist() == [0, 1, 0.5]
    assert scaled(np.zeros(2), 0.0).tolist() == [0, 0]
    assert share_of(frozenset("ab"), frozenset("bcde")) == 0.25 and share_of(frozenset("a"), frozenset()) == 0
    # halved one after the other: file 0 has 0.6 + 0.2, file 1 has 0.7
    assert offered_by_files(np.array([0, 1, 0]), np.array([0.6, 0.7, 0.4])) == pytest.approx([1, 0.875, 1])
    places = Places(UNITS)
    assert definers("Route", places) == {0: 1.0, 2: 0.5}
    assert definers("how Router.route works", places) == {0: 0.5, 2: 1.0}


def test_without_rules_it_is_cosine_and_words():
    assert ranked("x", [0.1, 0.5, 0.3, 0.2, 0.4]) == [1, 4, 2, 3, 0]
    # words 0.7 of the cosine: (0 + .7), (1 + 0), (.5 + .35) over 1.7
    assert ranked("x", [0, 1, 0.5, 0, 0], [4, 0, 2, 0, 0])[:3] == [1, 2, 0]


@pytest.mark.parametrize(
    ("rule", "query", "cosines", "without", "with_it"),
    [
        ({"path": 0.5}, "logs of requests", [3, 2, 1, 0.5, 2.9], 0, 4),
        ({"file_name": 0.3}, "the tree of things that are kept", [3, 2, 2.5, 0.5, 1], 0, 2),
        ({"name": 0.5}, "match a thing", [3, 2, 1, 0.5, 1], 0, 1),
        ({"definition": 3.0}, "Match", [3, 2, 1, 0.5, 1], 0, 1),
        ({"aside": 0.3}, "route", [2.5, 2, 1, 3, 1], 3, 0),
        ({"file": 1.0}, "x", [2.9, 2.8, 3, 0.5, 1], 2, 0),
    ],
)
def test_each_rule_puts_another_unit_first(rule, query, cosines, without, with_it):
    assert ranked(query, cosines)[0] == without and ranked(query, cosines, **rule)[0] == with_it


def test_a_further_unit_of_a_file_counts_less():
    assert ranked("x", [3, 2.9, 2.8, 0, 1]) == [0, 1, 2, 4, 3]
    assert ranked("x", [3, 2.9, 2.8, 0, 1], again=0.8) == [0, 2, 1, 4, 3]


def test_tests_stay_first_for_who_asks_for_tests():
    assert ranked("tests of route", [2.5, 2, 1, 3, 1], aside=0.1)[0] == 3


def test_no_more_than_asked_for_and_equals_in_their_order():
    assert ranked("x", [3, 2, 1, 0, 0], k=2) == [0, 1]
    assert ranked("zzz", [0, 0, 0, 0, 0]) == [0, 1, 2, 3, 4]


def test_units_without_a_place_are_ranked_too():
    places = Places([{"id": "a", "code": "x"}, {"id": "b", "code": "y", "source": None}])
    rows, _ = order("x", places, np.arange(2), np.array([0.1, 0.9]), np.zeros(2), 2, CHOSEN)
    assert rows.tolist()[0] == 1


def test_the_words_that_every_question_has_do_not_count():
    bm25 = BM25(["how is it done", "parse the header"])
    assert bm25.scores(telling_words("how is the header parsed")).argmax() == 1
