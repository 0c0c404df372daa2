"""Packing: rows of whole documents without padding; no document sees another.

row       a a a a b b c c c       lengths = [4, 2, 3]
positions 0 1 2 3 0 1 0 1 2       restart at each document
labels    · a a a · b · c c       the first of each is IGNORE (data/masking.py): the document before does not predict it
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

import torch

from data.masking import Example


@dataclass(frozen=True)
class Batch:
    """A packed row as tensors on a device."""

    input_ids: torch.Tensor  # [1, T] int64
    labels: torch.Tensor  # [1, T] int64, IGNORE where unsupervised
    lengths: list[int]  # of the documents; their sum is T


def pieces(example: Example, size: int) -> list[Example]:
    """A document cut into pieces of at most `size` tokens.

    Neighbouring pieces share one token, so that each token but the very first is predicted exactly once.
    """
    # a stride of size - 1: the last token of a piece is the first of the next, where its label is IGNORE
    ids, labels = example.input_ids, example.labels
    starts = range(0, max(1, len(ids) - 1), size - 1)
    return [Example(ids[i : i + size], labels[i : i + size]) for i in starts]


def pack(examples: list[Example], size: int) -> list[list[Example]]:
    """Rows of at most `size` tokens: first-fit decreasing, each example into the first row that has room.

    ValueError when an example is longer than a row.
    """
    rows: list[list[Example]] = []
    room: list[int] = []  # tokens left in each row
    # decreasing: the short ones come last and fill the gaps
    for example in sorted(examples, key=lambda e: -len(e.input_ids)):
        length = len(example.input_ids)
        if length > size:
            raise ValueError(f"an example of {length} tokens does not fit a row of {size}")
        # the first row with room, or a new one
        row = next((i for i, free in enumerate(room) if free >= length), None)
        if row is None:
            row = len(rows)
            rows.append([])
            room.append(size)
        rows[row].append(example)
        room[row] -= length
    return rows


def to_batch(row: list[Example], device: torch.device | str) -> Batch:
    """A packed row as tensors."""
    # the documents end to end; only `lengths` keeps them apart
    ids = [token for example in row for token in example.input_ids]
    labels = [label for example in row for label in example.labels]
    return Batch(
        torch.tensor([ids], device=device),
        torch.tensor([labels], device=device),
        [len(example.input_ids) for example in row],
    )


def in_passes(rows: list[list[Example]], micro_batch: int) -> list[list[Example]]:
    """Rows joined, `micro_batch` at a time, into single forward passes."""
    # one long row instead of a stack of padded ones: [1, T], not [micro_batch, longest]
    starts = range(0, len(rows), micro_batch)
    return [[example for row in rows[start : start + micro_batch] for example in row] for start in starts]


def plan_windows(rows: int, *, rows_per_step: int, epochs: float, seed: int) -> list[list[int]]:
    """Which rows make up the accumulation window of each optimiser step.

    Each epoch visits every row once, in an order that depends on (seed, epoch) alone: the step number determines the
    position in the data, and a resumed run needs nothing else. A window does not cross epochs; the last of an epoch may
    be smaller.
    """
    windows: list[list[int]] = []
    for epoch in range(math.ceil(epochs)):
        # a fresh generator per epoch: no state to save
        order = list(range(rows))
        random.Random(f"{seed}/{epoch}").shuffle(order)
        # 2.5 epochs: the third visits half of the rows
        visited = order[: round(rows * min(1.0, epochs - epoch))]
        windows += [visited[i : i + rows_per_step] for i in range(0, len(visited), rows_per_step)]
    return windows
