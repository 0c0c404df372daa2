"""Options of a command that may ask a teacher, and the teacher that they name."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path

from common.console import UserError
from common.options import option
from data.instruct.completions import KEY_VARIABLES
from data.instruct.teacher import Limits, Teacher

TEACHER = f"the teacher: a model on an OpenAI-compatible server, key from {' or '.join(KEY_VARIABLES)}"


@dataclass(frozen=True, kw_only=True)
class TeacherOptions:
    """The server, the model, and what may be spent on it."""

    teacher: str | None = option(None, "address of the server, such as http://localhost:8000", TEACHER, metavar="URL")
    teacher_model: str | None = option(None, "name of the model on that server", TEACHER, metavar="NAME")
    teacher_candidates: int = option(4, "answers per task", TEACHER)
    teacher_concurrency: int = option(8, "simultaneous requests", TEACHER)
    teacher_seconds: float = option(300.0, "time limit of an answer, in seconds", TEACHER)
    teacher_max_tokens: int = option(1024, "tokens of an answer at most, including reasoning", TEACHER)
    teacher_requests: int | None = option(None, "requests at most, including retries (default: no limit)", TEACHER)
    teacher_tokens: int | None = option(None, "tokens at most, prompts and answers (default: no limit)", TEACHER)
    teacher_prices: tuple[float, float] | None = option(
        None, "prices of a million tokens, to show the cost", TEACHER, metavar=("IN", "OUT")
    )
    teacher_cache: Path | None = option(
        None, "file that caches the answers (default: teacher.sqlite in --out)", TEACHER, metavar="FILE"
    )


def teacher_of(options: TeacherOptions, folder: Path) -> Teacher | None:
    """The teacher that the options name, if any, with its cache in `folder`. UserError for inconsistent options."""
    if options.teacher is None:
        return None
    if not options.teacher_model:
        raise UserError("--teacher needs --teacher-model NAME: what the server calls the model")
    counts = options.teacher_candidates, options.teacher_concurrency, options.teacher_max_tokens
    if min(counts) < 1 or not 0 < options.teacher_seconds < threading.TIMEOUT_MAX:
        raise UserError("--teacher-candidates, -concurrency, -max-tokens and -seconds take numbers above 0")
    return Teacher(
        options.teacher,
        options.teacher_model,
        cache=options.teacher_cache or folder / "teacher.sqlite",
        concurrency=options.teacher_concurrency,
        max_tokens=options.teacher_max_tokens,
        limits=Limits(
            answer_seconds=options.teacher_seconds,
            most_requests=options.teacher_requests,
            most_tokens=options.teacher_tokens,
        ),
    )
