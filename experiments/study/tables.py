"""What the runs of one model and task say together: means over seeds, changes, forgetting, learning curves."""

from __future__ import annotations

import math
from collections.abc import Sequence

from eval.stats import summarise
from experiments.figures import figures
from experiments.study.changes import Results, family, forgetting
from experiments.study.finished import Finished
from experiments.study.grid import FEW_SHOT, METHODS, ZERO_SHOT, Run

NO_COST = dict.fromkeys(("trainable_parameters", "memory_gib", "lr", "minutes"))


def by_method(runs: Sequence[Finished]) -> dict[str, dict[int | None, Finished]]:
    """The main grid: method -> seed -> run."""
    found: dict[str, dict[int | None, Finished]] = {}
    for one in runs:
        if one.run.is_main:
            found.setdefault(one.run.method, {})[one.run.seed] = one
    return found


def summary_rows(runs: Sequence[Finished]) -> list[dict]:
    """A row a method: means over the seeds that are done, and what it costs."""
    rows = []
    for of_seeds in by_method(runs).values():
        first, *_ = of_seeds.values()
        key = {name: value for name, value in first.key().items() if name != "seed"}
        row = key | {"seeds": [seed for seed in of_seeds if seed is not None]}
        row |= over_seeds([one.answers for one in of_seeds.values()], first.run.task.metrics)
        rows.append(row | NO_COST)
        if first.training:
            rows[-1] |= {name: first.training[name] for name in NO_COST if name != "minutes"}
            minutes = [one.training["seconds"]["train"] / 60 for one in of_seeds.values() if one.training]
            rows[-1]["minutes"] = round(mean(minutes), 3)
    return rows


def classical_summary(one: Finished) -> list[dict]:
    """The baselines without a language model in the form of a summary: one result, and no cost to speak of."""
    rows = [{name: value for name, value in row.items() if name != "seed"} for row in classical_rows(one)]
    ranges = [{name: [value, value] for name, value in row["metrics"].items()} for row in rows]
    return [row | NO_COST | {"seeds": [], "range": of_row} for row, of_row in zip(rows, ranges, strict=True)]


def over_seeds(found: Sequence[dict], metrics: Sequence[str]) -> dict:
    """Means over eval results of the same tasks, the range over these, and 95 % intervals over the tasks.

    With several results an interval is that of the means of each task; of a metric that tasks have only together (F1,
    BLEU), its ends are the means of the results' ends, which is wider than it need be.
    """
    each = [figures(one, metrics) for one in found]
    names = [name for name in metrics if all(name in one["metrics"] for one in each)]
    values = {name: [one["metrics"][name] for one in each] for name in names}
    ends = {name: zip(*(one["intervals"][name] for one in each), strict=True) for name in names}
    intervals = {name: [mean(of_side) for of_side in sides] for name, sides in ends.items()}
    if len(found) > 1:
        of_tasks = [name for name in names if all(name in one["values"] for one in found)]
        of_seeds = {name: mean_values([one["values"][name] for one in found]) for name in of_tasks}
        intervals |= summarise(of_seeds)["intervals"]
    return {
        "metrics": {name: mean(of_name) for name, of_name in values.items()},
        "range": {name: [min(of_name), max(of_name)] for name, of_name in values.items()},
        "intervals": intervals,
        "n": {name: each[0]["n"][name] for name in names},
    }


def mean_values(of_seeds: Sequence[dict[str, float]]) -> dict[str, float]:
    """Task -> the mean of its values, of the tasks that have one under every seed."""
    shared = [task for task in of_seeds[0] if all(task in values for values in of_seeds)]
    return {task: mean([values[task] for values in of_seeds]) for task in shared}


def mean(values: Sequence[float]) -> float:
    """The arithmetic mean."""
    return math.fsum(values) / len(values)


def change_rows(runs: Sequence[Finished]) -> list[dict]:
    """The methods against the untrained model, the classical baseline, and full fine-tuning: a family each."""
    task, found = runs[0].run.task, _answers(runs)
    tuned = {name: of_seeds for name, of_seeds in found.items() if name in METHODS}
    against: dict[str, Results] = {name: found[name] for name in (ZERO_SHOT, FEW_SHOT) if name in found}
    if classical := classical_result(found.get(ZERO_SHOT, {}).get(None, {}), task.classical):
        against["classical"] = {None: classical}
    if "full" in tuned:
        against["full"] = tuned["full"]
    return [
        _cell(runs[0].run) | {"against": name} | row
        for name, baseline in against.items()
        for row in family(baseline, {method: one for method, one in tuned.items() if method != name}, task.metrics)
    ]


def classical_result(zero_shot: dict, name: str | None) -> dict | None:
    """The baseline of that name, measured with the zero-shot answers, as an eval result; None if there is none."""
    found = zero_shot.get("baselines", {}).get(name)
    return found and found | {"results": zero_shot["results"], "n": zero_shot["n"]}


def classical_rows(one: Finished) -> list[dict]:
    """The baselines that need no language model: found with the zero-shot answers of a model, on the same rows."""
    if one.run.method != ZERO_SHOT:
        return []
    key = {"model": None, "task": one.run.task.name, "kind": "classical", "seed": None, "train_rows": one.run.rows}
    key |= {"measured_with": one.run.model.name}
    return [
        key | {"method": name} | figures(classical_result(one.answers, name) or {}, one.run.task.metrics)
        for name in one.answers.get("baselines", {})
    ]


def forgetting_rows(runs: Sequence[Finished]) -> list[dict]:
    """Perplexity of held-out code and plain English after each method, and before."""
    found = by_method(runs)
    before = found.get(ZERO_SHOT, {}).get(None)
    if before is None or before.texts is None:
        return []
    after = {
        name: {seed: one.texts for seed, one in of_seeds.items() if one.texts}
        for name, of_seeds in found.items()
        if name in METHODS
    }
    return [_cell(runs[0].run) | row for row in forgetting(before.texts, after)]


def curve_rows(runs: Sequence[Finished]) -> list[dict]:
    """Learning curves: the first metric by training rows, of the methods that were trained with several sizes."""
    rows = []
    for one in runs:
        of_curve = [other for other in runs if (other.run.method, other.run.seed) == (one.run.method, one.run.seed)]
        if one is not of_curve[0] or len({other.run.rows for other in of_curve}) < 2:
            continue
        metric = one.run.task.metric
        points = [
            {"train_rows": other.key()["train_rows"], "value": other.answers["metrics"][metric]}
            | {"interval": other.answers["intervals"][metric], "n": figures(other.answers, (metric,))["n"][metric]}
            for other in of_curve
        ]
        key = _cell(one.run) | {"method": one.run.method, "seed": one.run.seed, "metric": metric}
        rows.append(key | {"points": sorted(points, key=lambda point: point["train_rows"])})
    return rows


def rate_row(one: Finished) -> dict:
    """The learning rates that were tried, which had the lowest validation loss, and whether a better may lie beyond."""
    assert one.sweep is not None
    tried = [trial["lr"] for trial in one.sweep["tried"]]
    at_edge = one.sweep["chosen"] in (min(tried), max(tried))
    return _cell(one.run) | {"method": one.run.method, **one.sweep, "at_edge": at_edge}


def _answers(runs: Sequence[Finished]) -> dict[str, dict[int | None, dict]]:
    return {name: {seed: one.answers for seed, one in of_seeds.items()} for name, of_seeds in by_method(runs).items()}


def _cell(run: Run) -> dict:
    return {"model": run.model.name, "task": run.task.name}
