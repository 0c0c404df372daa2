"""Hard negatives: codes that are wrong for a query but score close to the right one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from data.likeness.groups import groups_of_codes

MARGIN = 0.95  # of the own code's score; above it a code may be right, too (NV-Retriever, arXiv:2407.15831)


class Rules:
    """Which codes of a pool must not be a negative for which others."""

    def __init__(self, pool: Sequence[dict]) -> None:
        """pool: units, {"kind", "code", "source": {"qualname"}}; kind and source may be missing."""
        self.kinds = _numbers([unit.get("kind") or "" for unit in pool])  # [N]
        qualnames = [(unit.get("source") or {}).get("qualname") or "" for unit in pool]
        self.names = _numbers(["", *(name.rpartition(".")[2] for name in qualnames)])[1:]  # [N], 0: has none
        self.groups = groups_of_codes([unit["code"] for unit in pool])  # [N]

    def forbid(self, own: np.ndarray, others: np.ndarray) -> np.ndarray:
        """[Q, n] bool for indices of the right codes [Q] and of others [n].

        True for a code of another kind (a file contains its functions), one alike to the right code, and a function of
        the same name (another class's or variant's answers the query, too).
        """
        same_kind = self.kinds[own][:, None] == self.kinds[others]  # [Q, n]
        same_name = (self.names[own][:, None] == self.names[others]) & (self.names[others] > 0)
        alike = self.groups[own][:, None] == self.groups[others]
        return ~same_kind | same_name | alike


def _numbers(values: list[str]) -> np.ndarray:
    """[N] int64: equal numbers for equal values, numbered from 0 by first occurrence."""
    first: dict[str, int] = {}
    return np.array([first.setdefault(value, len(first)) for value in values], dtype=np.int64)


def hardest(
    encoder,
    queries: Sequence[str],
    own: np.ndarray,
    codes: Sequence[str],
    rules: Rules,
    count: int,
    *,
    chunk: int = 1024,
) -> list[list[int]]:
    """Indices of up to `count` hard negatives for each query, hardest first, by an encoder in its current state.

    encoder  has `encode(texts, kind="query" | "passage")` -> [N, D] of unit length
    own      [Q] index of each query's right code
    codes    [N], as many as you like: they are encoded `chunk` at a time, and only the best so far are kept
    None scores MARGIN of the right code or more, none is forbidden by the rules.
    """
    # queries, right codes, and the score above which a code may be right, too
    asked = np.asarray(encoder.encode(list(queries), kind="query"))  # [Q, D]
    right = np.unique(own)
    vectors = np.asarray(encoder.encode([codes[i] for i in right], kind="passage"))  # [R, D]
    limit = MARGIN * (asked * vectors[np.searchsorted(right, own)]).sum(axis=1)  # [Q]

    best = np.zeros((len(queries), 0), np.float32)  # [Q, <= count] scores so far, the highest first
    found = np.zeros((len(queries), 0), np.int64)  # [Q, <= count] their codes
    for start in range(0, len(codes), chunk):
        # vectors of the next n codes; those of right codes are known
        some = np.arange(start, min(len(codes), start + chunk))
        known = np.isin(some, right)
        passages = np.empty((len(some), vectors.shape[1]), dtype=np.float32)
        passages[known] = vectors[np.searchsorted(right, some[known])]
        if not known.all():
            passages[~known] = encoder.encode([codes[i] for i in some[~known]], kind="passage")

        # rounded, so that equal codes tie on every machine
        scores = np.round(asked @ passages.T, 6)  # [Q, n]
        scores[(scores >= limit[:, None]) | (scores <= 0) | rules.forbid(own, some)] = -np.inf

        # the best of these and of the earlier ones; a stable sort prefers the earlier of equals
        best = np.concatenate([best, scores], axis=1)
        found = np.concatenate([found, np.broadcast_to(some, scores.shape)], axis=1)
        order = np.argsort(-best, axis=1, kind="stable")[:, :count]
        best = np.take_along_axis(best, order, axis=1)
        found = np.take_along_axis(found, order, axis=1)
    return [ids[scores > -np.inf].tolist() for ids, scores in zip(found, best, strict=True)]
