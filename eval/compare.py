"""Before and after, task by task: what changed, how sure that is, and whether it is statistically significant.

    python -m eval.compare before.json after.json
    python -m eval.compare base.json lora.json dora.json --out changes.json
    python -m eval.compare base.json lora-0.json,lora-1.json,lora-2.json

The first result is the baseline; every other one is compared with it task by task. With several of them, the p-values
of a metric are adjusted for their number (Holm). Results joined by commas are one run trained with several seeds, and
the seeds are then a sample too. --out F.json also writes F.md, the table, and F.svg, a chart of the intervals.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.console import UserError, run_command
from common.files import read_json, write_json, write_text
from common.markdown import fenced
from common.options import option, parse
from eval.change_table import table, table_of_runs
from eval.charts import interval_picture
from eval.stats import LEVEL, change_over_seeds, holm, paired_change, paired_ratio_of_sums, shares_of_ratio


def compare(before: dict, after: dict) -> dict:
    """Change of each metric that both eval results have: {metric: what eval.stats.paired_change returns}.

    value is after - before, in the metric's own unit. Perplexity and bits per byte resample files, every other metric
    resamples tasks. A metric that is not defined for every answer (style needs code) is paired over the tasks where
    both results have it, and its n is their number. Omitted are perplexity where the token counts differ, since
    perplexities of two tokenizers measure different things, and metrics without a shared task.
    Raises UserError for results of different kinds or of different tasks.
    """
    _require_same_tasks(before, after)
    if "files" not in before:
        return _compare_values(before, after)
    one, other = _tasks(before), _tasks(after)
    return {
        metric: paired_ratio_of_sums(_columns(one, unit), _columns(other, unit), transform=transform)
        for metric, unit, transform in _ratios([one, other])
    }


def compare_runs(baseline: list[dict], runs: dict[str, list[dict]]) -> dict[str, dict]:
    """Each run against the baseline: {run: {metric: change}}.

    A run (and the baseline) is a list of eval results, one per training seed; a single pair is compared as `compare`
    does. Every change also has "p_holm", its p adjusted for the number of runs with this metric, and is distinguishable
    only if that is significant too. Intervals are not adjusted. Raises UserError as `compare` does.
    """
    changes = {
        name: compare(baseline[0], results[0]) if len(results) == len(baseline) == 1 else _over_seeds(baseline, results)
        for name, results in runs.items()
    }
    for metric in dict.fromkeys(metric for of_run in changes.values() for metric in of_run):
        family = [of_run[metric] for of_run in changes.values() if metric in of_run]
        for change, p in zip(family, holm([change["p"] for change in family]), strict=True):
            change["p_holm"] = p
            change["distinguishable"] = change["distinguishable"] and p <= 1 - LEVEL
    return changes


def _over_seeds(baseline: list[dict], results: list[dict]) -> dict:
    """The change of each metric that all of these results have, with seeds as a level of their own."""
    everything = [*baseline, *results]
    for other in everything[1:]:
        _require_same_tasks(baseline[0], other)
    changes = {}
    for metric, of_results in _values_per_result(everything).items():
        shared = [i for i in of_results[0] if all(i in values for values in of_results)]
        kept = [{i: values[i] for i in shared} for values in of_results]
        if len(shared) > 1:
            try:
                changes[metric] = change_over_seeds(kept[: len(baseline)], kept[len(baseline) :])
            except ValueError as error:
                raise UserError(str(error)) from None
    return changes


def _values_per_result(results: list[dict]) -> dict[str, list[dict]]:
    """metric -> the values by task (or file) of each result, for the metrics that all of them have."""
    if "files" not in results[0]:
        metrics = [metric for metric in results[0]["values"] if all(metric in result["values"] for result in results)]
        return {metric: [result["values"][metric] for result in results] for metric in metrics}
    files = [_tasks(result) for result in results]
    values: dict[str, list[dict]] = {}
    for metric, unit, transform in _ratios(files):
        values[metric] = []
        for of_result in files:
            columns = _columns(of_result, unit)
            shares = shares_of_ratio(*np.array(list(columns.values())).T, transform)
            values[metric].append(dict(zip(columns, shares, strict=True)))
    return values


def _tasks(result: dict) -> dict:
    """Rows by path or task id; a task with several samples appears once."""
    kind = {"metrics", "files"} if "files" in result else {"metrics", "values", "results"}
    if missing := sorted(kind - result.keys()):
        raise UserError(f"a result has no {missing[0]!r}; give result files written by the eval commands")
    if "files" in result:
        return {row["path"]: row for row in result["files"]}
    return {row.get("id", row.get("task_id")): row for row in result["results"]}


def _require_same_tasks(before: dict, after: dict) -> None:
    """Raise UserError unless both results are of the same kind, tasks and windows."""
    if ("files" in before) != ("files" in after):
        raise UserError("the two results are of different kinds; compare two results of the same eval command")
    one, other = _tasks(before), _tasks(after)
    if one.keys() != other.keys():
        odd = sorted(map(str, one.keys() ^ other.keys()))
        raise UserError(
            f"the two results are not of the same tasks ({len(one)} and {len(other)}; {len(odd)} in only one, "
            f"such as {odd[0]!r}); evaluate both on the same data"
        )
    if not one:
        raise UserError("the results contain no task; there is nothing to compare")
    keys = ("window", "stride", "most_tokens")
    windows = [{key: result.get("settings", {}).get(key) for key in keys} for result in (before, after)]
    if windows[0] != windows[1]:
        raise UserError(f"measured with different windows ({windows[0]} and {windows[1]}); use the same for both")


def _ratios(files: list[dict]) -> list[tuple[str, str, Callable]]:
    """(metric, what nats are divided by, transform) for the metrics that these results can be compared in."""
    per_byte = ("bits_per_byte", "bytes", lambda nats: nats / math.log(2))
    same_tokens = all(len({of_run[path]["tokens"] for of_run in files}) == 1 for path in files[0])
    return [("perplexity", "tokens", np.exp), per_byte] if same_tokens else [per_byte]


def _columns(files: dict, unit: str) -> dict:
    """path -> (nats, tokens or bytes), in the order of the paths."""
    return {path: (files[path]["nll"], files[path][unit]) for path in sorted(files)}


def _compare_values(before: dict, after: dict) -> dict:
    metrics = [metric for metric in before["values"] if metric in after["values"]]
    if not metrics:
        raise UserError("the two results share no metric; compare two results of the same eval command")
    changes = {}
    for metric in metrics:
        one, other = before["values"][metric], after["values"][metric]
        shared = [i for i in one if i in other]
        if shared:
            changes[metric] = paired_change({i: one[i] for i in shared}, {i: other[i] for i in shared})
    return changes


def _read(argument: str) -> list[dict]:
    """One result, or those of several seeds, joined by commas."""
    paths = [argument] if Path(argument).exists() else argument.split(",")
    return [read_json(path) for path in paths]


def _names(arguments: list[str]) -> list[str]:
    """Short names of the runs: the file names if they differ, else the paths."""
    names = [Path(argument.split(",")[0]).stem for argument in arguments]
    return names if len(set(names)) == len(names) else arguments


@dataclass(frozen=True)
class Options:
    """Options of this command."""

    before: str = option(help="eval result to compare with, JSON (of several seeds: comma-separated)", positional=True)
    after: tuple[str, ...] = option(
        help="eval results on the same data, JSON (of several seeds: comma-separated)", positional=True
    )
    out: Path | None = option(
        None, "also write the changes to this file, JSON, with a table (.md) and a picture (.svg) beside it",
        metavar="FILE",
    )  # fmt: skip


def main() -> None:
    """Command line: read the results, print a table of the changes, write them if asked to."""
    options = parse(Options, description=__doc__)
    baseline = _read(options.before)
    runs = dict(zip(_names(list(options.after)), map(_read, options.after), strict=True))
    results = [*baseline, *(result for of_run in runs.values() for result in of_run)]
    if len(results) == 2:
        changes = compare(*results)
        text, named = table(*results, changes), {"": changes}
    else:
        changes = named = compare_runs(baseline, runs)
        text = table_of_runs(baseline, runs, changes)
    print(text)
    compared = {metric for of_run in named.values() for metric in of_run}
    if left_out := dict.fromkeys(m for result in results for m in result["metrics"] if m not in compared):
        print(f"not compared (not on both sides of any task, or two tokenizers): {', '.join(left_out)}")
    if options.out:
        write_json(options.out, changes)
        write_text(options.out.with_suffix(".md"), fenced(text) + "\n")
        write_text(options.out.with_suffix(".svg"), interval_picture(named))
        print(f"written to {options.out}, and as {options.out.with_suffix('.md').name} and .svg beside it")


if __name__ == "__main__":
    sys.exit(run_command(main))
