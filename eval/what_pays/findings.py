"""What the arms show: changes from the base, what search and tuning add, a table, a picture, a sentence of advice."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from common.files import read_json
from eval.change_table import number, verdict
from eval.compare import compare, compare_runs
from eval.scatter import Point, panel, stacked
from eval.stats import LEVEL, holm

METRICS = ("pass@1", "pass@3", "perplexity")
HEADLINE = "pass@1"


@dataclass(frozen=True)
class Arm:
    """Who answers, and what finds code for it to read.

    adapter   name of an adapter; None: the base
    embedder  name of the encoder that searches; None: nothing is read
    """

    adapter: str | None
    embedder: str | None

    @property
    def name(self) -> str:
        """ "base", "tuned", "base + search by minilm"."""
        return (self.adapter or "base") + (f" + search by {self.embedder}" if self.embedder else "")


def arms_of(adapters: Sequence[str], embedders: Sequence[str]) -> list[Arm]:
    """Every model without search and with each encoder; the base alone is the first."""
    return [Arm(adapter, embedder) for adapter in (None, *adapters) for embedder in (None, *embedders)]


def folder_of(out: Path, arm: Arm) -> Path:
    """Where an arm's two eval results are: files.json and, written last, answers.json."""
    return out / "arms" / (arm.adapter or "base") / (arm.embedder or "no search")


def findings(out: Path, arms: Sequence[Arm]) -> dict:
    """What measured arms show: {"rows", "changes", "additions", "advice", "environment", "sandbox"}."""
    answers = {arm: read_json(folder_of(out, arm) / "answers.json") for arm in arms}
    files = {arm: read_json(folder_of(out, arm) / "files.json") for arm in arms}
    rows = [row_of(arm, answers[arm], files[arm], answers[arm]["cost"]) for arm in arms]
    changes = changes_of(answers, files)
    base = answers[arms[0]]
    return {
        "rows": rows, "changes": changes, "additions": additions_of(answers), "advice": advice(rows, changes, answers),
        "environment": base["environment"], "sandbox": base["sandbox"],
    }  # fmt: skip


def row_of(arm: Arm, answers: dict, files: dict, cost: dict) -> dict:
    """A row of the result: metrics, intervals and n of an arm's two eval results, and what it costs."""
    told: dict = {"arm": arm.name, "adapter": arm.adapter, "embedder": arm.embedder}
    told |= {"metrics": {}, "intervals": {}, "n": {}, "cost": cost}
    for result in (answers, files):
        for metric in METRICS:
            if metric in result["metrics"]:
                told["metrics"][metric] = result["metrics"][metric]
                told["intervals"][metric] = result["intervals"][metric]
                told["n"][metric] = result.get("n_of", {}).get(metric, result["n"])
    return told


def changes_of(answers: dict[Arm, dict], files: dict[Arm, dict]) -> dict[str, dict]:
    """Each arm against the base alone: {arm: {metric: change}}, p adjusted for the number of arms (Holm)."""
    changes: dict[str, dict] = {}
    for results in (answers, files):
        base, *others = results
        compared = compare_runs([results[base]], {arm.name: [results[arm]] for arm in others})
        for name, of_arm in compared.items():
            changes.setdefault(name, {}).update({metric: of_arm[metric] for metric in METRICS if metric in of_arm})
    return changes


def additions_of(answers: dict[Arm, dict]) -> list[dict]:
    """What each part adds to an arm that lacks it, in pass@1: {"what", "to", "change"}, p adjusted for all (Holm).

    Search to each model, each adapter to the base with the same search, each further encoder in place of the first.
    """
    embedders = [arm.embedder for arm in answers if arm.embedder and arm.adapter is None]
    asked: list[tuple[str, Arm, Arm]] = []
    for arm in answers:
        if arm.embedder:
            asked.append((f"search by {arm.embedder}", Arm(arm.adapter, None), arm))
        if arm.adapter and arm.embedder:
            asked.append((f"adapter {arm.adapter}", Arm(None, arm.embedder), arm))
        if arm.embedder and arm.embedder != embedders[0]:
            asked.append((f"{arm.embedder} for {embedders[0]}", Arm(arm.adapter, embedders[0]), arm))
    added = [
        {"what": what, "to": before.name, "change": compare(answers[before], answers[after])[HEADLINE]}
        for what, before, after in asked
    ]
    for one, p in zip(added, holm([one["change"]["p"] for one in added]), strict=True):
        one["change"] |= {"p_holm": p, "distinguishable": one["change"]["distinguishable"] and p <= 1 - LEVEL}
    return added


