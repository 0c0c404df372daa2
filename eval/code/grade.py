"""Answers to code tasks, graded: read, run, judged, counted. What is graded is kept, so that a stopped run goes on."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

from common.console import UserError
from common.files import append_jsonl, resume_jsonl
from common.markdown import fenced
from data.checks.extract import Solution, read_solution
from data.checks.thoughts import split_thoughts
from eval.code.javascript import read_script
from eval.code.judge import Verdict, job_of, judge
from eval.code.score import GREEDY, summary
from eval.code.tasks import CodeTask
from eval.environment import environment
from sandbox.run import Job, protection

GOLD_SECONDS = 60.0  # what a gold may take: MBPP's task 123 needs over 20
LEAST_SECONDS = 5.0  # what every answer may take
TIMES_GOLD = 5.0  # how many times its gold's own time an answer may take
ENOUGH = 10  # samples a task from which pass@3 is estimated unasked
CHUNK = 200  # programs between two writes of what is graded


class Kept:
    """Verdicts of jobs in a file beside the result, a line each; without a file only in memory.

    A job is known by all that it runs, so a changed task, limit or judge is run again.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path, self.found = path, {}
        if path is not None:
            self.found = {row.pop("key"): Verdict(**row) for row in resume_jsonl(path)}

    def verdicts(self, jobs: list[Job], **options) -> list[Verdict]:
        """Verdicts in the jobs' order; what is not kept yet is judged (with `options` of `judge`), equal jobs once."""
        keys = [hashlib.sha256(json.dumps(asdict(job)).encode()).hexdigest() for job in jobs]
        new = {key: job for key, job in zip(keys, jobs, strict=True) if key not in self.found}
        todo = list(new)
        for start in range(0, len(todo), CHUNK):
            chunk = todo[start : start + CHUNK]
            found = dict(zip(chunk, judge([new[key] for key in chunk], **options), strict=True))
            self.found |= found
            if self.path is not None:
                append_jsonl(self.path, [{"key": key, **asdict(verdict)} for key, verdict in found.items()])
        return [self.found[key] for key in keys]


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

    answers  {"task_id", "completion", "sample": 0, 1, … (default: the next number) or "greedy"}; every task has the
             same samples. A reasoning model's thoughts are taken off the completion first (data.checks.thoughts)
    ks       the ks of pass@k (default: as `choose_ks` takes them)
    keep     file for what is graded, read again by the next run
    where    the file of the answers, to name in errors
    Returns an eval result: "metrics", "intervals", "n", "values" (score.summary), "routes" (how many answers were
    found where), "gold" ("passed", "n", and "failed": task -> why), "results" in the order of tasks and samples,
    "sandbox", "environment". Raises UserError for answers that do not fit the tasks.
    """
    by_id = {task.task_id: task for task in tasks}
    answers = _in_order(by_id, answers, where)
    ks = choose_ks(sum(answer["sample"] != GREEDY for answer in answers) // len(tasks), ks)
    options = {"processes": processes, "allow_unsafe_exec": allow_unsafe_exec}
    kept = Kept(keep)
    golds = _golds(tasks, kept, options)
    limits = {i: max(LEAST_SECONDS, round(TIMES_GOLD * golds[i].seconds)) if i in golds else 10.0 for i in by_id}
    read = [_read(by_id[answer["task_id"]], answer["completion"]) for answer in answers]
    ready = [
        job_of(by_id[answer["task_id"]], solution.code, limits[answer["task_id"]])
        for answer, solution in zip(answers, read, strict=True)
        if solution.code is not None
    ]
    judged = iter(kept.verdicts(ready, **options))
    rows = [_row(answer, s, None if s.code is None else next(judged)) for answer, s in zip(answers, read, strict=True)]
    routes = [row["route"] for row in rows]
    failed = {i: verdict.detail or verdict.status for i, verdict in golds.items() if verdict.status != "pass"}
    return {
        **summary(rows, ks),
        "routes": {route: routes.count(route) for route in sorted(set(routes))},
        "gold": {"passed": len(golds) - len(failed), "n": len(golds), "failed": failed},
        "results": rows,
        "sandbox": protection(allow_unsafe_exec=allow_unsafe_exec),
        "environment": environment(tasks=[asdict(task) for task in tasks], answers=answers),
    }


def _golds(tasks: list[CodeTask], kept: Kept, options: dict) -> dict[str, Verdict]:
    """task_id -> the verdict of its own solution, which went the way of every answer."""
    with_gold = [task for task in tasks if task.gold is not None]
    read = [_read(task, fenced(task.gold, "python")) for task in with_gold]
    jobs = [job_of(task, solution.code or "", GOLD_SECONDS) for task, solution in zip(with_gold, read, strict=True)]
    return {job.id: verdict for job, verdict in zip(jobs, kept.verdicts(jobs, **options), strict=True)}


def _read(task: CodeTask, completion: str) -> Solution:
    if task.language != "python":
        return read_script(task.prompt, task.entry_point, completion, task.stops)
    return read_solution(task.prompt, task.entry_point, completion, also=task.needed)


def _row(answer: dict, solution: Solution, verdict: Verdict | None) -> dict:
    """One line of "results": the text, a reasoning model's thoughts apart, what was read of it, where, and what became
    of it.
    """
    row = {"task_id": answer["task_id"], "sample": answer["sample"]}
    if verdict is None:
        status = "syntax" if "def " in answer["completion"] else "extraction"
        told = {"detail": "no definition of the entry point that parses", "passed": 0, "total": 0}
        row |= {"status": status, "route": solution.route} | told
    else:
        told = asdict(verdict)
        del told["seconds"]  # the only thing that differs from one run to the next
        row |= {"status": told.pop("status"), "route": solution.route} | told
    thoughts = {"thoughts": answer["thoughts"]} if "thoughts" in answer else {}
    return row | {"completion": answer["completion"], **thoughts, "code": solution.code}


def _in_order(by_id: dict[str, CodeTask], answers: list[dict], where: str) -> list[dict]:
    """The answers, each with its "sample", by the order of the tasks and then greedy, 0, 1, …"""
    kept: dict[str, dict] = {i: {} for i in by_id}
    for number, answer in enumerate(answers, 1):
        if "task_id" not in answer or not isinstance(answer.get("completion"), str):
            raise UserError(f'{where}:{number}: an answer needs a "task_id" and a "completion" that is text')
        task_id = str(answer["task_id"])
        if task_id not in kept:
            raise UserError(f"{where}:{number}: there is no task {task_id} (of this split)")
        of_task = kept[task_id]
        sample = answer.get("sample", sum(label != GREEDY for label in of_task))
        if sample != GREEDY and (not isinstance(sample, int) or isinstance(sample, bool)):
            raise UserError(f'{where}:{number}: "sample" is a number from 0 on or "greedy"')
        if sample in of_task:
            raise UserError(f"{where}:{number}: sample {sample} of {task_id} stands twice")
        thoughts, completion = split_thoughts(answer["completion"])
        of_task[sample] = {"task_id": task_id, "completion": completion, "sample": sample}
        of_task[sample] |= {"thoughts": thoughts} if thoughts else {}
    numbers = {len(of_task.keys() - {GREEDY}) for of_task in kept.values()}
    if missing := [i for i, of_task in kept.items() if not of_task]:
        raise UserError(
            f"{len(missing)} tasks have no answer, the first is {missing[0]}: give one (an empty one fails)"
        )
    if len(numbers) > 1 or len({GREEDY in of_task for of_task in kept.values()}) > 1:
        raise UserError("the tasks have unequal numbers of answers: give each the same number of samples")
    return [kept[i][sample] for i in kept for sample in sorted(kept[i], key=lambda s: -1 if s == GREEDY else s)]


def choose_ks(samples: int, ks: tuple[int, ...] | None) -> tuple[int, ...]:
    """The ks of pass@k: those asked for, else 1, and 3 where there are samples enough for an estimate worth its name.

    Raises UserError where pass@k has no estimate from so many samples.
    """
    if ks is None:
        return (1, 3) if samples >= ENOUGH else (1,)
    if min(ks) < 1:
        raise UserError("--k takes whole numbers from 1 on")
    if samples <= max(ks) and max(ks) > 1:
        raise UserError(
            f"{samples} samples a task are too few for pass@{max(ks)}: give more than that, or a smaller --k"
        )
    return ks
