"""A sample of failed answers to instruction pairs, each with its cause, to read."""

from __future__ import annotations

import random

from data.rows import training_conversation
from eval.causes import cause_of_pair
from eval.instruct import GREEDY
from eval.nearest_training_example import with_nearest


def failures(
    pairs: list[dict], results: list[dict], *, count: int = 15, seed: int = 0, train: list[dict] | None = None
) -> list[dict]:
    """Up to `count` failed greedy answers to read: categories take turns, at random within each.

    results  the rows of a `grade_answers` result
    train    the training rows, in any form that train_sft.py takes
    Returns rows {"id", "category", "prompt", "answer", "cause", "check"}; "check" is the grading's finding. With
    `train` also "nearest": {"id", "prompt", "answer", "score"}, the most similar training pair by BM25, of the same
    category if it has any.
    """
    by_id = {pair["id"]: pair for pair in pairs}
    failed = [row for row in results if row["sample"] == GREEDY and not (row["status"] == "pass" or _is_unproven(row))]
    random.Random(seed).shuffle(failed)
    turns: dict[str, int] = {}
    order = []
    for row in failed:
        turns[row["category"]] = turns.get(row["category"], 0) + 1
        order.append((turns[row["category"]], len(order), row))
    chosen = [row for _, _, row in sorted(order, key=lambda one: one[:2])[:count]]
    examples = [_example(row, number) for number, row in enumerate(train or [], 1)]
    return with_nearest([_shown(by_id[row["id"]], row) for row in chosen], examples)


def _example(row: dict, number: int) -> dict:
    """A training row of any form as an example of eval/nearest_training_example.py."""
    *asked, answer = [turn["content"] for turn in training_conversation(row).messages]
    return {
        "id": row.get("id", f"line {number}"),
        "category": row.get("category"),
        "prompt": "\n\n".join(asked),
        "answer": answer,
    }


def _is_unproven(row: dict) -> bool:
    """Right in form but not executable: not a demonstrable failure."""
    return row["status"] == "not executed" and row["lenient"]


def _shown(pair: dict, row: dict) -> dict:
    check = row["detail"]
    if "expected" in row:
        check = f"{check}\nexpected: {row['expected']}\ngot: {row['got'] or 'nothing'}"
    if row["hallucinated"]:
        check = f"{check}\nnames that do not exist: {', '.join(row['hallucinated'])}".strip()
    return {
        "id": row["id"],
        "category": row["category"],
        "prompt": f"{pair['instruction']}\n\n{pair['input']}",
        "answer": row["output"],
        "cause": cause_of_pair(pair, row),
        "check": check,
    }
