"""What a step of embedding training sees: its pairs, their hard negatives, and which codes are nobody's negative.

           own codes   hard negatives
           1  2  3     1  1  3         For each query all codes are negatives but its own (✓) and equally good ones
query 1    ✓  ·  ·     ·  ·  ·         (■): here pairs 2 and 3 have equal queries or nearly equal codes, and a hard
query 2    ·  ✓  ■     ·  ·  ·         negative of pair 1 is a renamed copy of code 3.
query 3    ·  ■  ✓     ■  ·  ·
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from data.hard_negatives import Rules, hardest
from data.likeness.groups import groups_of_queries

STRATUM = 4  # pairs that a batch takes from the same range of lengths


@dataclass(frozen=True)
class PairBatch:
    """The texts of a step as token ids, B pairs and their hard negatives."""

    queries: list[list[int]]  # B
    documents: list[list[int]]  # M >= B: each query's own code, in order, then the hard negatives
    same: torch.Tensor  # [B, M] bool: answers the query as well as its own code
    teacher: torch.Tensor  # [B, M] fp32: a stronger model's scores of own codes and hard negatives, else -inf

    @property
    def tokens(self) -> int:
        """Tokens of all its texts."""
        return sum(map(len, self.queries)) + sum(map(len, self.documents))


class PairTable:
    """Training pairs, each distinct text tokenized once; makes batches of them."""

    def __init__(self, pairs: list[dict], encoder, *, negatives: int, pool: Sequence[dict] = ()) -> None:
        """Numbers all codes: the pairs' own, the first `negatives` hard negatives of each, and the pool's.

        pairs    {"query", "code"}, optionally "negatives": codes; "scores": a stronger model's, of the code and each
                 negative; "kind"
        encoder  has `tokenize(texts, kind)` and, for mining, `encode(texts, kind)`
        pool     further units to mine negatives from
        """
        self.encoder, self.count = encoder, negatives

        # P queries; those of one group ask for the same
        self.texts = [pair["query"] for pair in pairs]
        self.queries = encoder.tokenize(self.texts, kind="query")
        self.query_groups = groups_of_queries(self.texts)  # [P]
        self.scores = [(pair.get("scores") or [])[: 1 + negatives] for pair in pairs]

        # codes are numbered by first occurrence, equal texts only once
        numbers: dict[str, int] = {}
        units: list[dict] = []

        def number(unit: dict) -> int:
            if unit["code"] not in numbers:
                numbers[unit["code"]] = len(units)
                units.append(unit)
            return numbers[unit["code"]]

        # the codes that are trained on: tokenized now
        self.own = np.array([number(pair) for pair in pairs])  # [P]
        self.negatives = [
            [number({"kind": pair.get("kind"), "code": code}) for code in (pair.get("negatives") or [])[:negatives]]
            for pair in pairs
        ]
        self.documents = dict(enumerate(encoder.tokenize(list(numbers), kind="passage")))  # number -> token ids

        # the pool's: tokenized when one is mined
        for unit in pool:
            number(unit)
        self.codes, self.rules = list(numbers), Rules(units)

    def lengths(self) -> list[int]:
        """Tokens of each pair with its hard negatives."""
        return [
            len(query) + sum(len(self.documents[n]) for n in (own, *negatives))
            for query, own, negatives in zip(self.queries, self.own, self.negatives, strict=True)
        ]

    def largest(self, plan: list[tuple[int, list[int]]]) -> PairBatch:
        """The batch of a plan (see `plan_batches`) with the most tokens."""
        lengths = self.lengths()
        return self.batch(max((chosen for _, chosen in plan), key=lambda chosen: sum(lengths[i] for i in chosen)))

    def mine(self) -> list[list[int]]:
        """For each pair the numbers of its hard negatives, by the encoder in its current state."""
        return hardest(self.encoder, self.texts, self.own, self.codes, self.rules, self.count)

    def use(self, negatives: list[list[int]]) -> None:
        """Replace the hard negatives by these numbers, as `mine` returns them."""
        # codes that have not been tokenized yet
        self.negatives = negatives
        new = sorted({n for numbers in negatives for n in numbers} - self.documents.keys())
        rows = self.encoder.tokenize([self.codes[n] for n in new], kind="passage")
        self.documents |= zip(new, rows, strict=True)

    def batch(self, chosen: list[int]) -> PairBatch:
        """The batch of the pairs at these indices, with their hard negatives."""
        # columns: the B own codes, then all hard negatives as (row of their pair, number)
        hard = [(row, n) for row, i in enumerate(chosen) for n in self.negatives[i]]
        documents = np.array([*self.own[chosen], *(n for _, n in hard)])  # [M]

        # not a negative: a code like the own one, and the own code of a query that asks for the same
        groups = self.rules.groups
        same = groups[self.own[chosen]][:, None] == groups[documents]  # [B, M]
        asked = self.query_groups[chosen]
        same[:, : len(chosen)] |= asked[:, None] == asked

        # the teacher scored each query's own code and its hard negatives; -inf elsewhere
        teacher = torch.full(same.shape, -math.inf)
        columns = [[row] for row in range(len(chosen))]
        for column, (row, _) in enumerate(hard, len(chosen)):
            columns[row].append(column)
        for row, i in enumerate(chosen):
            if self.scores[i]:
                teacher[row, columns[row]] = torch.tensor(self.scores[i], dtype=torch.float32)
        return PairBatch(
            [self.queries[i] for i in chosen], [self.documents[n] for n in documents], torch.from_numpy(same), teacher
        )


def plan_batches(lengths: list[int], *, pairs_per_step: int, epochs: float, seed: int) -> list[tuple[int, list[int]]]:
    """(epoch, pairs) of each optimiser step: random steps of equal size and nearly equal cost.

        lengths, sorted      ▁▁▁▁▂▂▂▂▃▃▃▃▅▅▅▅▇▇▇▇         each step draws equally from every range of lengths, so that
        two steps            ▁▁▂▂▃▃▅▅▇▇ and ▁▁▂▂▃▃▅▅▇▇    no step costs four times as much as another

    Grouping texts of equal length would save nothing, as there is no padding, and length would give negatives away.
    Each epoch visits every pair once; its steps depend on (seed, epoch) alone, so a resumed run needs only the step
    number. A step of a single pair has no negatives and is left out.
    """
    plan = []
    for epoch in range(math.ceil(epochs)):
        rng = random.Random(f"{seed}/{epoch}")
        visited = list(range(len(lengths)))
        # the pairs that this epoch visits, by length; ties in random order
        rng.shuffle(visited)
        visited = visited[: round(len(lengths) * min(1.0, epochs - epoch))]
        visited.sort(key=lambda i: lengths[i])
        steps = math.ceil(len(visited) / pairs_per_step)

        # dealt like cards: STRATUM pairs a step from every range of lengths, in random order within the range
        dealt: list[int] = []
        for start in range(0, len(visited), STRATUM * max(1, steps)):
            stratum = visited[start : start + STRATUM * steps]
            dealt += rng.sample(stratum, len(stratum))

        # every steps-th card is the same step's
        for batch in (dealt[step::steps] for step in range(steps)):
            rng.shuffle(batch)  # ranks take slices of it, which should be balanced, too
            if len(batch) > 1:
                plan.append((epoch, batch))
    return plan
