"""Few-shot: solved training rows as earlier turns of a conversation, the same before each question (arXiv:2005.14165).

user  How far is Denver?          ┐
assistant  number                 ┘ a shot
user  Who was Galileo?              the question
"""

from __future__ import annotations

from collections import Counter

from common.console import UserError
from common.shuffle import seeded_order
from eval.text.tasks import read_training_tasks


def choose_shots(rows: list[dict], count: int, *, where: str, seed: int = 0) -> list[dict]:
    """`count` of the training rows, drawn by the seed; where rows have labels, the labels take turns.

    UserError if there are fewer rows.
    """
    if len(rows) < count:
        raise UserError(f"{where}: {len(rows)} training rows, too few for --shots {count}")
    tasks = read_training_tasks(rows, where=where)
    turns: Counter[str | None] = Counter()
    drawn = []
    for number in map(int, seeded_order([str(number) for number in range(len(rows))], seed)):
        label = tasks[number]["references"][0] if tasks[number]["labels"] else None
        drawn.append((turns[label], rows[number]))
        turns[label] += 1
    return [row for _, row in sorted(drawn, key=lambda one: one[0])[:count]]


def with_shots(tasks: list[dict], shots: list[dict]) -> list[dict]:
    """Tasks whose questions are asked after the shots, which are tasks as well; a system message stays first."""
    turns = [
        turn
        for shot in shots
        for turn in (shot["messages"][-1], {"role": "assistant", "content": shot["references"][0]})
    ]
    asked = []
    for task in tasks:
        system = [message for message in task["messages"][:1] if message["role"] == "system"]
        asked.append(task | {"messages": [*system, *turns, *task["messages"][len(system) :]]})
    return asked
