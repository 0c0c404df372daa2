"""Queries of a teacher are held to the rules of all queries, and must find what they were written for."""

import numpy as np
import pytest

from data.instruct.completions import KEY_VARIABLES
from data.instruct.server_teacher import Limits, ServerTeacher
from data.pairs import build_text_code_pairs
from data.pairs.build import text_code_summary
from data.pairs.query_teacher import QUESTION, read_query, taught_queries
from data.search.units import function_unit, functions_in
from tests.data.instruct.test_server_teacher import completion, server, whole


@pytest.fixture(autouse=True)
def no_key(monkeypatch):
    for name in KEY_VARIABLES:
        monkeypatch.delenv(name, raising=False)


def answering(reply):
    """A server's behaviour: reply(what was asked, number of the request) as the answer."""
    count = iter(range(10_000))
    return lambda handler: whole(handler, 200, completion(reply(handler.asked["messages"][-1]["content"], next(count))))


def teacher(url, folder):
    return ServerTeacher(url, "m", cache=folder / "cache.sqlite", limits=Limits(tries=1), concurrency=1)


class Last:
    """Ranks the units in reverse: the last is found by whatever is asked."""

    def __init__(self, pool):
        self.pool = pool

    def scores(self, query):
        return np.arange(len(self.pool), dtype=float)


@pytest.fixture
def functions(small_corpus):
    train = small_corpus.split("train")
    return [one for file in train for one in functions_in(file, min_lines=3)]


def test_a_query_that_breaks_a_rule_is_a_reject_with_its_reason(functions, tmp_path):
    (*_, one) = functions
    replies = [
        '1. "adds up every n-th number of a list"',
        "add up",
        f"how does {one.name} add them up",
        " ".join(one.name.split("_")) + " " + one.name.split("_")[0],
        "how to add " + "very " * 20 + "many numbers",
        "see https://example.org for it",
        "сумма всех чисел списка",
        "Adds up every n-th number of a list.",  # as the first but for the case
    ]
    pool = [function_unit(one)]
    with server(answering(lambda asked, number: replies[number])) as (url, requests):
        found, rejects = taught_queries(
            [one], teacher(url, tmp_path), samples=len(replies), most=9, pool=pool, judge=Last(pool), seed=0
        )
    assert found == {pool[0]["id"]: ["adds up every n-th number of a list"]}
    assert [reject["reason"] for reject in rejects] == [
        "teacher: a query of too few words",
        "teacher: a query that gives the name away",
        "teacher: a query that says its name alone",
        "teacher: a query of too many words",
        "teacher: a query with a tag or a link",
        "teacher: a query not in English",
    ]
    asked = requests[0]["body"]["messages"][-1]["content"]
    assert (
        asked == QUESTION.format(code=f"```\n{pool[0]['code']}\n```")
        and '"""' not in asked
        and "always counts" not in asked
    )


def test_a_query_that_does_not_find_its_code_is_a_reject(functions, tmp_path):
    pool = [function_unit(one) for one in functions]
    with server(answering(lambda asked, number: f"sum of list number {number}")) as (url, _):
        found, rejects = taught_queries(
            functions, teacher(url, tmp_path), samples=1, most=99, pool=pool, judge=Last(pool), seed=0
        )
    assert set(found) == {unit["id"] for unit in pool[-2:]}
    assert {(one["id"], one["reason"]) for one in rejects} == {
        (unit["id"], "teacher: not in the top 2") for unit in pool[:-2]
    }


def test_no_more_functions_are_asked_about_than_pairs_are_wanted(functions, tmp_path):
    pool = [function_unit(one) for one in functions[1:]]
    with server(answering(lambda *_: "anything at all")) as (url, requests):
        taught_queries(functions, teacher(url, tmp_path), samples=2, most=3, pool=pool, judge=Last(pool), seed=0)
        taught_queries(functions, teacher(url, tmp_path / "b"), samples=1, most=99, pool=pool, judge=Last(pool), seed=0)
    assert len(requests) == 6 + len(pool)  # and about none that is not searched


@pytest.mark.parametrize(
    ("reply", "query"),
    [
        ("Query: find the shortest path\n\nIt is short.", "find the shortest path"),
        ("```text\n- `find the shortest path`\n```", "find the shortest path"),
        ("“how do I find a path?”", "how do I find a path?"),
        ("\n", ""),
    ],
)
def test_the_query_is_the_first_line_of_words(reply, query):
    assert read_query(reply) == query


def test_pairs_take_the_teachers_query_first_and_test_queries_from_the_code_alone(small_corpus, tmp_path):
    def reply(asked, number):
        name = next(line for line in asked.split("\n") if line.startswith("def ")).split("(")[0].split("_")
        return f"numbers taken apart into {' '.join(name[1:])} label"

    def build(folder, url, **options):
        return build_text_code_pairs(small_corpus, teacher=teacher(url, tmp_path / folder), **options)

    with server(answering(reply)) as (url, requests):
        pairs = build("a", url, queries_per_code=2)
        asked = len(requests)
        assert build("a", url, queries_per_code=2) == pairs and len(requests) == asked
        small = build("b", url, count=2)
    assert len(requests) == asked + 2 * 4 and len(small.train) == 2  # four replies about as many functions as wanted
    by_origin = {}
    for pair in pairs.train:
        by_origin.setdefault(pair["origin"], []).append(pair)
    taught = by_origin["teacher"]
    assert taught and all(pair["id"].count("#") == 0 for pair in taught) and len(by_origin["docstring"]) >= len(taught)
    assert "teacher" not in {pair["origin"] for pair in pairs.test}
    assert pairs.about["teacher"]["model"] == "m" and f"{len(taught)} teacher" in text_code_summary(pairs)
    assert build_text_code_pairs(small_corpus).about["teacher"] is None


def test_what_a_teacher_said_in_vain_is_among_the_rejects(small_corpus, tmp_path):
    with server(answering(lambda *_: "no")) as (url, _):
        pairs = build_text_code_pairs(small_corpus, teacher=teacher(url, tmp_path), teacher_candidates=1, count=3)
    refused = [one for one in pairs.rejects if one["reason"] == "teacher: a query of too few words"]
    assert len(refused) == 3 and "teacher" not in {pair["origin"] for pair in pairs.train}
