"""From eval results to the rows of an experiment's results.json."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from common.files import read_json
from eval.compare import compare_runs
from eval.perplexity import summary
from eval.stats import paired_change


def figures(result: dict, metrics: Collection[str]) -> dict:
    """{"metrics", "intervals", "n"} of an eval result, for those metrics that it has."""
    counts = result.get("n_of", {})
    found = [metric for metric in metrics if metric in result["metrics"]]
    return {
        "metrics": {metric: result["metrics"][metric] for metric in found},
        "intervals": {metric: result["intervals"][metric] for metric in found},
        "n": {metric: counts.get(metric, result["n"]) for metric in found},
    }


def changes_from(baseline: list[dict], runs: dict[str, list[dict]], metrics: Collection[str]) -> dict[str, dict]:
    """Each run (one eval result per seed) against the baseline: {run: {metric: change}}, p adjusted by Holm.

    Three seeds or more are a sample of seeds. Two are averaged task by task: the interval is then of the tasks alone.
    """
    runs = {name: of_two(results) for name, results in runs.items()}
    return {
        name: {metric: change for metric, change in of_run.items() if metric in metrics}
        for name, of_run in compare_runs(of_two(baseline), runs).items()
    }


def of_two(results: list[dict]) -> list[dict]:
    """Two results as one with the mean of each task's values, or of each file's nats; any other number as they are."""
    if len(results) != 2:
        return results
    first, second = results
    if "files" in first:  # of eval.perplexity
        nats = {file["path"]: file["nll"] for file in second["files"]}
        files = [
            file | {"nll": (file["nll"] + nats[file["path"]]) / 2} for file in first["files"] if file["path"] in nats
        ]
        return [first | summary(files)]
    one, other = first["values"], second["values"]
    values = {
        metric: {i: (value + other[metric][i]) / 2 for i, value in of_task.items() if i in other[metric]}
        for metric, of_task in one.items()
        if metric in other
    }
    return [first | {"values": values}]


def changes_by_type(before: dict, after: dict, metric: str) -> dict[str, dict]:
    """Of two results of eval.code: type of task -> the paired change of a metric over the tasks of this type."""
    types = {row["task_id"]: row["type"] for row in before["results"]}
    one, other = (result["values"][metric] for result in (before, after))
    found = {}
    for kind in dict.fromkeys(types.values()):
        ids = [i for i in one if types[i] == kind and i in other]
        if len(ids) > 1:
            found[kind] = paired_change({i: one[i] for i in ids}, {i: other[i] for i in ids})
    return found


def training_cost(run: Path) -> dict:
    """What a run cost: minutes of training, and of its track "memory_gib", "tokens", "trainable_parameters"."""
    metrics = read_json(run / "metrics.json")
    (track,) = metrics["tracks"].values()
    kept = ("memory_gib", "tokens", "steps", "trainable_parameters")
    cost = {name: track["cost"][name] for name in kept if name in track["cost"]}
    return {"minutes": round(metrics["seconds"]["train"] / 60, 1)} | cost
