"""The queries for each function and file, taken from their origins in turn."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable

from data.corpus import SourceFile
from data.corpus.functions import Function
from data.pairs.queries import NoQuery, call_queries, call_sites, docstring_queries, file_queries, name_queries
from data.search.units import AnyFunction, function_unit

Asked = tuple[str, str, list[dict]]  # split, unit, queries {"query", "origin"} in the order in which they are used


def queries_of_functions(
    functions: list[AnyFunction], origins: Collection[str], seed: int, taught: dict[str, list[str]]
) -> tuple[list[Asked], list[dict]]:
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
        turns = [query for turn in itertools.zip_longest(*by_origin) for query in turn if query is not None]
        turns.sort(key=lambda query: query["origin"] == "name")  # a name says least: it comes last
        if turns:
            distinct: dict[str, dict] = {}
            for query in turns:
                distinct.setdefault(query["query"].lower(), query)
            asked.append((function.split, unit, list(distinct.values())))
        elif reasons:
            rejects.append({"id": unit, "reason": reasons[0], "detail": ", ".join(reasons[1:])})
    return asked, rejects


def queries_of_files(files: Iterable[SourceFile], origins: Collection[str], seed: int) -> list[Asked]:
    """The queries for each file."""
    if "file" not in origins:
        return []
    return [
        (file.split, file.path, [{"query": one, "origin": "file"} for one in asked])
        for file in files
        for asked in [file_queries(file, seed, by_name="name" in origins)]
    ]
