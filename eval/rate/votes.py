"""Blind votes on two sets of answers: the tasks to rate, the file of votes, and what one rater is shown."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

from common.console import UserError
from common.files import append_jsonl, resume_jsonl
from common.highlight import pieces

QUESTIONS = {
    "clarity": "Which one is clearer?",
    "readability": "Which one is easier to read?",
    "adherence": "Which one does better what was asked?",
}


@dataclass(frozen=True)
class Item:
    """One task with the answers of both sides."""

    id: str
    prompt: str
    a: str
    b: str


@dataclass
class Votes:
    """The votes, and the file that each is appended to before the page moves on.

    The first line of the file identifies the rated answers; every other line is a vote, {"id", "rater", "question",
    "choice": "A", "B", "tie" or null (withdrawn), "left", "time"}. A rater's later vote on a question replaces the
    earlier one.
    """

    path: Path
    header: dict
    rows: dict[tuple[str, str, str], dict] = field(default_factory=dict)  # (id, rater, question) -> the latest vote
    lock: Lock = field(default_factory=Lock)

    @classmethod
    def open(cls, path: Path | str, header: dict) -> Votes:
        """Read the votes in a file, or start one. UserError if the file's votes are on other answers."""
        votes = cls(Path(path), header)
        if not votes.path.exists():
            append_jsonl(votes.path, [header])
            return votes
        first, *rows = resume_jsonl(votes.path) or [{}]
        if first != header:
            raise UserError(f"{path} holds votes on other answers; give another --out, or the answers it belongs to")
        for row in rows:
            votes.rows[row["id"], row["rater"], row["question"]] = row
        return votes

    def add(self, row: dict) -> None:
        """Store one vote, on disk when this returns."""
        with self.lock:
            append_jsonl(self.path, [row])
            self.rows[row["id"], row["rater"], row["question"]] = row


def items_of(a: dict, b: dict, prompts: dict[str, str]) -> tuple[list[Item], int]:
    """The tasks that two results answer differently, and the number that they answer alike.

    a, b     results of eval.instruct or eval.code, whose greedy answers are shown
    prompts  task id -> the prompt; a task without one is shown by its id
    Raises UserError if no task is left.
    """
    answers_a, answers_b = greedy_answers(a), greedy_answers(b)
    shared = [i for i in answers_a if i in answers_b]
    items = [
        Item(i, prompts.get(i, i), answers_a[i], answers_b[i])
        for i in shared
        if answers_a[i].strip() != answers_b[i].strip()
    ]
    if not items:
        raise UserError(f"nothing to rate: the results share {len(shared)} tasks, with identical answers")
    return items, len(shared) - len(items)


def task_id(row: dict) -> str:
    """The id of a row of data or of a result."""
    return str(row.get("id", row.get("task_id")))


def greedy_answers(result: dict) -> dict[str, str]:
    """task id -> the greedy answer of a result of eval.instruct or eval.code. UserError if there is none."""
    answers: dict[str, str] = {}
    for row in result.get("results", []):
        text = row.get("output", row.get("completion"))
        if isinstance(text, str) and row.get("sample", "greedy") in ("greedy", None):
            answers.setdefault(task_id(row), text)
    if not answers:
        raise UserError("a result holds no greedy answer; give result files of eval.instruct or eval.code")
    return answers


class Session:
    """What one rater is shown: tasks in random order, sides at random, both determined by seed, rater and task."""

    def __init__(self, items: list[Item], votes: Votes, *, rater: str, seed: int = 0) -> None:
        self.votes, self.rater, self.seed = votes, rater, seed
        self.items = sorted(items, key=lambda item: self._draw("order", item.id))

    def _draw(self, what: str, i: str) -> float:
        return random.Random(f"{self.seed}/{self.rater}/{what}/{i}").random()

    def left(self, item: Item) -> str:
        """Which side, "A" or "B", is shown on the left."""
        return "A" if self._draw("side", item.id) < 0.5 else "B"

    def state(self) -> dict:
        """Progress and the first open question, for the page: nothing in it reveals which side is which.

        Texts are lists of (kind, text), as common/highlight.py returns them.
        """
        open_questions = [
            (item, question) for item in self.items for question in QUESTIONS if not self._voted(item, question)
        ]
        total = len(self.items) * len(QUESTIONS)
        state = {"done": total - len(open_questions), "total": total, "item": None}
        if open_questions:
            item, question = open_questions[0]
            left, right = (item.a, item.b) if self.left(item) == "A" else (item.b, item.a)
            state["item"] = {
                "key": self.items.index(item),
                "question": question,
                "asked": QUESTIONS[question],
                "prompt": pieces(item.prompt),
                "left": pieces(left),
                "right": pieces(right),
            }
        return state

    def _voted(self, item: Item, question: str) -> bool:
        row = self.votes.rows.get((item.id, self.rater, question))
        return row is not None and row["choice"] is not None

    def vote(self, key: int, question: str, choice: str) -> None:
        """Store one vote. choice: "left", "right" or "tie". ValueError for anything the page would not send."""
        if question not in QUESTIONS or choice not in ("left", "right", "tie") or key not in range(len(self.items)):
            raise ValueError("no such vote")
        item = self.items[key]
        left = self.left(item)
        side = {"left": left, "right": "B" if left == "A" else "A", "tie": "tie"}[choice]
        self._store(item.id, question, side, left)

    def undo(self) -> None:
        """Withdraw this rater's latest vote: a line with no choice is added to the file."""
        mine = [row for row in self.votes.rows.values() if row["rater"] == self.rater and row["choice"] is not None]
        if mine:
            last = max(mine, key=lambda row: row["time"])
            self._store(last["id"], last["question"], None, last["left"])

    def _store(self, i: str, question: str, choice: str | None, left: str) -> None:
        vote = {"id": i, "rater": self.rater, "question": question, "choice": choice, "left": left}
        self.votes.add({**vote, "time": time.time()})
