"""Queries that a teacher writes for training functions, kept if they find the function they were written for.

    code, its docstring hidden ──► n replies ──► a query by the rules of queries.py? ──► its code in the top 2?

Test queries stay in the repository's own words: the measurement does not depend on the teacher.
"""

from __future__ import annotations

import re

from common.markdown import fenced
from common.shuffle import seeded_order
from data.instruct.teacher import Teacher
from data.pairs.mining import TOP, Scorer, consistent
from data.pairs.queries import query_problem
from data.search.bm25 import words
from data.search.units import AnyFunction, function_unit

SYSTEM = (
    "You search a code base that you did not write. You answer with what you type into its search box, nothing else."
)
QUESTION = (
    "Which query would a developer type who needs the function below, but knows neither its name nor that it exists? "
    "One line of 4 to 12 plain English words: what it is for, not how it works, and none of its identifiers.\n\n"
    "{code}"
)
LABEL = re.compile(r"^(?:[-*•>]|\d+[.)])\s+|^(?:search )?query\s*:\s*", re.IGNORECASE)


def taught_queries(
    functions: list[AnyFunction],
    teacher: Teacher,
    *,
    samples: int,
    most: int,
    pool: list[dict],
    judge: Scorer,
    seed: int,
) -> tuple[dict[str, list[str]], list[dict]]:
    """The queries that pass, by the unit's id in the order of the replies; and rejects {"id", "reason", "detail"}.

    samples    replies per function           most   functions to ask about, by a seeded draw
    pool       units of the training files; only functions among them are asked about
    judge      scores the pool: a query passes if its own code ranks TOP or better
    """
    in_pool = {unit["id"] for unit in pool}
    by_id = {unit["id"]: one for one in functions if (unit := function_unit(one))["id"] in in_pool}
    ids = seeded_order(list(by_id), seed)[:most]
    conversations = [
        [
            {"role": "system", "content": SYSTEM},
            {"role": "user", "content": QUESTION.format(code=fenced(by_id[one].code_without_docstring))},
        ]
        for one in ids
    ]
    pairs, rejects = [], []
    for one, replies in zip(ids, teacher.ask(conversations, samples=samples), strict=True):
        distinct: dict[str, str] = {}
        for reply in replies:
            if reply:
                query = read_query(reply.text)
                distinct.setdefault(query.lower(), query)
        for query in distinct.values():
            if problem := _problem(query, by_id[one].name):
                rejects.append({"id": one, "reason": f"teacher: a query {problem}", "detail": query})
            else:
                pairs.append({"code_id": one, "kind": "function", "query": query})
    kept, lost = consistent(pairs, pool, judge)
    found: dict[str, list[str]] = {}
    for pair in kept:
        found.setdefault(pair["code_id"], []).append(pair["query"])
    return found, [*rejects, *({**reject, "reason": f"teacher: not in the top {TOP}"} for reject in lost)]


def read_query(text: str) -> str:
    """The query in a reply: its first line of words, without number, label and quotes."""
    lines = (line.strip() for line in text.split("\n"))
    line = next((line for line in lines if line and not line.startswith(("```", "~~~"))), "")
    return LABEL.sub("", line).strip("\"'`“”*. ")


def _problem(query: str, name: str) -> str | None:
    """As for any query; besides, a searcher does not know the identifier, unless it is a plain word."""
    if len(words(name)) > 1 and re.search(rf"(?<!\w){re.escape(name)}(?!\w)", query):
        return "that gives the name away"
    return query_problem(query, name)
