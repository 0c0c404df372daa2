"""A result of text tasks as aligned text: its metrics, the baselines beside it, causes of errors."""

from __future__ import annotations

from eval.change_table import number, verdict
from eval.text.baselines import changes_over


def text_table(result: dict) -> str:
    """A line a metric, a line a baseline and metric, and one for each thing that was counted."""
    lines = []
    for metric, value in result["metrics"].items():
        low, high = result["intervals"][metric]
        lines.append(f"{metric:20} {value:7.3f}  [{low:.3f}, {high:.3f}]  n = {result['n']}")
    if unread := sum(row["status"] == "extraction" for row in result["results"]):
        lines.append(f"{unread} of {result['n']} answers name no label, or several")
    if result.get("shortened"):
        lines.append(f"{result['shortened']} of {result['n']} texts were cut at their end to fit")
    if causes := result.get("causes"):
        lines.append("errors: " + ", ".join(f"{cause} {count}" for cause, count in [*causes.items()][:6]))
    return "\n".join([*lines, *baseline_lines(result, result.get("baselines") or {})])


def baseline_lines(result: dict, baselines: dict[str, dict]) -> list[str]:
    """A line for each baseline and metric: its value, and how far the result is from it, paired."""
    lines = []
    for name, baseline in baselines.items():
        for metric, change in changes_over(baseline, result).items():
            low, high = (number(end, sign=True) for end in change["interval"])
            theirs = result["metrics"][metric] - change["value"]
            lines.append(
                f"{name:30} {number(theirs)}  {metric} {number(change['value'], sign=True)} [{low}, {high}], "
                f"p = {change['p']:.3f}: {verdict(metric, change)}"
            )
    return lines
