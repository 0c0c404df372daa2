"""What votes say: the preference for one side with its interval, and the agreement of the raters."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import combinations

from eval.rate.agreement import krippendorff_alpha
from eval.rate.votes import QUESTIONS
from eval.stats import bootstrap_mean

PREFERENCE_FOR_B = {"A": 0.0, "tie": 0.5, "B": 1.0}  # value of a vote


def summarise(rows: Sequence[dict]) -> dict:
    """Preference and agreement per question, from the votes of eval/rate/votes.py.

    Returns question -> {"n" (tasks), "votes": choice -> count, "preference" (for B; a tie is a half), "interval" (95 %,
    resampling tasks, each the mean over its raters), "distinguishable", "left" (share of the decided votes that went to
    the side on the left: far from a half, the raters did not look), "raters", "agreement" (share of pairs of raters
    with the same vote), "alpha" (Krippendorff's, nominal)}; the last two are None if no task has two raters.
    """
    summary = {}
    for question in QUESTIONS:
        by_task: dict[str, list[dict]] = defaultdict(list)
        for row in rows:
            if row["question"] == question and row["choice"] is not None:
                by_task[row["id"]].append(row)
        if by_task:
            summary[question] = _summary_of_question(list(by_task.values()))
    return summary


def _summary_of_question(tasks: list[list[dict]]) -> dict:
    """tasks: the votes on each task."""
    votes = [vote for of_task in tasks for vote in of_task]
    choices = [[vote["choice"] for vote in of_task] for of_task in tasks]
    means = [sum(PREFERENCE_FOR_B[choice] for choice in of_task) / len(of_task) for of_task in choices]
    preference, low, high = bootstrap_mean(means)
    agree = [one == other for of_task in choices for one, other in combinations(of_task, 2)]
    went_left = [vote["choice"] == vote["left"] for vote in votes if vote["choice"] != "tie"]
    return {
        "n": len(tasks),
        "votes": {choice: sum(vote["choice"] == choice for vote in votes) for choice in ("A", "B", "tie")},
        "preference": preference,
        "interval": [low, high],
        "distinguishable": len(tasks) > 1 and not low <= 0.5 <= high,
        "left": sum(went_left) / len(went_left) if went_left else None,
        "raters": len({vote["rater"] for vote in votes}),
        "agreement": sum(agree) / len(agree) if agree else None,
        "alpha": krippendorff_alpha(choices),
    }


def table(summary: dict) -> str:
    """The summary as text, one line per question."""
    lines = []
    for question, of in summary.items():
        low, high = of["interval"]
        verdict = ("B preferred" if low > 0.5 else "A preferred") if of["distinguishable"] else "not distinguishable"
        agreement = "" if of["agreement"] is None else f" · raters agree on {of['agreement']:.0%}"
        agreement += "" if of["alpha"] is None else f", alpha {of['alpha']:.2f}"
        counts = " ".join(f"{choice} {count}" for choice, count in of["votes"].items())
        preference = f"prefers B {of['preference']:.3f} [{low:.3f}, {high:.3f}]  n = {of['n']}"
        lines.append(f"{question:12} {preference}  ({counts}) · {verdict}{agreement}")
    return "\n".join(lines)
