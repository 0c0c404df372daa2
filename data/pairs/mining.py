"""The consistency filter and hard negatives of text–code pairs.

    scores of all codes for one query     0.91 own   0.89   0.84   0.80   0.62   …
                                                      └ over 95 % of the own: may be right, too; skipped
                                                             └─────── hard negatives from here on

Both use the codes of training files only: test codes are never negatives.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np

from common.console import progress
from data.hard_negatives import MARGIN, Rules
from data.search.bm25 import BM25

TOP = 2  # rank that a pair's own code must reach: Nomic Embed (arXiv:2402.01613), CoRNStack (arXiv:2412.01007)


class Scorer(Protocol):
    """Scores how well each of its codes answers a query; larger is better."""

    def scores(self, query: str) -> np.ndarray:
        """[N]."""


class Dense:
    """Cosine similarity by an encoder."""

    def __init__(self, encoder, codes: Sequence[str]) -> None:
        """`encoder` has `encode(texts, kind="query" | "passage")` -> [N, D] of unit length."""
        self.encoder = encoder
        self.passages = np.asarray(encoder.encode(list(codes), kind="passage"))  # [N, D]

    def scores(self, query: str) -> np.ndarray:
        """[N]; rounded, as equal vectors' products differ in the last digits."""
        (asked,) = np.asarray(self.encoder.encode([query], kind="query"))
        return np.round(self.passages @ asked, 6)


def scorers(codes: Sequence[str], encoder=None) -> list[Scorer]:
    """The encoder, if there is one, then BM25; the first is the judge."""
    return [*([Dense(encoder, codes)] if encoder is not None else []), BM25(codes)]


def consistent(pairs: list[dict], pool: list[dict], scorer: Scorer, top: int = TOP) -> tuple[list[dict], list[dict]]:
    """The pairs whose code ranks in the `top` of the pool for its own query, and the others as rejects.

    pool  candidates, including each pair's own code; only those of its kind compete, as a file that contains the
          function is not wrong; ties count against the pair
    """
    column = {candidate["id"]: i for i, candidate in enumerate(pool)}
    kinds = np.array([candidate["kind"] for candidate in pool])
    kept, rejects = [], []
    for pair in progress(pairs, what="consistency", unit="pair"):
        scores = scorer.scores(pair["query"])
        rank = int((scores >= scores[column[pair["code_id"]]])[kinds == pair["kind"]].sum())
        if rank <= top:
            kept.append(pair)
        else:
            detail = f"rank {rank} for {pair['query']!r}"
            rejects.append({"id": pair["code_id"], "reason": f"not in the top {top} for its query", "detail": detail})
    return kept, rejects


def with_negatives(pairs: list[dict], pool: list[dict], ranked_by: Sequence[Scorer], count: int) -> list[dict]:
    """The pairs with up to `count` hard negatives each: their texts in "negatives", their ids in "negative_ids".

    ranked_by  scorers of the pool's codes, which propose their best in turn; the first decides which are too close to
               the own code (MARGIN)
    Codes that `Rules` forbids, or that their scorer gives 0, are never negatives.
    """
    column = {candidate["id"]: i for i, candidate in enumerate(pool)}
    rules, everyone = Rules(pool), np.arange(len(pool))
    done = []
    for pair in progress(pairs, what="hard negatives", unit="pair"):
        own = column[pair["code_id"]]
        allowed = ~rules.forbid(np.array([own]), everyone)[0]
        found = _hardest(own, allowed, [scorer.scores(pair["query"]) for scorer in ranked_by], count)
        chosen = [pool[i] for i in found]
        codes, ids = [one["code"] for one in chosen], [one["id"] for one in chosen]
        done.append(pair | {"negatives": codes, "negative_ids": ids})
    return done


def _hardest(own: int, allowed: np.ndarray, scores: list[np.ndarray], count: int) -> list[int]:
    """Indices of the best allowed codes below the margin, from each scorer's order in turn."""
    judge = scores[0]
    allowed = allowed & (judge < MARGIN * judge[own])
    orders = [_descending(one, allowed & (one > 0)) for one in scores]
    found: dict[int, None] = {}
    while len(found) < count and orders:
        for order in list(orders):
            following = next((i for i in order if i not in found), None)
            if following is None:
                orders.remove(order)
            elif len(found) < count:
                found[following] = None
    return list(found)


def _descending(scores: np.ndarray, allowed: np.ndarray) -> Iterator[int]:
    order = np.argsort(-scores, kind="stable")
    return iter(order[allowed[order]].tolist())
