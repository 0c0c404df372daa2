"""Retrieval data: queries, candidates and relevance judgements, in our own formats and in those of published sets.

query      {"id", "query", "code_id": an id, a list of them, or {id: grade}, "kind", "origin"}
candidate  {"id", "code", "kind", "source"}

F.jsonl          text–code pairs, or CodeSearchNet's rows (docstring_tokens, code); their codes are the candidates
F.json           CoSQA's queries; the codes are next to it, in code_idx_map.txt
DIR, qrels/F.tsv BEIR's and CoIR's layout: corpus.jsonl, queries.jsonl, qrels/test.tsv; or a folder of data.pairs
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import numpy as np

from common.console import UserError
from common.files import read_json, read_jsonl, read_objects, read_text

Relevant = tuple[np.ndarray, np.ndarray]  # columns [R] among the candidates, and their grades [R]


def read_retrieval(data: Path | str, candidates: Path | str | None = None) -> tuple[list[dict], list[dict]]:
    """Queries and candidates in any of the formats above, validated.

    candidates  codes to search: JSON Lines; for CoSQA its code_idx_map.txt (default: those that belong to `data`)
    Raises UserError with the file and line of a row that cannot be evaluated.
    """
    data = Path(data)
    if data.is_dir() and not (data / "corpus.jsonl").exists() and (data / "candidates.jsonl").exists():
        data, candidates = data / "test.jsonl", candidates or data / "candidates.jsonl"
    if data.is_dir():
        return _read_beir(data, data / "qrels" / "test.tsv")
    if data.suffix == ".tsv":
        return _read_beir(data.parent.parent, data)
    rows = read_objects(data)
    if data.suffix == ".json" and not any("query" in row for row in rows):
        return _read_cosqa(rows, data, Path(candidates or data.parent / "code_idx_map.txt"))
    if rows and "docstring_tokens" in rows[0]:
        rows = [_of_codesearchnet(row, f"{data}:{number}") for number, row in enumerate(rows, 1)]
    if candidates:
        queries, codes = rows, read_objects(candidates)
    else:
        queries, codes = own_candidates(rows, where=f"{data}:")
    relevance(queries, codes, where=(f"{data}:", f"{candidates or data}:"))
    return queries, codes


def own_candidates(pairs: list[dict], *, where: str = "pair ") -> tuple[list[dict], list[dict]]:
    """Queries and candidates of pairs without a candidate file: the distinct codes are the candidates.

    where  prefix of a row's number in errors
    Raises UserError for a pair without "code".
    """
    ids: dict[str, str] = {}  # code -> id of the first pair with it
    for number, pair in enumerate(pairs, 1):
        ids.setdefault(_text(pair, "code", f"{where}{number}"), str(pair.get("id")))
    sources = {pair["code"]: pair.get("source") for pair in reversed(pairs)}
    candidates = [{"id": code_id, "code": code, "source": sources[code]} for code, code_id in ids.items()]
    return [{**pair, "code_id": ids[pair["code"]]} for pair in pairs], candidates


def relevance(
    queries: list[dict], candidates: list[dict], *, where: tuple[str, str] = ("query ", "candidate ")
) -> list[Relevant]:
    """For each query, the columns of the relevant candidates and their grades.

    where  prefixes of the row numbers of queries and of candidates in errors
    Raises UserError for rows that cannot be evaluated.
    """
    if not queries or not candidates:
        raise UserError("nothing to evaluate: give at least one query and one candidate")
    for rows, what, key in ((queries, where[0], "query"), (candidates, where[1], "code")):
        for number, row in enumerate(rows, 1):
            _text(row, key, f"{what}{number}")
            if not _is_id(row.get("id")):
                raise UserError(f'{what}{number}: "id" is missing or not text (this row has: {", ".join(row)})')
            if not isinstance(row.get("source") or {}, dict):
                raise UserError(f'{what}{number}: "source" is not an object')
        if twice := [i for i, n in Counter(row["id"] for row in rows).items() if n > 1]:
            number = 1 + max(i for i, row in enumerate(rows) if row["id"] == twice[0])
            raise UserError(f"{what}{number}: the id {twice[0]!r} is used twice; ids must be unique")
    column = {row["id"]: i for i, row in enumerate(candidates)}
    found = []
    for number, query in enumerate(queries, 1):
        grades = graded_codes(query, f"{where[0]}{number}")
        if odd := [code_id for code_id in grades if code_id not in column]:
            raise UserError(f"{where[0]}{number}: its code {odd[0]!r} is not among the candidates")
        found.append((np.array([column[code_id] for code_id in grades]), np.array(list(grades.values()))))
    return found


def graded_codes(query: dict, where: str = "query") -> dict:
    """The ids of the relevant codes of a query, each with its grade, above 0. UserError if "code_id" names none."""
    wanted = query.get("code_id")
    if _is_id(wanted):
        wanted = [wanted]
    if isinstance(wanted, list) and all(map(_is_id, wanted)):
        wanted = dict.fromkeys(wanted, 1)
    if isinstance(wanted, dict) and all(type(grade) is int for grade in wanted.values()):
        graded = {code_id: grade for code_id, grade in wanted.items() if grade > 0}
        if graded:
            return graded
    raise UserError(
        f'{where}: "code_id" names no code; expected an id, a list of ids, or {{id: grade}} with a grade above 0'
    )


def kind_of(query: dict) -> str | None:
    """The kind of a query: usage (it was made from a call), function or file; None if its row does not say."""
    kind = "usage" if query.get("origin") == "call" else query.get("kind") or query.get("category")
    return kind if isinstance(kind, str) else None


def _is_id(value) -> bool:
    return type(value) in (str, int) and value != ""


def _text(row: dict, key: str, where: str) -> str:
    """The text in a field. UserError if it is missing or blank."""
    if not isinstance(row.get(key), str) or not row[key].strip():
        raise UserError(f'{where}: "{key}" is missing, empty or not text (this row has: {", ".join(row)})')
    return row[key]


def _of_codesearchnet(row: dict, where: str) -> dict:
    """A row of CodeSearchNet (arXiv:1909.09436) or AdvTest (arXiv:2102.04664) as a text–code pair.

    The query is the docstring's first paragraph, as both sets define it.
    """
    tokens = row.get("docstring_tokens")
    if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
        raise UserError(f'{where}: "docstring_tokens" is missing or not a list of words')
    source = {"path": row.get("path"), "qualname": row.get("func_name")}
    query = {"id": where.rpartition(":")[2], "query": " ".join(tokens), "code": row.get("code"), "source": source}
    _text(query, "query", where)
    return query


def _read_cosqa(rows: list[dict], data: Path, codes: Path) -> tuple[list[dict], list[dict]]:
    """CoSQA's own files (arXiv:2105.13239): queries as a list, the codes as keys of an object."""
    for number, row in enumerate(rows, 1):
        _text(row, "doc", f"{data}: row {number}")
        if not _is_id(row.get("retrieval_idx")):
            raise UserError(f'{data}: row {number}: "retrieval_idx" is missing or not an id')
    queries = [{"id": row.get("idx"), "query": row["doc"], "code_id": row["retrieval_idx"]} for row in rows]
    candidates = [{"id": number, "code": code} for code, number in read_json(codes).items()]
    relevance(queries, candidates, where=(f"{data}: row ", f"{codes}: row "))
    return queries, candidates


