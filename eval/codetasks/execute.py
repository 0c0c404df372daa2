"""How an answer is proven: it runs in one sandbox, the tests in another, and only plain values pass between them.

    tests, nothing known      →  ask for  f([1, 2]), f([])          no answer runs here
    answer                    →  f([1, 2]) = 3, f([]) = 0           no expected value is in reach here
    tests, these results      →  2 of 3 assertions hold             (or ask for more: the next round)

So no `__eq__` that says yes, no walk through frames and no changed builtin can reach what decides. Two answers that
return the same are judged once. A task whose arguments are no plain data (objects of a class that the answer itself
defines) is judged with the answer in one process; then an answer that names what could decide its own verdict is not
run, and the verdict says "beside".
"""

from __future__ import annotations

import ast
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from data.checks import HARNESS
from data.syntax import parsed
from eval.codetasks.tasks import CodeTask
from eval.sandbox import Job, Outcome, run_jobs

ROUNDS = 8  # of asking: a test that calls the function with what it returned asks anew each time
JUDGE_SECONDS = 30.0
LOADER = f"\n_tritune = {{}}\nexec({Path(__file__).with_name('probe.py').read_text('utf-8')!r}, _tritune)\n"
Run = Callable[[list[Job], str], list[Outcome]]


@dataclass(frozen=True)
class Verdict:
    """What became of a program.

    status   "pass", "wrong", "exception", "syntax", "timeout", "memory" or "denied"
    passed, total  assertions that hold, of those that were reached
    judged   "apart" or "beside"
    seconds  wall-clock time of the answer's longest run
    """

    status: str
    detail: str
    passed: int
    total: int
    judged: str
    seconds: float


@dataclass
class _Case:
    """A program on its way: what it has returned so far, and its verdict in the end."""

    task: CodeTask
    code: str
    limit: float
    known: list[list] = field(default_factory=list)  # [arguments, result], as JSON
    raised: str = ""  # its first exception
    seconds: float = 0.0
    asks: list[str] = field(default_factory=list)
    verdict: Verdict | None = None

    def end(self, status: str, detail: str = "", passed: int = 0, total: int = 0, judged: str = "apart") -> None:
        self.verdict = Verdict(status, detail, passed, total, judged, self.seconds)


def verdicts(programs: list[tuple[CodeTask, str, float]], run: Run) -> list[Verdict]:
    """Judge programs: (task, code that defines its entry point, wall-clock limit in seconds)."""
    cases = [_Case(*program) for program in programs]
    going = cases
    for number in range(ROUNDS):
        outcomes = run([_judge_job(case) for case in going], "judging" if number else "reading tests")
        for case, outcome in zip(going, outcomes, strict=True):
            _read_judgement(case, outcome)
        going = [case for case in going if case.asks and case.verdict is None]
        for case, outcome in zip(going, run([_answer_job(case) for case in going], "running answers"), strict=True):
            _read_results(case, outcome)
        going = [case for case in going if case.verdict is None]
    for case in going:
        case.end("wrong", f"the tests ask for ever more calls: ended after {ROUNDS} rounds")
    _judge_beside([case for case in cases if case.verdict is None], run)
    return [case.verdict for case in cases]


def _judge_job(case: _Case) -> Job:
    task = case.task
    arguments = f"{task.entry_point!r}, {task.setup + task.tests!r}, {json.dumps(case.known)!r}"
    judge = {"source": f"_tritune['judge'](globals(), {arguments})"}
    return Job(task.task_id, task.context + LOADER, examples=[judge], seconds=JUDGE_SECONDS)


def _answer_job(case: _Case) -> Job:
    calls = [{"source": f"_tritune['call']({case.task.entry_point}, {arguments!r})"} for arguments in case.asks]
    return Job(case.task.task_id, case.code + LOADER, examples=calls, seconds=case.limit)


