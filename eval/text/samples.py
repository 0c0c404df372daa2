"""Answers to read: the first of each label, or simply the first, as Markdown."""

from __future__ import annotations

from common.markdown import fenced


def answers_as_markdown(tasks: list[dict], results: list[dict], *, count: int = 6) -> str:
    """Markdown: the first task of each right answer that occurs several times, with the model's answer."""
    rows = {row["id"]: row for row in results}
    first: dict[str, dict] = {}
    for task in tasks:
        first.setdefault(task["references"][0] if task["labels"] else task["id"], task)
    parts = ["# Samples\n\nHeld-out tasks, and the tuned model's greedy answers."]
    for task in list(first.values())[:count]:
        row = rows[task["id"]]
        likely = f"\n\nmost likely label: {row['chosen']}" if "chosen" in row else ""
        parts.append(
            f"## {task['id']} ({row.get('cause', row['status'])})\n\n{fenced(task['messages'][-1]['content'])}\n\n"
            f"answer\n\n{fenced(row['answer'])}\n\nright\n\n{fenced(' | '.join(task['references']))}{likely}"
        )
    return "\n\n".join(parts) + "\n"
