"""How well queries find their code: MRR, nDCG, Recall and MAP against all candidates, beside simpler ways to search.

    query ─ encode ─┐
                    ├─ scores [N] ─ ranks of the relevant codes ─ metrics    every candidate competes, none is sampled
    code ── encode ─┘

Beside the model: BM25 over the code, BM25 over path and name alone, chance, the fusion of model and BM25, and the model
that it was tuned from. What is read is in eval/retrieval/files.py, the metrics in eval/retrieval/metrics.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from common.console import UserError, progress
from common.markdown import fenced
from data.search.bm25 import BM25, words
from data.search.fusion import fuse
from eval.compare import compare_runs, number, told
from eval.environment import environment
from eval.retrieval.failures import worst_queries
from eval.retrieval.files import graded_codes, kind_of, own_candidates, relevance
from eval.retrieval.metrics import CUT, METRICS, first, ranks_of
from eval.stats import summarise

__all__ = ["evaluate_retrieval", "own_candidates", "relevance", "worst_queries"]

SHOWN = ("mrr@10", "ndcg@10", "recall@10", "recall@1", "map")
OF_A_KIND = ("mrr@10", "ndcg@10", "recall@10")


def evaluate_retrieval(
    encoder,
    queries: list[dict],
    candidates: list[dict],
    passages: np.ndarray | None = None,
    *,
    base=None,
    seed: int = 0,
) -> dict:
    """Rank all candidates for each query, by the encoder and by what it is to be held against.

    encoder     has `encode(texts, kind="query" | "passage")` -> [N, D] of unit length, and `describe()`
    queries     text–code pairs; "code_id" names the relevant candidates: an id, a list, or {id: grade}
    candidates  {"id", "code", ...}
    passages    the candidates' vectors [N, D], when the encoder has made them already
    base        another encoder, such as the one that was tuned
    seed        of the ranking by chance
    Returns an eval result: "metrics", "intervals", "by_category" (the same for each kind of query), "n", "candidates",
    "values" (metric -> query id -> value), "results" (one row a query: status "pass" if a relevant candidate is among
    the first ten, "rank" of the best one, "bm25_rank", "top" ten ids), "verbatim" (how many queries stand word for word
    in a code that answers them), "sandbox" (none: nothing is executed) and "environment". Of "random", "path" (where
    the candidates have a source), "bm25", "hybrid" and "base", each a key, the same figures; "changes" holds what is
    gained by each of them over the encoder, paired by query, as `eval.compare` gives it.
    Raises UserError for a query without its candidate, for ids used twice, and for nothing to evaluate.
    """
    relevant = relevance(queries, candidates)
    scorers = _scorers(encoder, queries, candidates, passages, base, seed)
    values = {system: {metric: {} for metric in METRICS} for system in (*scorers, "hybrid")}
    results = []
    for i, query in enumerate(progress(queries, what="ranking", unit="query")):
        scores = {system: scorer(i) for system, scorer in scorers.items()}
        scores["hybrid"] = fuse(scores["encoder"], scores["bm25"])
        best = {}
        for system, of_all in scores.items():
            ranks, grades = ranks_of(of_all, *relevant[i])
            best[system] = int(ranks[0])
            for metric, function in METRICS.items():
                values[system][metric][query["id"]] = function(ranks, grades)
        results.append(
            {
                "id": query["id"],
                "status": "pass" if best["encoder"] <= CUT else "wrong",
                "rank": best["encoder"],
                "bm25_rank": best["bm25"],
                "top": [candidates[j]["id"] for j in first(scores["encoder"], *relevant[i], CUT)],
            }
        )
    others = {system: _summary(values[system], queries) for system in values if system != "encoder"}
    result = {
        **_summary(values["encoder"], queries),
        "n": len(queries),
        "candidates": len(candidates),
        "results": results,
        **others,
        "verbatim": _verbatim(queries, candidates),
        "sandbox": None,
        "environment": environment(queries=queries, candidates=candidates) | _described(encoder=encoder, base=base),
    }
    return result | {"changes": compare_runs([result], {name: [result | other] for name, other in others.items()})}


def _scorers(encoder, queries, candidates, passages, base, seed: int) -> dict[str, Callable[[int], np.ndarray]]:
    """Each way to search but the hybrid: number of a query -> scores of all candidates [N]."""
    codes, asked = [row["code"] for row in candidates], [row["query"] for row in queries]

    def dense(model, passages=None):
        if passages is None:
            passages = _vectors(model, codes, "passage")  # [N, D]
        vectors = _vectors(model, asked, "query")  # [Q, D]
        # Products of equal vectors differ by about 1e-7, depending on their place in memory; equal texts must tie.
        return lambda i: np.round(passages @ vectors[i], 6)

    def lexical(texts):
        bm25 = BM25(texts)
        return lambda i: bm25.scores(asked[i])

    scorers = {"encoder": dense(encoder, passages), "bm25": lexical(codes)}
    sources = [row.get("source") or {} for row in candidates]
    places = [" ".join(str(source.get(key) or "") for key in ("path", "qualname")) for source in sources]
    if any(map(str.strip, places)):
        scorers["path"] = lexical(places)
    scorers["random"] = lambda i: np.random.default_rng((seed, i)).random(len(candidates))
    return scorers | ({"base": dense(base)} if base is not None else {})


def _vectors(encoder, texts: list[str], kind: str) -> np.ndarray:
    vectors = np.asarray(encoder.encode(texts, kind=kind), dtype=np.float32)
    if not np.isfinite(vectors).all():
        raise UserError(f"the model gives vectors that are not finite for some {kind} texts: its weights have diverged")
    return vectors


def _summary(values: Mapping[str, Mapping], queries: list[dict]) -> dict:
    """Means and their intervals, of all queries and of each kind of them."""
    kinds: dict[str, list] = {}
    for query in queries:
        if kind := kind_of(query):
            kinds.setdefault(kind, []).append(query["id"])
    of_kinds = {
        kind: {"n": len(ids)} | summarise({metric: {i: values[metric][i] for i in ids} for metric in OF_A_KIND})
        for kind, ids in sorted(kinds.items())
    }
    return {**summarise(values), "by_category": of_kinds, "values": values}


def _verbatim(queries: list[dict], candidates: list[dict]) -> int:
    code_of = {row["id"]: row["code"] for row in candidates}

    def text(of: str) -> str:
        return f" {' '.join(words(of))} "

    return sum(any(text(query["query"]) in text(code_of[i]) for i in graded_codes(query)) for query in queries)


def _described(**models) -> dict[str, str | None]:
    """What each model says of itself."""
    return {
        f"{name}_{key}": value
        for name, model in models.items()
        if model is not None
        for key, value in model.identity().items()
    }


def describe(result: dict, name: str) -> str:
    """A line for each way to search, best nDCG@10 first, and what it gains over the model `name`; then the kinds."""
    names = {"random": "chance", "path": "path and name", "bm25": "BM25", "base": "its base"}
    names["hybrid"] = f"{name} + BM25"
    systems = {name: result} | {names[system]: result[system] for system in result["changes"]}
    gains = {names[system]: change["ndcg@10"] for system, change in result["changes"].items()}
    rows = [("", *SHOWN, "nDCG@10 against the model", "verdict")]
    for system in sorted(systems, key=lambda system: -systems[system]["metrics"]["ndcg@10"]):
        rows.append((system, *(number(systems[system]["metrics"][metric]) for metric in SHOWN)))
        if gain := gains.get(system):
            low, high = (number(end, sign=True) for end in gain["interval"])
            rows[-1] += (f"{number(gain['value'], sign=True)} [{low}, {high}]", told("ndcg@10", gain))
    for kind, of_kind in result["by_category"].items():
        rows.append((f"{kind}, n = {of_kind['n']}", *(number(of_kind["metrics"][metric]) for metric in OF_A_KIND)))
    widths = [max(len(row[i]) for row in rows if i < len(row)) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(widths[i]) for i, cell in enumerate(row)).rstrip() for row in rows]
    low, high = (number(end) for end in result["intervals"]["ndcg@10"])
    said = f"{result['n']:,} queries against {result['candidates']:,} candidates · nDCG@10 of the model [{low}, {high}]"
    if result["verbatim"]:
        said += f" · word for word in their code: {result['verbatim']}"
    return "\n".join([said, *lines])


def _as_markdown(tables: list[str], worst: list[dict]) -> str:
    parts = ["# Retrieval", *map(fenced, tables), f"## The {len(worst)} worst queries"]
    for row in worst:
        parts.append(f"### {row['prompt']}\n\n{row['cause']}\n\n{fenced(row['check'])}\n\n{fenced(row['answer'])}")
    return "\n\n".join(parts) + "\n"
