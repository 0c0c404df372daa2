"""The queries for each function and file, taken from their origins in turn."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable
from typing import NamedTuple

from data.corpus import SourceFile
from data.corpus.functions import Function
from data.pairs.queries import NoQuery, call_queries, call_sites, docstring_queries, file_queries, name_queries
from data.search.units import AnyFunction, function_unit


class Queries(NamedTuple):
    """The queries that ask for one unit of code."""

    split: str
    unit: str  # its id
    queries: list[dict]  # {"query", "origin"}, in the order in which they are used


def queries_of_functions(
    functions: list[AnyFunction], origins: Collection[str], seed: int, taught: dict[str, list[str]]
) -> tuple[list[Queries], list[dict]]:
    """The queries for each function, and rejects for functions without any.

    taught  unit -> queries of a teacher
    """
    calls = call_sites([one for one in functions if isinstance(one, Function)]) if "call" in origins else {}
    makers = {
        "docstring": lambda function: docstring_queries(function, seed),
        "call": lambda function: call_queries(function, calls.get(function, ()), seed),
        "name": lambda function: name_queries(function, seed),
    }
    asked, rejects = [], []
    for function in functions:
        unit, reasons = function_unit(function)["id"], []
        by_origin = [[{"query": query, "origin": "teacher"} for query in taught.get(unit, ())]]
        for origin, make in makers.items():
            if origin not in origins:
                continue
            try:
                by_origin.append([{"query": query, "origin": origin} for query in make(function)])
            except NoQuery as why:
                reasons.append(str(why))
        # the first of every origin, then the second, ...: queries of one code should differ in more than their wording
        in_turn = [query for turn in itertools.zip_longest(*by_origin) for query in turn if query is not None]
        in_turn.sort(key=lambda query: query["origin"] == "name")  # a name says least: it comes last
        if in_turn:
            distinct: dict[str, dict] = {}
            for query in in_turn:
                distinct.setdefault(query["query"].lower(), query)
            asked.append(Queries(function.split, unit, list(distinct.values())))
        elif reasons:
            rejects.append({"id": unit, "reason": reasons[0], "detail": ", ".join(reasons[1:])})
    return asked, rejects


def queries_of_files(files: Iterable[SourceFile], origins: Collection[str], seed: int) -> list[Queries]:
    """The queries for each file."""
    if "file" not in origins:
        return []
    by_name = "name" in origins
    return [
        Queries(
            file.split,
            file.path,
            [{"query": query, "origin": "file"} for query in file_queries(file, seed, by_name=by_name)],
        )
        for file in files
    ]
