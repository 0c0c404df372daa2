"""How well queries find their code: MRR, nDCG, Recall and MAP over all candidates, next to simpler systems.

    query ─ encode ─┐
                    ├─ scores [N] ─ ranks of the relevant codes ─ metrics    all candidates are ranked, none sampled
    code ── encode ─┘

Compared with the model: BM25 over the code, BM25 over path and name only, random ranking, model and BM25 together, what
search.py makes of these, and the model that it was tuned from. Where the candidates have a path, a file counts as found
at the rank of its best candidate among those of the other files. eval/retrieval/files.py reads the data,
eval/retrieval/metrics.py has the metrics.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from common.console import UserError, progress
from data.search.bm25 import BM25, words
from data.search.find import DEPTH
from data.search.find import candidates as searched
from data.search.index import searched_text
from data.search.nearest import best as nearest
from data.search.ranking import CHOSEN, NONE, Places, Weights, order, telling_words
from eval.compare import compare_runs
from eval.environment import environment
from eval.retrieval.files import graded_codes, kind_of, relevance
from eval.retrieval.metrics import CUT, FILE_METRICS, METRICS, best_of_files, first, ranks_of
from eval.stats import summarise

TOGETHER: dict[str, Weights] = {"hybrid": NONE, "search": CHOSEN}  # meaning and words alone, and by search.py's rules
LISTED = 50  # results of these
BY_KIND = ("mrr@10", "ndcg@10", "recall@10")  # the metrics given for each kind of query


def evaluate_retrieval(
    encoder,
    queries: list[dict],
    candidates: list[dict],
    passages: np.ndarray | None = None,
    *,
    base=None,
    seed: int = 0,
) -> dict:
    """Rank all candidates for each query, by the encoder and by the systems it is compared with.

    encoder     has `encode(texts, kind="query" | "passage")` -> [N, D] of unit length, and `identity()`
    queries     text–code pairs; "code_id" names the relevant candidates: an id, a list, or {id: grade}
    candidates  {"id", "code", ...}
    passages    the candidates' vectors [N, D], if already computed
    base        another encoder, such as the one before tuning
    seed        of the random ranking
    Returns an eval result: "metrics", "intervals", "by_category" (the same per kind of query), "n", "candidates",
    "values" (metric -> query id -> value), "results" (one row per query: status "pass" if a relevant candidate is among
    the first ten, "rank" of the best one, "bm25_rank", "top" ten ids), "verbatim" (number of queries that appear word
    for word in a relevant code), "sandbox" (None: nothing is executed) and "environment". The keys "random", "path" (if
    the candidates have a source), "bm25", "hybrid", "search" and "base" hold the same figures of those systems, and
    "changes" the gain of each over the encoder, paired by query, as `eval.compare` returns it. Metrics of whole files,
    "file_…", are there if the candidates have a path.
    Raises UserError for a query whose candidate is missing, for duplicate ids, and if there is nothing to evaluate.
    """
    relevant = relevance(queries, candidates)
    scorers = _scorers(encoder, queries, candidates, passages=passages, base=base, seed=seed)
    together, places = _together(queries, candidates), Places(candidates)
    have_paths = any((row.get("source") or {}).get("path") for row in candidates)
    metrics = METRICS | (FILE_METRICS if have_paths else {})
    values = {system: {metric: {} for metric in metrics} for system in (*scorers, *TOGETHER)}
    results = []
    for i, query in enumerate(progress(queries, what="ranking", unit="query")):
        scores = {system: scorer(i) for system, scorer in scorers.items()}
        scores |= together(i, scores["encoder"], places)
        ranks = {system: ranks_of(of_all, *relevant[i]) for system, of_all in scores.items()}
        best = {system: int(of_relevant[0]) for system, (of_relevant, _) in ranks.items()}
        for system, of_all in scores.items():
            of_files = ranks_of(*best_of_files(of_all, places.file, *relevant[i])) if have_paths else ()
            for metric, function in metrics.items():
                found = of_files if metric in FILE_METRICS else ranks[system]
                values[system][metric][query["id"]] = function(*found)
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


def _together(queries: list[dict], candidates: list[dict]) -> Callable[[int, np.ndarray, Places], dict]:
    """The scores [N] of the systems of TOGETHER, from the number of a query and its cosines [N]; 0 beyond LISTED."""
    bm25 = BM25([searched_text(row) for row in candidates])

    def scores_of(i: int, cosines: np.ndarray, places: Places) -> dict[str, np.ndarray]:
        query = queries[i]["query"]
        words = bm25.scores(telling_words(query))
        rows = searched(query, places, nearest(cosines, min(DEPTH, len(cosines))), words)
        found = {}
        for system, weights in TOGETHER.items():
            listed, scores = order(query, places, rows, cosines[rows], words[rows], LISTED, weights)
            found[system] = np.zeros(len(cosines))
            found[system][listed] = 1 + scores
        return found

    return scores_of


def _scorers(
    encoder, queries: list[dict], candidates: list[dict], *, passages: np.ndarray | None, base, seed: int
) -> dict[str, Callable[[int], np.ndarray]]:
    """The other systems, each a function from the number of a query to the scores of all candidates [N]."""
    codes, texts = [row["code"] for row in candidates], [row["query"] for row in queries]

    def dense(model, passages=None):
        if passages is None:
            passages = _vectors(model, codes, "passage")  # [N, D]
        vectors = _vectors(model, texts, "query")  # [Q, D]
        # Dot products of equal vectors differ by about 1e-7, depending on their memory layout; equal texts must tie.
        return lambda i: np.round(passages @ vectors[i], 6)

    def lexical(documents):
        bm25 = BM25(documents)
        return lambda i: bm25.scores(texts[i])

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
        raise UserError(f"the model returns non-finite vectors for some {kind} texts: its weights have diverged")
    return vectors


def _summary(values: Mapping[str, Mapping], queries: list[dict]) -> dict:
    """Means and their intervals, over all queries and per kind of query."""
    kinds: dict[str, list] = {}
    for query in queries:
        if kind := kind_of(query):
            kinds.setdefault(kind, []).append(query["id"])
    of_kinds = {
        kind: {"n": len(ids)} | summarise({metric: {i: values[metric][i] for i in ids} for metric in BY_KIND})
        for kind, ids in sorted(kinds.items())
    }
    return {**summarise(values), "by_category": of_kinds, "values": values}


def _verbatim(queries: list[dict], candidates: list[dict]) -> int:
    """The number of queries whose words appear, in order, in one of their codes."""
    code_of = {row["id"]: row["code"] for row in candidates}

    def normalised(text: str) -> str:
        return f" {' '.join(words(text))} "

    return sum(
        any(normalised(query["query"]) in normalised(code_of[i]) for i in graded_codes(query)) for query in queries
    )


def _described(**models) -> dict[str, str | None]:
    """The `identity()` of each model, flat: NAME_KEY -> value."""
    return {
        f"{name}_{key}": value
        for name, model in models.items()
        if model is not None
        for key, value in model.identity().items()
    }