def advice(rows: list[dict], changes: dict[str, dict], answers: dict[Arm, dict]) -> str:
    """What to do, as far as the intervals support it."""
    of_arm = {arm.name: arm for arm in answers}
    n = rows[0]["n"][HEADLINE]
    gained = {name: change[HEADLINE] for name, change in changes.items()}
    better = [row for row in rows[1:] if gained[row["arm"]]["distinguishable"] and gained[row["arm"]]["value"] > 0]
    if not better:
        most = max(gained, key=lambda name: gained[name]["value"])
        told = f"Nothing is distinguishable from the base in {HEADLINE} (n = {n})."
        needed = gained[most].get("n_needed")
        if gained[most]["value"] > 0 and needed and needed > n:
            told += f" The largest gain, {_change(gained[most])} of {most}, would need about {needed:,} tasks."
        return told
    best = max(better, key=lambda row: row["metrics"][HEADLINE])
    equal = [
        row
        for row in better
        if row is best
        or not compare(answers[of_arm[row["arm"]]], answers[of_arm[best["arm"]]])[HEADLINE]["distinguishable"]
    ]
    cheapest = min(equal, key=lambda row: _price(row["cost"]))
    told = f"{cheapest['arm']} pays: {HEADLINE} {_change(gained[cheapest['arm']])} over the base (n = {n})"
    told += f", {_cost(cheapest['cost'])}."
    if cheapest is not best:
        told += f" {best['arm']} has {number(best['metrics'][HEADLINE])} against "
        told += f"{number(cheapest['metrics'][HEADLINE])}, not distinguishable from it at this n, and costs more."
    return told


def table(rows: list[dict], changes: dict[str, dict]) -> str:
    """A Markdown table: a line an arm, its metrics with the changes from the base, and what it costs."""
    shown = [metric for metric in METRICS if any(metric in row["metrics"] for row in rows)]
    head = ["arm", *shown, "training, min", "s an answer", "s a search", "peak memory, GiB"]
    lines = [head, ["---"] * len(head)]
    for row in rows:
        cells = []
        for metric in shown:
            cell = number(row["metrics"][metric]) if metric in row["metrics"] else ""
            if change := changes.get(row["arm"], {}).get(metric):
                cell += f" ({_change(change)}{', ' + verdict(metric, change) if change['distinguishable'] else ''})"
            cells.append(cell)
        cost = row["cost"]
        minutes, search = cost["training_minutes"], cost["seconds_per_search"]
        cells += ["unknown" if minutes is None else f"{minutes:.1f}", f"{cost['seconds_per_answer']:.2f}"]
        cells += ["" if search is None else f"{search:.3f}", f"{cost['memory_gib']:.1f}"]
        lines.append([row["arm"], *cells])
    counts = ", ".join(f"{metric} n = {rows[0]['n'][metric]}" for metric in shown)
    told = f"In parentheses the paired change from the base with its 95 % interval; {counts}."
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + f"\n\n{told}\n"


def picture(rows: list[dict]) -> str:
    """pass@1 of each arm with its interval: against seconds an answer, and against minutes of training."""
    points = [
        Point(row["arm"], row["cost"]["seconds_per_answer"], row["metrics"][HEADLINE], row["intervals"][HEADLINE])
        for row in rows
    ]
    panels = [(f"{HEADLINE} against seconds an answer", panel(points, {}, "seconds an answer"))]
    trained = [row for row in rows if row["cost"]["training_minutes"]]
    if trained:
        points = [
            Point(row["arm"], row["cost"]["training_minutes"], row["metrics"][HEADLINE], row["intervals"][HEADLINE])
            for row in trained
        ]
        lines = {row["arm"]: row["metrics"][HEADLINE] for row in rows if not row["cost"]["training_minutes"]}
        panels.append((f"{HEADLINE} against minutes of training", panel(points, lines, "minutes of training")))
    return stacked(panels, "What pays: quality against cost")


def _change(change: dict) -> str:
    low, high = change["interval"]
    return f"{number(change['value'], sign=True)} [{number(low, sign=True)}, {number(high, sign=True)}]"


def _price(cost: dict) -> tuple[float, float]:
    """To sort by: minutes of training, the unknown last, then seconds an answer."""
    minutes = cost["training_minutes"]
    return math.inf if minutes is None else minutes, cost["seconds_per_answer"]


def _cost(cost: dict) -> str:
    parts = [f"{cost['training_minutes']:.1f} minutes of training"] if cost["training_minutes"] else []
    return " and ".join([*parts, f"{cost['seconds_per_answer']:.2f} s an answer"])
