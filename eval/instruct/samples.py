"""Answers to read: one of each category, as Markdown."""

from __future__ import annotations

from common.markdown import fenced
from eval.instruct.grade import GREEDY


def answers_as_markdown(tasks: list[dict], results: list[dict], *, count: int = 6) -> str:
    """Markdown: one task of each category with its greedy answer."""
    # the first task of each category
    greedy = {row["id"]: row for row in results if row["sample"] == GREEDY}
    first: dict[str, dict] = {}
    for pair in tasks:
        first.setdefault(pair["category"], pair)

    # its instruction and input, then the answer
    parts = ["# Samples\n\nOne held-out task of each category, and the tuned model's greedy answer."]
    for pair in list(first.values())[:count]:
        row = greedy[pair["id"]]
        parts.append(
            f"## {pair['category']}: {pair['id']} ({row['status']})\n\n{pair['instruction']}\n\n"
            f"{fenced(pair['input'])}\n\nanswer\n\n{fenced(row['output'])}"
        )
    return "\n\n".join(parts) + "\n"