def _read_judgement(case: _Case, outcome: Outcome) -> None:
    """Either the verdict, or what to ask; neither for a task that can only be judged beside the answer."""
    case.asks = []
    if outcome.outcome != "finished" or outcome.exceptions[0] is not None:
        if case.known:
            case.end("wrong", f"the tests did not end on what it returned: {outcome.detail or outcome.exceptions[0]}")
        return
    report = json.loads(outcome.got[0].splitlines()[-1])
    if report["opaque"]:
        return
    if report["asks"]:
        case.asks = report["asks"]
        return
    held = report["passed"] == report["total"] > 0 and not report["problem"]
    status = "pass" if held else "exception" if case.raised else "wrong"
    detail = "" if held else case.raised or report["failed"] or report["problem"] or "no assertion was reached"
    case.end(status, detail, report["passed"], report["total"])


def _read_results(case: _Case, outcome: Outcome) -> None:
    case.seconds = max(case.seconds, outcome.seconds)
    if outcome.outcome != "finished":
        case.end("exception" if outcome.outcome == "died" else outcome.outcome, outcome.detail)
        return
    for arguments, got, exception in zip(case.asks, outcome.got, outcome.exceptions, strict=True):
        if exception is None:
            result = _result(got)
        else:
            last = exception.strip().splitlines()[-1]
            case.raised = case.raised or last[:300]
            result = {"raises": last.split(":")[0].rsplit(".", 1)[-1]}
        case.known.append([arguments, result])


def _result(printed: str):
    """The result in the last line that a call printed. An answer may print there itself: then it is only no value."""
    try:
        return json.loads(printed.splitlines()[-1])
    except (ValueError, IndexError, RecursionError):
        return {"opaque": "nothing readable"}


def _judge_beside(cases: list[_Case], run: Run) -> None:
    for case in cases:
        if named := _named(case.code) & HARNESS:
            case.end("denied", f"not run: it names {', '.join(sorted(named))}", judged="beside")
    ready = [case for case in cases if case.verdict is None]
    jobs = [
        Job(case.task.task_id, f"{case.code}\n{case.task.setup}{case.task.tests}", seconds=case.limit) for case in ready
    ]
    for case, outcome in zip(ready, run(jobs, "running answers beside their tests"), strict=True):
        case.seconds = outcome.seconds
        status = {"finished": "pass", "died": "exception"}.get(outcome.outcome, outcome.outcome)
        is_assertion = status == "exception" and outcome.detail.startswith("AssertionError")
        case.end("wrong" if is_assertion else status, outcome.detail, judged="beside")


def _named(code: str) -> set[str]:
    tree = parsed(code)
    if tree is None:
        return set()
    fields = ("id", "attr", "name", "arg", "module", "value")
    return {getattr(n, name) for n in ast.walk(tree) for name in fields if isinstance(getattr(n, name, None), str)}


class Sandbox:
    """Runs jobs, each once however often it comes back; what ran out of time has a second try, alone."""

    def __init__(self, *, processes: int | None = None, allow_unsafe_exec: bool = False) -> None:
        self.processes, self.allow_unsafe_exec = processes, allow_unsafe_exec
        self.done: dict[str, Outcome] = {}

    def run(self, jobs: list[Job], what: str) -> list[Outcome]:
        """Outcomes in the jobs' order."""
        keys = [json.dumps([job.program, job.examples, job.seconds]) for job in jobs]
        new = {key: job for key, job in zip(keys, jobs, strict=True) if key not in self.done}
        self._run(new, self.processes, what)
        if len(new) > 1:  # others may have held the processor
            late = {key: job for key, job in new.items() if self.done[key].outcome == "timeout"}
            self._run(late, 1, "trying once more, alone")
        return [self.done[key] for key in keys]

    def _run(self, jobs: dict[str, Job], processes: int | None, what: str) -> None:
        options = {"processes": processes, "allow_unsafe_exec": self.allow_unsafe_exec, "what": what}
        self.done.update(zip(jobs, run_jobs(list(jobs.values()), **options), strict=True))
