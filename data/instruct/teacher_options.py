"""Options of a command that may ask a teacher, and the teacher that they name."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path

from common.console import UserError
from common.options import option
from data.instruct.completions import KEY_VARIABLES
from data.instruct.local_model import LocalModel
from data.instruct.server_teacher import Limits, ServerTeacher
from data.instruct.teacher import Teacher

TEACHER = (
    "the teacher: a model on this machine, or on an OpenAI-compatible server "
    f"(whose key is read from {' or '.join(KEY_VARIABLES)})"
)


@dataclass(frozen=True, kw_only=True)
class TeacherOptions:
    """The model, where it runs, and what may be spent on it."""

    teacher: str | None = option(
        None, "folder, .gguf file, hub id or embedded default; or a server's address, such as http://localhost:8000",
        TEACHER, metavar="MODEL",
    )  # fmt: skip
    teacher_model: str | None = option(None, "of a server: the model's name there", TEACHER, metavar="NAME")
    teacher_candidates: int = option(4, "answers per task", TEACHER)
    teacher_concurrency: int = option(8, "of a server: simultaneous requests", TEACHER)
    teacher_seconds: float = option(300.0, "of a server: time limit of an answer, in seconds", TEACHER)
    teacher_max_tokens: int = option(1024, "tokens of an answer at most, including reasoning", TEACHER)
    teacher_requests: int | None = option(
        None, "requests at most, including a server's retries (default: no limit)", TEACHER
    )
    teacher_tokens: int | None = option(None, "tokens at most, prompts and answers (default: no limit)", TEACHER)
    teacher_prices: tuple[float, float] | None = option(
        None, "of a server: prices of a million tokens, to show the cost", TEACHER, metavar=("IN", "OUT")
    )
    teacher_cache: Path | None = option(
        None, "file that caches the answers (default: teacher.sqlite in --out)", TEACHER, metavar="FILE"
    )


def teacher_of(options: TeacherOptions, folder: Path) -> Teacher | None:
    """The teacher that the options name, if any, with its cache in `folder`. UserError for inconsistent options."""
    if options.teacher is None:
        return None
    counts = options.teacher_candidates, options.teacher_concurrency, options.teacher_max_tokens
    if min(counts) < 1 or not 0 < options.teacher_seconds < threading.TIMEOUT_MAX:
        raise UserError("--teacher-candidates, -concurrency, -max-tokens and -seconds take numbers above 0")
    cache = options.teacher_cache or folder / "teacher.sqlite"
    if "://" in options.teacher:
        return _on_server(options, cache)
    if options.teacher_model or options.teacher_prices:
        raise UserError(f"{options.teacher}: --teacher-model and --teacher-prices go with a server's address")
    return LocalModel.load(
        options.teacher,
        cache=cache,
        max_tokens=options.teacher_max_tokens,
        most_requests=options.teacher_requests,
        most_tokens=options.teacher_tokens,
    )


def _on_server(options: TeacherOptions, cache: Path) -> ServerTeacher:
    if not options.teacher_model:
        raise UserError("a server as the teacher needs --teacher-model NAME: what it calls the model")
    assert options.teacher is not None
    return ServerTeacher(
        options.teacher,
        options.teacher_model,
        cache=cache,
        concurrency=options.teacher_concurrency,
        max_tokens=options.teacher_max_tokens,
        prices=options.teacher_prices,
        limits=Limits(
            answer_seconds=options.teacher_seconds,
            most_requests=options.teacher_requests,
            most_tokens=options.teacher_tokens,
        ),
    )
