"""How well queries find their code: MRR@10, nDCG@10, Recall@10 against all candidates, beside BM25.

    query ─ encode ─┐
                    ├─ scores [N] ─ ranked grades [N] ─ metrics        every candidate competes, there is no sampling
    code ── encode ─┘

The metrics are those of trec_eval (linear gain, log2 discount), cut at ten. Only ties differ: trec_eval orders equal
scores by document id, so that a model which scores everything alike gets what the names happen to give. Here equal
scores rank the relevant code last, and such a model gets nothing.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import sys
from collections import Counter
from collections.abc import Mapping

import numpy as np

from data.search.bm25 import BM25, words
from eval.stats import bootstrap_mean
from model import load_encoder
from model.console import UserError, progress, run_command
from model.encoder_files import add_encoder_options, encoder_options
from model.files import read_jsonl, write_json

CUT = 10
METRICS = ("mrr@10", "ndcg@10", "recall@10")


def rank(scores: np.ndarray, grades: np.ndarray) -> np.ndarray:
    """Candidates from best to worst; of equal scores the higher grade comes last.

    scores  [N]  larger is better
    grades  [N]  0 for irrelevant, positive for relevant
    Returns the order, [N] indices.
    """
    return np.lexsort((grades, -scores))


def mrr_at_10(ranked: np.ndarray) -> float:
    """1 / rank of the first relevant candidate, 0 beyond ten. `ranked` [N] holds the grades from best to worst."""
    hits = np.flatnonzero(ranked[:CUT] > 0)
    return 1.0 / (int(hits[0]) + 1) if len(hits) else 0.0


def ndcg_at_10(ranked: np.ndarray) -> float:
    """Discounted gain over that of the best order (Järvelin & Kekäläinen, TOIS 20, 2002). `ranked` as in mrr_at_10."""
    discount = 1 / np.log2(np.arange(2, CUT + 2))
    ideal = np.sort(ranked)[::-1][:CUT]
    gain, best = (float((g * discount[: len(g)]).sum()) for g in (ranked[:CUT], ideal))
    return gain / best if best > 0 else 0.0


def recall_at_10(ranked: np.ndarray) -> float:
    """Share of the relevant candidates among the first ten. `ranked` as in mrr_at_10."""
    relevant = np.count_nonzero(ranked > 0)
    return np.count_nonzero(ranked[:CUT] > 0) / relevant if relevant else 0.0


def evaluate_retrieval(
    encoder, queries: list[dict], candidates: list[dict], passages: np.ndarray | None = None
) -> dict:
    """Rank all candidates for each query, by the encoder and by BM25.

    encoder     has `encode(texts, kind="query" | "passage")` -> [N, D] of unit length, and `describe()`
    queries     text–code pairs, "code_id" (one id or a list) naming the relevant candidates
    candidates  {"id", "code", ...}
    passages    the candidates' vectors [N, D], when the encoder has made them already
    Returns an eval result: "metrics", "intervals", "n", "values" (metric -> query id -> value), "results" (one row a
    query: status "pass" if a relevant candidate is among the first ten, "rank" of the best one, "bm25_rank", "top" ten
    ids), "bm25" (the same figures), "sandbox" (none: nothing is executed) and "environment".
    Raises UserError for a query without its candidate, for ids used twice, and for nothing to evaluate.
    """
    grades = relevance(queries, candidates)
    if passages is None:
        passages = _vectors(encoder, [row["code"] for row in candidates], "passage")  # [N, D]
    asked = _vectors(encoder, [row["query"] for row in queries], "query")  # [Q, D]
    bm25 = BM25([row["code"] for row in candidates])
    values = {system: {metric: {} for metric in METRICS} for system in ("encoder", "bm25")}
    results = []
    for i, query in enumerate(progress(queries, what="ranking", unit="query")):
        # Products of equal vectors differ by about 1e-7, depending on their place in memory; equal texts must tie.
        scores = {"encoder": np.round(passages @ asked[i], 6), "bm25": bm25.scores(query["query"])}
        best = {}
        for system in scores:
            order = rank(scores[system], grades[i])
            ranked = grades[i][order]
            best[system] = int(np.flatnonzero(ranked)[0]) + 1
            for metric, function in zip(METRICS, (mrr_at_10, ndcg_at_10, recall_at_10), strict=True):
                values[system][metric][query["id"]] = function(ranked)
            if system == "encoder":
                top = [candidates[j]["id"] for j in order[:CUT]]
        results.append(
            {
                "id": query["id"],
                "status": "pass" if best["encoder"] <= CUT else "wrong",
                "rank": best["encoder"],
                "bm25_rank": best["bm25"],
                "top": top,
            }
        )
    return {
        **_summary(values["encoder"]),
        "n": len(queries),
        "candidates": len(candidates),
        "values": values["encoder"],
        "results": results,
        "bm25": {**_summary(values["bm25"]), "values": values["bm25"]},
        "sandbox": None,
        "environment": {
            "python": platform.python_version(),
            "numpy": np.__version__,
            **{f"encoder_{key}": value for key, value in encoder.describe().items()},
            "queries_sha256": _hash(queries),
            "candidates_sha256": _hash(candidates),
        },
    }


def worst_queries(result: dict, queries: list[dict], candidates: list[dict], count: int = 15) -> list[dict]:
    """The queries that ranked worst, what was found instead, and a cause found by program (see `_cause`).

    `result` is that of `evaluate_retrieval` on the same queries and candidates. Returns up to `count` rows {"id",
    "category", "prompt", "answer", "cause", "check"}, worst first; queries whose code came first are never among them.
    """
    by_id = {row["id"]: row for row in candidates}
    query_of = {row["id"]: row for row in queries}
    missed = sorted((row for row in result["results"] if row["rank"] > 1), key=lambda row: (-row["rank"], row["id"]))
    rows = []
    for row in missed[:count]:
        query = query_of[row["id"]]
        relevant = [by_id[i] for i in _code_ids(query)]
        first = by_id[row["top"][0]]
        rows.append(
            {
                "id": row["id"],
                "category": query.get("kind") or query.get("category") or "query",
                "prompt": query["query"],
                "answer": f"# found first: {_place(first)}\n{first['code']}",
                "cause": _cause(query["query"], relevant, first, row["bm25_rank"]),
                "check": _evidence(row, query["query"], relevant, first, len(candidates)),
            }
        )
    return rows


def _cause(query: str, relevant: list[dict], first: dict, bm25_rank: int) -> str:
    """Why `first` may have come before the relevant code: the first of these that holds."""
    asked, found = set(words(query)), set(words(first["code"]))
    wanted = [set(words(code["code"])) for code in relevant]
    held = max(len(asked & code) for code in wanted)
    if max(_jaccard(code, found) for code in wanted) >= 0.7:
        return "a near-duplicate ranks above"
    if _name(first) and _name(first) in map(_name, relevant):
        return "a function of the same name ranks above"
    if held == 0:
        return "the query shares no word with the code"
    if len(asked & found) > held:
        return "the code found holds more of the query's words"
    if bm25_rank <= CUT:
        return "the words are there (BM25 finds it), the vector misses them"
    return "the query is short" if len(asked) <= 3 else "the meaning is missed"


def _evidence(row: dict, query: str, relevant: list[dict], first: dict, count: int) -> str:
    """Ranks, words in common, and the code that should have come first."""
    asked = set(words(query))
    lines = [f"rank {row['rank']} of {count}, by BM25 {row['bm25_rank']}"]
    for what, code in (("found first", first), *(("wanted", code) for code in relevant)):
        lines.append(f"{what} holds {len(asked & set(words(code['code'])))} of the query's {len(asked)} words")
    return "\n".join(lines + [f"# wanted: {_place(code)}\n{code['code']}" for code in relevant])


def _jaccard(one: set, other: set) -> float:
    return len(one & other) / max(1, len(one | other))


def _name(candidate: dict) -> str:
    """The function's own name, without its class; a whole file has none."""
    return ((candidate.get("source") or {}).get("qualname") or "").rpartition(".")[2]


