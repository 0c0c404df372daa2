"""Verdicts on answers: an answer runs in one process of the sandbox, its tests in another, which alone can report.

The tests call the answer through messages (Job.tests). Plain values are copied between the processes; anything else
that the answer returns stays in its process and is equal only to itself. So an `__eq__` that always returns True, a
walk through stack frames or a patched builtin cannot affect the verdict.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from common.files import append_jsonl, resume_jsonl
from data.checks.node import node_command
from eval.code.tasks import CodeTask
from sandbox.run import Job, Outcome, run_jobs

CHUNK = 200  # jobs run between two writes of a cache
# What counts assertions: those that hold; of those that fail, the error and the first one's call and values. Only plain
# data are shown: the representation of anything else would be made by the answer.
_PREAMBLE = """import json as _json, random
random.seed(0)  # tests that draw their inputs draw the same ones each time
_held, _failed, _sides, _first = [], [], [], ["", "", ""]
def _side(value):
    _sides.append(value)
    return value
def _fail(error, asked="", got=0):
    if asked and not _failed and len(_sides) == 2:
        _first[:] = asked, _shown(_sides[1 - got]), "" if _sides[got] is None else _shown(_sides[got])
    _failed.append(error)
def _shown(value):
    text = repr(value) if _is_plain(value) else "an object"
    return text if len(text) <= 1000 else "too long to show"
def _is_plain(value):
    if type(value) is dict:
        return all(map(_is_plain, [*value, *value.values()]))
    if type(value) in (list, tuple, set, frozenset):
        return all(map(_is_plain, value))
    return type(value) in (bool, int, float, complex, str, bytes, type(None))
def _report():
    print(_json.dumps([len(_held), len(_held) + len(_failed), *_first]))
    if _failed:
        raise _failed[0]
