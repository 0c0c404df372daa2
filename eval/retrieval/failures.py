"""Failed queries: what was found instead, and the likely cause, determined by rules."""

from __future__ import annotations

from data.search.bm25 import stems
from eval.retrieval.files import graded_codes, kind_of
from eval.retrieval.metrics import CUT


def worst_queries(result: dict, queries: list[dict], candidates: list[dict], count: int = 15) -> list[dict]:
    """The queries with the worst ranks, what was found instead, and the likely cause (see `_cause`).

    `result` comes from `evaluate_retrieval` on the same queries and candidates. Returns up to `count` rows {"id",
    "category", "prompt", "answer", "cause", "check"}, worst first, without queries whose code ranked first.
    """
    by_id = {row["id"]: row for row in candidates}
    query_of = {row["id"]: row for row in queries}
    missed = sorted(
        (row for row in result["results"] if row["rank"] > 1), key=lambda row: (-row["rank"], str(row["id"]))
    )
    rows = []
    for row in missed[:count]:
        query = query_of[row["id"]]
        relevant = [by_id[i] for i in graded_codes(query)]
        first = by_id[row["top"][0]]
        rows.append(
            {
                "id": row["id"],
                "category": kind_of(query) or "query",
                "prompt": query["query"],
                "answer": f"# found first: {place(first)}\n{first['code']}",
                "cause": _cause(query["query"], relevant, first, row["bm25_rank"]),
                "check": _evidence(row, query["query"], relevant, first=first, count=len(candidates)),
            }
        )
    return rows


def _cause(query: str, relevant: list[dict], first: dict, bm25_rank: int) -> str:
    """Why `first` may have ranked above the relevant code: the first rule that applies."""
    asked, found = set(stems(query)), set(stems(first["code"]))
    wanted = [set(stems(code["code"])) for code in relevant]
    held = max(len(asked & code) for code in wanted)
    if max(_jaccard(code, found) for code in wanted) >= 0.7:
        return "a near-duplicate ranks above"
    if _name(first) and _name(first) in map(_name, relevant):
        return "a function of the same name ranks above"
    if held == 0:
        return "the query shares no word with the code"
    if len(asked & found) > held:
        return "the code found has more of the query's words"
    if bm25_rank <= CUT:
        return "the code has the words (BM25 finds it), but the vectors miss them"
    return "the query is short" if len(asked) <= 3 else "the meaning is missed"


def _evidence(row: dict, query: str, relevant: list[dict], *, first: dict, count: int) -> str:
    """Ranks, common words, and the code that should have ranked first."""
    asked = set(stems(query))
    lines = [f"rank {row['rank']} of {count}, by BM25 {row['bm25_rank']}"]
    for what, code in (("found first", first), *(("wanted", code) for code in relevant)):
        lines.append(f"{what} has {len(asked & set(stems(code['code'])))} of the query's {len(asked)} words")
    return "\n".join(lines + [f"# wanted: {place(code)}\n{code['code']}" for code in relevant])


def _jaccard(one: set, other: set) -> float:
    return len(one & other) / max(1, len(one | other))


def _name(candidate: dict) -> str:
    """The function's own name, without its class; a whole file has none."""
    return str((candidate.get("source") or {}).get("qualname") or "").rpartition(".")[2]


def place(candidate: dict) -> str:
    """Path and name of a candidate, or its id if it has neither."""
    source = candidate.get("source") or {}
    return " ".join(str(source[key]) for key in ("path", "qualname") if source.get(key)) or str(candidate["id"])
