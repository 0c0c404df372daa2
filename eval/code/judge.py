"""How an answer is proven: it runs in one process of the sandbox, its task's tests in another that alone can report.

The tests call the answer by messages (Job.tests). Plain values cross as copies; what else the answer returns stays with
it and equals only itself. So no `__eq__` that says yes, no walk through frames and no changed builtin decides anything.
"""

from __future__ import annotations

import ast
import functools
from dataclasses import dataclass

from eval.code.javascript import node_command
from eval.code.tasks import CodeTask
from sandbox.run import Job, Outcome, run_jobs

_PREAMBLE = """import random
random.seed(0)  # tests that draw their inputs draw the same ones each time
_held, _failed = [], []
def _report():
    print(len(_held), len(_held) + len(_failed))
    if _failed:
        raise _failed[0]
"""


@dataclass(frozen=True)
class Verdict:
    """What became of a program.

    status   "pass", "wrong", "exception", "syntax", "timeout", "memory" or "denied"
    passed, total  assertions that hold, of those that were tried; an exception that ends the tests counts as one
    seconds  wall-clock time
    """

    status: str
    detail: str
    passed: int
    total: int
    seconds: float


class _Counted(ast.NodeTransformer):
    """Has every assertion tried and counted, so that one that fails does not hide the others.

    In a `try` one that fails is still raised: there it may be part of the test.
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
        text = f"AssertionError({ast.unparse(node)[:300]!r})"
        return _noting([node], f"{text} if isinstance(_error, AssertionError) else _error", held)


def _noting(body: list[ast.stmt], noted: str, otherwise: list[ast.stmt]) -> ast.Try:
    """`body` in a `try` that keeps what it raises, as the expression `noted` puts it."""
    node = ast.parse(f"try:\n    pass\nexcept BaseException as _error:\n    _failed.append({noted})").body[0]
    node.body, node.orelse = body, otherwise
    return node


def job_of(task: CodeTask, code: str, seconds: float) -> Job:
    """The job that runs `code`, which defines the entry point, and the task's tests beside it.

    seconds  wall-clock limit of both together
    """
    command, readable = (None, None) if task.language == "python" else node_command(task.language)
    settings = {"tests": _tests(task), "command": command, "readable": readable, "seconds": seconds}
    return Job(task.task_id, code, examples=[{"source": "_report()"}], **settings)


@functools.lru_cache
def _tests(task: CodeTask) -> dict:
    """`Job.tests` of a task: its tests, each assertion counted."""
    body = _Counted().visit(ast.parse(task.setup + task.tests)).body
    whole = ast.unparse(ast.fix_missing_locations(_noting(body, "_error", [])))
    return {
        "source": f"{task.context}{_PREAMBLE}{whole}\n",
        "names": [task.entry_point, *sorted(task.needed)],
        "methods": task.has_class,
    }


def judge(jobs: list[Job], *, processes: int | None = None, allow_unsafe_exec: bool = False) -> list[Verdict]:
    """Run jobs of `job_of`; verdicts in their order. What ran out of time among others is tried once more, alone."""
    options = {"allow_unsafe_exec": allow_unsafe_exec}
    outcomes = run_jobs(jobs, processes=processes, **options, what="running answers")
    late = [i for i, outcome in enumerate(outcomes) if outcome.outcome == "timeout" and len(jobs) > 1]
    again = run_jobs([jobs[i] for i in late], processes=1, **options, what="trying once more, alone")
    for i, outcome in zip(late, again, strict=True):
        outcomes[i] = outcome
    return [_verdict(outcome) for outcome in outcomes]


def _verdict(outcome: Outcome) -> Verdict:
    if not outcome.got:  # the program or the tests did not come to their end
        status = "exception" if outcome.outcome == "died" else outcome.outcome
        return Verdict(status, outcome.detail, 0, 0, outcome.seconds)
    passed, total = map(int, outcome.got[0].split())
    failure = (outcome.exceptions[0] or "").strip()
    if not failure:
        status, failure = ("pass", "") if total else ("wrong", "no assertion was reached")
    elif failure.startswith("AssertionError"):
        status, failure = "wrong", failure.removeprefix("AssertionError: ")
    else:
        status = "exception" if outcome.outcome == "finished" else outcome.outcome
    return Verdict(status, failure[:300], passed, total, outcome.seconds)
