"""What an answer was read as: the result of the readers of data/instruct/answers.py."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Reading:
    """What was read from an answer.

    code     the code that it stands for, put in its place; None where there is none (or the answer is prose)
    problem  what is wrong with its form, or None: this is the lenient verdict
    status   "extraction", "syntax" or "wrong" where there is a problem, else None
    """

    code: str | None
    problem: str | None = None
    status: str | None = None


def judged(code: str, problem: str | None) -> Reading:
    """The reading of code whose form has this problem."""
    if problem is None:
        return Reading(code)
    return Reading(code, problem, "syntax" if problem == "does not parse" else "wrong")
