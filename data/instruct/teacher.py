"""A teacher: a language model that answers tasks in place of the repository, on a server or on this machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from data.instruct.replies import Reply


@dataclass
class Spent:
    """What this run has used."""

    requests: int = 0
    cached: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    failed: int = 0  # requests given up
    missing: int = 0  # requests that the budget did not allow


class Teacher(Protocol):
    """What a builder of pairs needs of a teacher.

    ServerTeacher (data/instruct/server_teacher.py) asks an OpenAI-compatible server, LocalModel
    (data/instruct/local_model.py) generates here. Both cache every reply, so an interrupted run resumes.
    """

    model: str
    spent: Spent

    def ask(self, conversations: list[list[dict]], *, samples: int) -> list[list[Reply | None]]:
        """`samples` replies to each conversation; None for what failed or what the budget did not allow."""

    def summary(self) -> str:
        """One line: what was asked, and what it cost."""
