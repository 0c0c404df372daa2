"""pass@k per task, its mean and its interval."""

from __future__ import annotations

import math
from collections import defaultdict

from eval.stats import summarise

GREEDY = "greedy"


def pass_at_k(n: int, c: int, k: int) -> float:
    """Unbiased estimate of the probability that one of k samples passes, if c of n did (Chen et al. 2021).

    1 - C(n - c, k) / C(n, k). Raises ValueError unless 1 <= k <= n and 0 <= c <= n.
    """
    if not 1 <= k <= n or not 0 <= c <= n:
        raise ValueError(f"pass@k needs 1 <= k <= n and 0 <= c <= n, got n={n}, c={c}, k={k}")
    return 1.0 - math.comb(n - c, k) / math.comb(n, k)


def summary(rows: list[dict], ks: tuple[int, ...]) -> dict:
    """The "metrics", "intervals" (95 %), "n_of", "n" and "values" of graded rows {"task_id", "sample", "status"}.

    pass@k is estimated from the samples; greedy_pass@1 is the share of greedy answers that pass. Each is present only
    if there are such answers.
    """
    sampled, greedy = defaultdict(list), {}
    for row in rows:
        if row["sample"] == GREEDY:
            greedy[row["task_id"]] = float(row["status"] == "pass")
        else:
            sampled[row["task_id"]].append(row["status"] == "pass")
    values = {"greedy_pass@1": greedy} if greedy else {}
    for k in ks if sampled else ():
        values[f"pass@{k}"] = {task: pass_at_k(len(passed), sum(passed), k) for task, passed in sampled.items()}
    return summarise(values) | {"n": len(sampled.keys() | greedy.keys()), "values": values}
