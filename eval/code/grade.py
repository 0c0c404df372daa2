"""Grading answers to code tasks: extract the code, run it against the tests, compute the metrics."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from pathlib import Path

from common.console import UserError
from common.markdown import fenced
from data.checks.extract import Solution, read_solution
from data.checks.thoughts import split_thoughts
from eval.causes import cause_of_task
from eval.code.javascript import read_script
from eval.code.score import GREEDY, representative, restricted, task_values
from eval.code.syntax import why_unread
from eval.code.task_types import TYPES, task_type
from eval.code.tasks import CodeTask
from eval.code.verdict import Verdict, VerdictCache, job_of
from eval.environment import environment
from eval.stats import summarise
from sandbox.run import protection

GOLD_SECONDS = 60.0  # time limit of a gold solution: MBPP's task 123 needs over 20
LEAST_SECONDS = 5.0  # smallest time limit of an answer
TIMES_GOLD = 5.0  # time limit of an answer, as a multiple of its gold's time
WITHOUT_GOLD_SECONDS = 10.0  # time limit of an answer to a task without a gold
ENOUGH = 10  # samples per task from which pass@3 is estimated by default


def grade(
    tasks: list[CodeTask],
    answers: list[dict],
    *,
    ks: tuple[int, ...] | None = None,
    processes: int | None = None,
    allow_unsafe_exec: bool = False,
    keep: Path | None = None,
    where: str = "answers",
) -> dict:
    """Grade answers to code tasks.

    answers  {"task_id", "completion", "sample": 0, 1, … (default: the next number) or "greedy", "stopped": whether the
             model ended by itself (default true)}; every task has the same number of samples, or a greedy answer alone.
             A reasoning model's thoughts are removed from the completion first (data.checks.thoughts)
    ks       the ks of pass@k (default: see `choose_ks`)
    keep     file for the verdicts, from which the next run resumes
    where    the file of the answers, named in errors
    Returns an eval result: "metrics" (score.task_values), "intervals", "n" (tasks), "n_of" (metric -> tasks that it is
    over), "values", "by_type" (the same for each type of task: task_types), "causes" (of the failed greedy answers, or
    of the failed samples without one: cause -> answers), "routes" (number of answers by where their code was found),
    "gold" ("passed", "n", and "failed": task -> why), "results" in the order of tasks and samples, "sandbox",
    "environment". Raises UserError for answers that do not fit the tasks.
    """
    by_id = {task.task_id: task for task in tasks}
    answers = _in_order(by_id, answers, where)
    ks = choose_ks(_samples_per_task(answers), ks)

    cache = VerdictCache(keep)
    golds = _golds(tasks, cache, processes, allow_unsafe_exec)
    limits = {
        i: max(LEAST_SECONDS, round(TIMES_GOLD * golds[i].seconds)) if i in golds else WITHOUT_GOLD_SECONDS
        for i in by_id
    }

    read = [_read(by_id[answer["task_id"]], answer["completion"]) for answer in answers]
    ready = [
        job_of(by_id[answer["task_id"]], solution.code, limits[answer["task_id"]])
        for answer, solution in zip(answers, read, strict=True)
        if solution.code is not None
    ]
    verdicts = iter(cache.verdicts(ready, processes=processes, allow_unsafe_exec=allow_unsafe_exec))

    rows = [
        _row(by_id[answer["task_id"]], answer, solution, None if solution.code is None else next(verdicts))
        for answer, solution in zip(answers, read, strict=True)
    ]
    values = task_values(rows, ks)
    causes = Counter(row["cause"] for row in representative(rows) if row["cause"])
    routes = [row["route"] for row in rows]
    failed = {i: verdict.detail or verdict.status for i, verdict in golds.items() if verdict.status != "pass"}
    return {
        **summarise(values),
        "n": len(by_id),
        "values": values,
        "by_type": _by_type(tasks, values),
        "causes": dict(causes.most_common()),
        "routes": {route: routes.count(route) for route in sorted(set(routes))},
        "gold": {"passed": len(golds) - len(failed), "n": len(golds), "failed": failed},
        "results": rows,
        "sandbox": protection(allow_unsafe_exec=allow_unsafe_exec),
        "environment": environment(tasks=[asdict(task) for task in tasks], answers=answers),
    }


def _samples_per_task(answers: list[dict]) -> int:
    """Of the tasks that are sampled at all; others have a greedy answer alone."""
    return max(Counter(answer["task_id"] for answer in answers if answer["sample"] != GREEDY).values(), default=0)


def _by_type(tasks: list[CodeTask], values: dict[str, dict[str, float]]) -> dict[str, dict]:
    """type -> "n", "metrics", "intervals" and "n_of" over its tasks, for the types that there are."""
    ids = {kind: {task.task_id for task in tasks if task_type(task) == kind} for kind in TYPES}
    return {
        kind: {"n": len(of_type), **summarise(restricted(values, of_type))} for kind, of_type in ids.items() if of_type
    }


def _golds(
    tasks: list[CodeTask], cache: VerdictCache, processes: int | None, allow_unsafe_exec: bool
) -> dict[str, Verdict]:
    """task_id -> the verdict on its gold solution, which is graded like any answer."""
    with_gold = [task for task in tasks if task.gold is not None]
    read = [_read(task, fenced(task.gold, "python")) for task in with_gold]
    jobs = [job_of(task, solution.code or "", GOLD_SECONDS) for task, solution in zip(with_gold, read, strict=True)]
    verdicts = cache.verdicts(jobs, processes=processes, allow_unsafe_exec=allow_unsafe_exec)
    return {job.id: verdict for job, verdict in zip(jobs, verdicts, strict=True)}


def _read(task: CodeTask, completion: str) -> Solution:
    """The code in an answer, and where it was found."""
    if task.language != "python":
        return read_script(task.prompt, task.entry_point, completion, task.stops)
    return read_solution(task.prompt, task.entry_point, completion, also=task.needed)


def _row(task: CodeTask, answer: dict, solution: Solution, verdict: Verdict | None) -> dict:
    """A row of "results": the answer, a reasoning model's thoughts, the code, where it was found, the verdict, and the
    cause of a failure."""
    row = {"task_id": task.task_id, "type": task_type(task), "sample": answer["sample"]}
    if verdict is None:
        status, detail = why_unread(task, answer["completion"])
        row |= {"status": status, "route": solution.route, "detail": detail, "passed": 0, "total": 0}
    else:
        row |= {"status": verdict.status, "route": solution.route, "detail": verdict.detail}
        row |= {"passed": verdict.passed, "total": verdict.total}  # without seconds: they differ between runs
        if verdict.asked:
            row |= {"asked": verdict.asked, "expected": verdict.expected, "got": verdict.got, "held": verdict.passed}
    thoughts = {"thoughts": answer["thoughts"]} if "thoughts" in answer else {}
    row |= {"completion": answer["completion"], **thoughts, "code": solution.code, "stopped": answer["stopped"]}
    return row | {"cause": None if row["status"] == "pass" else cause_of_task(row, task.entry_point)}


def _in_order(by_id: dict[str, CodeTask], answers: list[dict], where: str) -> list[dict]:
    """The answers, each with its "sample", in the order of the tasks and then greedy, 0, 1, …"""
    kept: dict[str, dict] = {i: {} for i in by_id}
    for number, answer in enumerate(answers, 1):
        if "task_id" not in answer or not isinstance(answer.get("completion"), str):
            raise UserError(f'{where}:{number}: an answer needs a "task_id" and a "completion" that is text')
        task_id = str(answer["task_id"])
        if task_id not in kept:
            raise UserError(f"{where}:{number}: there is no task {task_id} (in this split)")
        of_task = kept[task_id]
        sample = answer.get("sample", sum(label != GREEDY for label in of_task))
        if sample != GREEDY and (not isinstance(sample, int) or isinstance(sample, bool)):
            raise UserError(f'{where}:{number}: "sample" must be a whole number or "greedy"')
        if sample in of_task:
            raise UserError(f"{where}:{number}: sample {sample} of {task_id} is given twice")
        thoughts, completion = split_thoughts(answer["completion"])
        stopped = answer.get("stopped", True)
        of_task[sample] = {"task_id": task_id, "completion": completion, "sample": sample, "stopped": stopped}
        of_task[sample] |= {"thoughts": thoughts} if thoughts else {}
    numbers = {len(of_task.keys() - {GREEDY}) for of_task in kept.values()}
    if missing := [i for i, of_task in kept.items() if not of_task]:
        raise UserError(
            f"{len(missing)} tasks have no answer, the first is {missing[0]}: give one (an empty answer fails)"
        )
    if len(numbers - {0}) > 1 or len({GREEDY in of_task for of_task in kept.values()}) > 1:
        raise UserError(
            "the tasks have unequal numbers of answers: give each the same number of samples, or a greedy answer alone"
        )
    return [kept[i][sample] for i in kept for sample in sorted(kept[i], key=lambda s: -1 if s == GREEDY else s)]


def choose_ks(samples: int, ks: tuple[int, ...] | None) -> tuple[int, ...]:
    """The ks of pass@k: those given, else 1, and 3 if there are at least ENOUGH samples for a useful estimate.

    Raises UserError if there are too few samples to estimate pass@k.
    """
    if ks is None:
        return (1, 3) if samples >= ENOUGH else (1,)
    if min(ks) < 1:
        raise UserError("--k takes whole numbers of at least 1")
    if samples <= max(ks) and max(ks) > 1:
        raise UserError(
            f"{samples} samples per task are too few for pass@{max(ks)}: give more than that, or a smaller --k"
        )
    return ks
