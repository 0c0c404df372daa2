"""The value of each metric for each code task: pass@k, valid syntax, length."""

from __future__ import annotations

import math
from collections import defaultdict
from statistics import fmean

from eval.code.syntax import is_syntactic

GREEDY = "greedy"


def pass_at_k(n: int, c: int, k: int) -> float:
    """Unbiased estimate of the probability that one of k samples passes, if c of n did (Chen et al. 2021).

    1 - C(n - c, k) / C(n, k). Raises ValueError unless 1 <= k <= n and 0 <= c <= n.
    """
    if not 1 <= k <= n or not 0 <= c <= n:
        raise ValueError(f"pass@k needs 1 <= k <= n and 0 <= c <= n, got n={n}, c={c}, k={k}")
    return 1.0 - math.comb(n - c, k) / math.comb(n, k)


def representative(rows: list[dict]) -> list[dict]:
    """The rows that stand for a model: the greedy answers, or all samples where there are no greedy ones."""
    return [row for row in rows if row["sample"] == GREEDY] or rows


def task_values(rows: list[dict], ks: tuple[int, ...]) -> dict[str, dict[str, float]]:
    """metric -> task -> value, of graded rows {"task_id", "sample", "status", "detail", "completion"}.

    greedy_pass@1      1 if the greedy answer passes
    pass@k             estimated from the samples of the tasks that have samples
    syntactic          the share of the `representative` answers that are valid code (eval/code/syntax.py)
    answer_characters  their mean length, without a reasoning model's thoughts
    The first two are present only if there are such answers.
    """
    greedy = {row["task_id"]: float(row["status"] == "pass") for row in rows if row["sample"] == GREEDY}
    sampled = _by_task([row for row in rows if row["sample"] != GREEDY])
    values = {"greedy_pass@1": greedy} if greedy else {}
    for k in ks if sampled else ():
        values[f"pass@{k}"] = {
            task: pass_at_k(len(of_task), sum(row["status"] == "pass" for row in of_task), k)
            for task, of_task in sampled.items()
        }
    of_tasks = _by_task(representative(rows))
    values["syntactic"] = {task: fmean(map(is_syntactic, of_task)) for task, of_task in of_tasks.items()}
    values["answer_characters"] = {
        task: fmean(len(row["completion"]) for row in of_task) for task, of_task in of_tasks.items()
    }
    return values


def _by_task(rows: list[dict]) -> dict[str, list[dict]]:
    of_tasks = defaultdict(list)
    for row in rows:
        of_tasks[row["task_id"]].append(row)
    return of_tasks


def restricted(values: dict[str, dict[str, float]], ids: set[str]) -> dict[str, dict[str, float]]:
    """The values of some tasks, without metrics that apply to none of them."""
    kept = {metric: {i: value for i, value in of_task.items() if i in ids} for metric, of_task in values.items()}
    return {metric: of_task for metric, of_task in kept.items() if of_task}