"""


@dataclass(frozen=True)
class Verdict:
    """The result of running one answer against its tests.

    status         "pass", "wrong", "exception", "syntax", "timeout", "memory" or "denied"
    passed, total  assertions that hold, and that were evaluated; an exception that ends the tests counts as one failure
    seconds        wall-clock time
    asked, expected, got  if the first failure compares a call with a value: the call, that value, and what the call
                   gave, as text; "" for a call that gave None
    """

    status: str
    detail: str
    passed: int
    total: int
    seconds: float
    asked: str = ""
    expected: str = ""
    got: str = ""


class _Counted(ast.NodeTransformer):
    """Rewrites tests so that every assertion is evaluated and counted; one that fails does not hide the others.

    Inside a `try`, a failure is still raised, since catching it may be part of the test.
    """

    _within_try = False

    def visit_Try(self, node):
        outer, self._within_try = self._within_try, True
        body = self.generic_visit(ast.Module(node.body, [])).body
        self._within_try = outer
        node.body = []
        self.generic_visit(node)
        node.body = body
        return node

    def visit_Assert(self, node):
        held = ast.parse("_held.append(1)").body
        if self._within_try:
            return [node, *held]
        error = f"AssertionError({ast.unparse(node)[:300]!r}) if isinstance(_error, AssertionError) else _error"
        asked, got = _compared(node.test)
        forget = ast.parse("_sides.clear()").body
        return _noting([*forget, node], f"{error}, {asked!r}, {got}", held)


def _compared(test: ast.expr) -> tuple[str, int]:
    """Of a test `CALL == VALUE`, the text of the call and its side (0 or 1); ("", 0) for any other test.

    Both sides are wrapped in `_side(…)`, which keeps their values.
    """
    if not (isinstance(test, ast.Compare) and len(test.ops) == 1 and isinstance(test.ops[0], ast.Eq)):
        return "", 0
    sides = [test.left, test.comparators[0]]
    calls = [any(isinstance(node, ast.Call) for node in ast.walk(side)) for side in sides]
    got = 0 if calls[0] else 1
    asked = ast.unparse(sides[got])
    test.left, test.comparators[0] = (ast.Call(ast.Name("_side", ast.Load()), [side], []) for side in sides)
    return (asked, got) if any(calls) else ("", 0)


def _noting(body: list[ast.stmt], noted: str, otherwise: list[ast.stmt]) -> ast.Try:
    """`body` in a `try` that passes the arguments `noted` to `_fail` for any exception."""
    node = ast.parse(f"try:\n    pass\nexcept BaseException as _error:\n    _fail({noted})").body[0]
    node.body, node.orelse = body, otherwise
    return node


def job_of(task: CodeTask, code: str, seconds: float) -> Job:
    """The job that runs `code`, which defines the entry point, together with the task's tests.

    seconds  wall-clock limit for both
    """
    tests = {
        "source": _test_source(task),
        "names": [task.entry_point, *sorted(task.needed)],
        "methods": task.has_class,
    }
    job = Job(task.task_id, code, examples=[{"source": "_report()"}], tests=tests, seconds=seconds)
    if task.language == "python":
        return job
    command, readable = node_command(task.language)
    return replace(job, command=list(command), readable=list(readable))


@functools.lru_cache
def _test_source(task: CodeTask) -> str:
    """The tests of a task with each assertion counted."""
    body = _Counted().visit(ast.parse(task.setup + task.tests)).body
    whole = ast.unparse(ast.fix_missing_locations(_noting(body, "_error", [])))
    return f"{task.context}{_PREAMBLE}{whole}\n"


def run_tests(jobs: list[Job], *, processes: int | None = None, allow_unsafe_exec: bool = False) -> list[Verdict]:
    """Run jobs of `job_of`; verdicts in their order. A job that timed out among others is retried once, alone."""
    outcomes = run_jobs(jobs, processes=processes, allow_unsafe_exec=allow_unsafe_exec, what="running answers")
    late = [i for i, outcome in enumerate(outcomes) if outcome.outcome == "timeout" and len(jobs) > 1]
    retried = run_jobs(
        [jobs[i] for i in late], processes=1, allow_unsafe_exec=allow_unsafe_exec, what="retrying timeouts, one by one"
    )
    for i, outcome in zip(late, retried, strict=True):
        outcomes[i] = outcome
    return [_verdict(outcome) for outcome in outcomes]


def _verdict(outcome: Outcome) -> Verdict:
    if not outcome.got:  # the program or its tests did not finish
        status = "exception" if outcome.outcome == "died" else outcome.outcome
        return Verdict(status, outcome.detail, passed=0, total=0, seconds=outcome.seconds)
    passed, total, *first = json.loads(outcome.got[0])
    failure = (outcome.exceptions[0] or "").strip()
    if not failure:
        status, failure = ("pass", "") if total else ("wrong", "no assertion was reached")
    elif failure.startswith("AssertionError"):
        status, failure = "wrong", failure.removeprefix("AssertionError: ")
    else:
        status = "exception" if outcome.outcome == "finished" else outcome.outcome
    shown = dict(zip(("asked", "expected", "got"), first, strict=True))
    return Verdict(status, failure[:300], passed=passed, total=total, seconds=outcome.seconds, **shown)


class VerdictCache:
    """Verdicts by the hash of everything that a job runs, so that a changed task, limit or test is run again.

    path  JSON Lines, one verdict per line, from which an interrupted run resumes; None: in memory only
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self.known = {row.pop("key"): Verdict(**row) for row in resume_jsonl(path)} if path is not None else {}

    def verdicts(
        self, jobs: list[Job], *, processes: int | None = None, allow_unsafe_exec: bool = False
    ) -> list[Verdict]:
        """Verdicts in the order of the jobs; those not yet known are run as `run_tests` does, equal jobs once."""
        keys = [hashlib.sha256(json.dumps(asdict(job)).encode()).hexdigest() for job in jobs]
        unknown = {key: job for key, job in zip(keys, jobs, strict=True) if key not in self.known}
        todo = list(unknown)
        for start in range(0, len(todo), CHUNK):
            chunk = todo[start : start + CHUNK]
            new = run_tests([unknown[key] for key in chunk], processes=processes, allow_unsafe_exec=allow_unsafe_exec)
            found = dict(zip(chunk, new, strict=True))
            self.known |= found
            if self.path is not None:
                append_jsonl(self.path, [{"key": key, **asdict(verdict)} for key, verdict in found.items()])
        return [self.known[key] for key in keys]
