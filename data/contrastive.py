"""What a step of embedding training sees: its pairs, their hard negatives, and which codes are nobody's negative.

           own codes   hard negatives
           1  2  3     1  1  3         All these codes are wrong for a query but its own, and those that are as
query 1    ✓  ·  ·     ·  ·  ·         good (■): pair 3 asks what pair 2 asks, or has nearly the code of pair 2,
query 2    ·  ✓  ■     ·  ·  ·         and a hard negative of pair 1 turned out to be a renamed copy of code 3.
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

STRATUM = 4  # pairs of a batch that are drawn from the same stretch of lengths


@dataclass(frozen=True)
class PairBatch:
    """The texts of a step as token ids, B pairs and their hard negatives."""

    queries: list[list[int]]  # B
    documents: list[list[int]]  # M >= B: each query's own code, in their order, then the hard negatives
    same: torch.Tensor  # [B, M] bool: as good for the query as its own code
    teacher: torch.Tensor  # [B, M] fp32: given scores of own codes and hard negatives, -inf where there is none

    @property
    def tokens(self) -> int:
        """Of all its texts."""
        return sum(map(len, self.queries)) + sum(map(len, self.documents))


class PairTable:
    """Training pairs with every text once, tokenized; makes a batch of any of them."""

    def __init__(self, pairs: list[dict], encoder, *, negatives: int, pool: Sequence[dict] = ()) -> None:
        """Numbers all codes: those of the pairs, the first `negatives` hard negatives of each, and the pool's.

        pairs    {"query", "code"}, perhaps "negatives": codes, "scores": of the code and of each of them by a stronger
                 model, and "kind"
        encoder  has `tokenize(texts, kind)` and, to mine with, `encode(texts, kind)`
        pool     units that negatives may be mined among, beside the codes that the pairs bring
        """
        self.encoder, self.count = encoder, negatives
        self.texts = [pair["query"] for pair in pairs]
        self.queries = encoder.tokenize(self.texts, kind="query")
        self.query_groups = groups_of_queries(self.texts)  # [P]
        self.scores = [(pair.get("scores") or [])[: 1 + negatives] for pair in pairs]
        numbers: dict[str, int] = {}  # code -> its number
        units: list[dict] = []

        def number(unit: dict) -> int:
            if unit["code"] not in numbers:
                numbers[unit["code"]] = len(units)
                units.append(unit)
            return numbers[unit["code"]]

        self.own = np.array([number(pair) for pair in pairs])  # [P]
        self.negatives = [
            [number({"kind": pair.get("kind"), "code": code}) for code in (pair.get("negatives") or [])[:negatives]]
            for pair in pairs
        ]
        self.documents = dict(enumerate(encoder.tokenize(list(numbers), kind="passage")))  # number -> token ids
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
        """The batch with the most tokens of a plan, as `plan_batches` makes it."""
        lengths = self.lengths()
        return self.batch(max((chosen for _, chosen in plan), key=lambda chosen: sum(lengths[i] for i in chosen)))

    def mine(self) -> list[list[int]]:
        """For each pair the numbers of the codes that are its hard negatives for the encoder as it is now."""
        return hardest(self.encoder, self.texts, self.own, self.codes, self.rules, self.count)

    def use(self, negatives: list[list[int]]) -> None:
        """From now on these are the hard negatives, by number as `mine` gives them."""
        self.negatives = negatives
        new = sorted({n for numbers in negatives for n in numbers} - self.documents.keys())
        rows = self.encoder.tokenize([self.codes[n] for n in new], kind="passage")
        self.documents |= zip(new, rows, strict=True)

    def batch(self, chosen: list[int]) -> PairBatch:
        """The pairs of these indices, each with its hard negatives."""
        hard = [(row, n) for row, i in enumerate(chosen) for n in self.negatives[i]]
        documents = np.array([*self.own[chosen], *(n for _, n in hard)])  # [M]
        groups = self.rules.groups
        same = groups[self.own[chosen]][:, None] == groups[documents]  # [B, M]
        asked = self.query_groups[chosen]
        same[:, : len(chosen)] |= asked[:, None] == asked
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
    """(epoch, pairs) of each optimiser step: steps of even cost and of even size, otherwise drawn at random.

        lengths, sorted      ▁▁▁▁▂▂▂▂▃▃▃▃▅▅▅▅▇▇▇▇         each step draws as many pairs from every stretch of lengths,
        two steps            ▁▁▂▂▃▃▅▅▇▇ and ▁▁▂▂▃▃▅▅▇▇    so that none is four times as long, or as large, as another

    Not steps of texts that are equally long: without padding they save nothing, and their negatives would be told
    apart by length. Each epoch visits every pair once; its steps depend on (seed, epoch) alone, so that a resumed run
    needs but the number of the step. A step of one pair alone has no negative and is left out.
    """
    plan = []
    for epoch in range(math.ceil(epochs)):
        rng = random.Random(f"{seed}/{epoch}")
        visited = list(range(len(lengths)))
        rng.shuffle(visited)
        visited = visited[: round(len(lengths) * min(1.0, epochs - epoch))]
        visited.sort(key=lambda i: lengths[i])
        steps = math.ceil(len(visited) / pairs_per_step)
        dealt: list[int] = []
        for start in range(0, len(visited), STRATUM * max(1, steps)):
            stratum = visited[start : start + STRATUM * steps]
            dealt += rng.sample(stratum, len(stratum))
        for batch in (dealt[step::steps] for step in range(steps)):
            rng.shuffle(batch)  # ranks take stretches of it, which are to be even too
            if len(batch) > 1:
                plan.append((epoch, batch))
    return plan