def _read_beir(folder: Path, judged: Path) -> tuple[list[dict], list[dict]]:
    """BEIR's files (arXiv:2104.08663), also CoIR's (arXiv:2407.02883). Queries without a judgement are omitted."""
    texts = {}
    for name in ("corpus", "queries"):
        path = folder / f"{name}.jsonl"
        texts[name] = {}
        for number, row in enumerate(read_jsonl(path), 1):
            text = _text(row, "text", f"{path}:{number}")
            if not _is_id(row.get("_id")) or not isinstance(row.get("title") or "", str):
                raise UserError(f'{path}:{number}: expected "_id" and optionally "title" as text')
            if str(row["_id"]) in texts[name]:
                raise UserError(f"{path}:{number}: the id {row['_id']!r} is used twice; ids must be unique")
            texts[name][str(row["_id"])] = f"{row.get('title') or ''} {text}".strip()
    grades = _read_judgements(judged, texts)
    queries = [{"id": i, "query": texts["queries"][i], "code_id": wanted} for i, wanted in grades.items()]
    queries = [query for query in queries if any(grade > 0 for grade in query["code_id"].values())]
    candidates = [{"id": i, "code": text} for i, text in texts["corpus"].items()]
    relevance(queries, candidates)
    return queries, candidates


def _read_judgements(path: Path, texts: dict[str, dict[str, str]]) -> dict[str, dict[str, int]]:
    """query id -> {code id: grade}, from a table with the columns query-id, corpus-id, score."""
    grades: dict[str, dict[str, int]] = {}
    for number, line in enumerate(read_text(path).removesuffix("\n").split("\n"), 1):
        cells = line.removesuffix("\r").split("\t")
        if number == 1 and cells[-1].strip() == "score":
            continue
        if len(cells) != 3 or not re.fullmatch(r"-?\d+", cells[2].strip()):
            raise UserError(f"{path}:{number}: expected query-id, corpus-id and an integer score, separated by tabs")
        query, code = cells[:2]
        for name, key in (("queries", query), ("corpus", code)):
            if key not in texts[name]:
                raise UserError(f"{path}:{number}: {key!r} is not in {name}.jsonl")
        grades.setdefault(query, {})[code] = int(cells[2])
    return grades
