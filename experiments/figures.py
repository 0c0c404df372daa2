"""From eval results to the rows of an experiment's results.json."""

from __future__ import annotations

from collections.abc import Collection

from eval.compare import compare_runs


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
    """Each run (one eval result per seed) against the baseline: {run: {metric: change}}, p adjusted by Holm."""
    return {
        name: {metric: change for metric, change in of_run.items() if metric in metrics}
        for name, of_run in compare_runs(baseline, runs).items()
    }
