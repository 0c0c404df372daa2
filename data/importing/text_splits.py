"""The splits of text rows: the published ones, the missing ones drawn by the seed, and no text in two of them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from common.shuffle import seeded_order
from data.corpus import SPLITS
from data.text_rows import LONG, task_of

KEPT_FIRST = ("test", "validation", "train")  # of a text in several splits, the copy in the first of them is kept


@dataclass(frozen=True)
class TextSplits:
    """Rows by split, and what happened to them."""

    rows: dict[str, list[dict]]
    drawn: list[str] = field(default_factory=list)  # splits that are not published, but drawn from the training rows
    duplicates: dict[str, int] = field(default_factory=dict)  # "train and test": rows removed from the former
    left_out: dict[str, int] = field(default_factory=dict)  # rows of a split beyond the number asked for


def split_text_rows(
    rows: dict[str, list[dict]], *, test_share: float, validation_share: float, seed: int
) -> TextSplits:
    """Published splits as they are; a missing one drawn from the training rows, as a share of these.

    Rows about the same text (the questions about a context) stay together. Duplicates between published splits are
    removed: from the training rows first, never from the test rows.
    """
    rows = {split: list(rows.get(split, ())) for split in SPLITS}
    shares = {"test": test_share, "validation": validation_share}
    drawn = [split for split, share in shares.items() if share and not rows[split] and rows["train"]]

    # groups of rows with the same text, in a seeded order: each missing split takes the next of them
    groups: dict[str, list[dict]] = {}
    for row in rows["train"]:
        groups.setdefault(_text(row), []).append(row)
    waiting = seeded_order(list(groups), seed)
    sides: dict[str, str] = {}
    for split in drawn:
        wanted = round(shares[split] * len(rows["train"]))
        while waiting and wanted > 0:
            group = groups[waiting.pop()]
            sides |= {row["id"]: split for row in group}
            wanted -= len(group)
    for split in drawn:
        rows[split] = [row for row in rows["train"] if sides.get(row["id"]) == split]
    rows["train"] = [row for row in rows["train"] if row["id"] not in sides]

    # a question that an earlier split has is no longer asked in a later one
    duplicates: Counter[str] = Counter()
    seen: dict[str, str] = {}
    for split in KEPT_FIRST:
        kept = []
        for row in rows[split]:
            if (other := seen.get(_asked(row))) is None:
                kept.append(row)
            else:
                duplicates[f"{split} and {other}"] += 1
        rows[split] = kept
        seen |= {_asked(row): split for row in kept}
    return TextSplits(rows, drawn, dict(duplicates))


def sample_rows(splits: TextSplits, counts: dict[str, int | None], *, seed: int) -> TextSplits:
    """At most so many rows of each split, drawn by the seed, in the order that they had."""
    rows, left_out = {}, {}
    for split, of_split in splits.rows.items():
        most = counts.get(split)
        chosen = set(seeded_order([row["id"] for row in of_split], seed)[:most])
        rows[split] = [row for row in of_split if row["id"] in chosen]
        if most is not None and len(of_split) > most:
            left_out[split] = len(of_split) - most
    return TextSplits(rows, splits.drawn, splits.duplicates, left_out)


def _text(row: dict) -> str:
    """The text that a row is about, apart from capitals and spaces: the context of a question, if it has one."""
    text = row.get(LONG[str(task_of(row))]) or row.get("question", "")
    return " ".join(text.lower().split())


def _asked(row: dict) -> str:
    """The text with the question about it."""
    return f"{_text(row)}\n{' '.join(row.get('question', '').lower().split())}"