def _place(candidate: dict) -> str:
    source = candidate.get("source") or {}
    return " ".join(str(source[key]) for key in ("path", "qualname") if source.get(key)) or str(candidate["id"])


def _code_ids(query: dict) -> list:
    return query["code_id"] if isinstance(query["code_id"], list) else [query["code_id"]]


def relevance(queries: list[dict], candidates: list[dict]) -> np.ndarray:
    """[Q, N] int8: 1 where the candidate is relevant to the query. UserError for rows that cannot be evaluated."""
    if not queries or not candidates:
        raise UserError("nothing to evaluate: give at least one query and one candidate")
    for what, rows, fields in (
        ("query", queries, ("id", "query", "code_id")),
        ("candidate", candidates, ("id", "code")),
    ):
        for number, row in enumerate(rows, 1):
            if missing := [field for field in fields if row.get(field) in (None, "", [])]:
                raise UserError(f"{what} {number}: {missing[0]!r} is missing or empty (it has: {', '.join(row)})")
        twice = [i for i, n in Counter(row["id"] for row in rows).items() if n > 1]
        if twice:
            raise UserError(f"the {what} id {twice[0]!r} is used twice; ids must be unique")
    column = {row["id"]: i for i, row in enumerate(candidates)}
    grades = np.zeros((len(queries), len(candidates)), dtype=np.int8)
    for i, query in enumerate(queries):
        for code_id in _code_ids(query):
            if code_id not in column:
                raise UserError(f"query {query['id']!r} wants {code_id!r}, which is not among the candidates")
            grades[i, column[code_id]] = 1
    return grades


def _vectors(encoder, texts: list[str], kind: str) -> np.ndarray:
    vectors = np.asarray(encoder.encode(texts, kind=kind), dtype=np.float32)
    if not np.isfinite(vectors).all():
        raise UserError(f"the model gives vectors that are not finite for some {kind} texts: its weights have diverged")
    return vectors


def _summary(values: Mapping[str, Mapping[str, float]]) -> dict:
    intervals = {metric: bootstrap_mean(list(by_id.values())) for metric, by_id in values.items()}
    return {
        "metrics": {metric: mean for metric, (mean, _, _) in intervals.items()},
        "intervals": {metric: [low, high] for metric, (_, low, high) in intervals.items()},
    }


def _hash(rows: list[dict]) -> str:
    return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()


def own_candidates(pairs: list[dict]) -> tuple[list[dict], list[dict]]:
    """Queries and candidates of pairs that come without a candidate file: their distinct codes are the candidates.

    Raises UserError for a pair without "code".
    """
    ids: dict[str, str] = {}  # code -> id of the first pair that has it
    for number, pair in enumerate(pairs, 1):
        if not pair.get("code"):
            raise UserError(f"pair {number}: 'code' is missing or empty (it has: {', '.join(pair)})")
        ids.setdefault(pair["code"], str(pair.get("id")))
    sources = {pair["code"]: pair.get("source") for pair in reversed(pairs)}
    candidates = [{"id": code_id, "code": code, "source": sources[code]} for code, code_id in ids.items()]
    return [{**pair, "code_id": ids[pair["code"]]} for pair in pairs], candidates


def main() -> None:
    """The command `python -m eval.retrieval`."""
    parser = argparse.ArgumentParser(description="MRR@10, nDCG@10 and Recall@10 of an encoder, beside BM25.")
    parser.add_argument("--model", required=True, help="encoder: a folder, a hub id or an embedded default")
    parser.add_argument("--data", required=True, help="text–code pairs, JSON Lines")
    parser.add_argument(
        "--candidates", help="codes to search, JSON Lines with id and code (default: the codes of --data)"
    )
    parser.add_argument("--out", required=True, help="result, JSON")
    add_encoder_options(parser)
    options = parser.parse_args()
    pairs = read_jsonl(options.data)
    queries, candidates = (pairs, read_jsonl(options.candidates)) if options.candidates else own_candidates(pairs)
    relevance(queries, candidates)  # bad rows are told before a model is fetched

    encoder = load_encoder(options.model, **encoder_options(options))
    result = evaluate_retrieval(encoder, queries, candidates)
    write_json(options.out, result)
    print(f"{len(queries)} queries against {len(candidates)} candidates")
    for metric in METRICS:
        value, (low, high), bm25 = (result["metrics"][metric], result["intervals"][metric], result["bm25"]["metrics"])
        print(f"{metric:10} {value:.3f}  [{low:.3f}, {high:.3f}]  BM25 {bm25[metric]:.3f}")
    print(f"written to {options.out}")


if __name__ == "__main__":
    sys.exit(run_command(main))
