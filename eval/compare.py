"""Before and after, task by task: what changed, how sure that is, and whether it can be told apart from nothing.

    python -m eval.compare before.json after.json
    python -m eval.compare base.json lora.json dora.json --out changes.json
    python -m eval.compare base.json lora-0.json,lora-1.json,lora-2.json

The first result is the baseline; each other one is compared with it, task by task. With several of them, the p-values
of a metric are adjusted for their number (Holm). Results joined by commas are one run trained with several seeds, and
then the seeds are a sample too. Beside F.json, --out writes F.md, the table, and F.svg, a picture of the intervals.
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
from eval.charts import interval_picture
from eval.stats import change_over_seeds, holm, paired_change, paired_ratio_of_sums, shares_of_ratio

LOWER_IS_BETTER = frozenset({"perplexity", "bits_per_byte", "hallucination_rate"})
LEVEL = 0.95


def compare(before: dict, after: dict) -> dict:
    """Change of each metric that both eval results have: {metric: what eval.stats.paired_change gives}.

    value is after - before, in the metric's own unit. Perplexity and bits per byte resample files; every other metric
    resamples tasks. A metric that is not defined for every answer (style needs code to look at) is paired over the
    tasks where both results have it: its n says how many. Perplexity is left out where the token counts differ, since
    two tokenizers' perplexities measure different things; a metric without any shared task is left out as well.
    Raises UserError for results of different kinds or of different tasks.
    """
    _refuse_others(before, after)
    if "files" not in before:
        return _compare_values(before, after)
    one, other = _tasks(before), _tasks(after)
    return {
        metric: paired_ratio_of_sums(_columns(one, unit), _columns(other, unit), transform=transform)
        for metric, unit, transform in _ratios([one, other])
    }


def compare_runs(baseline: list[dict], runs: dict[str, list[dict]]) -> dict[str, dict]:
    """Each run against the baseline: {run: {metric: change}}.

    A run (and the baseline) is a list of eval results, one a training seed; one alone is compared as `compare` does.
    Every change also has "p_holm", its p adjusted for the number of runs that have this metric, and is told apart only
    where that holds too. Intervals are of each run by itself. Raises UserError as `compare` does.
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
    """The change of each metric that all of these results have, seeds being a level of their own."""
    everything = [*baseline, *results]
    for other in everything[1:]:
        _refuse_others(baseline[0], other)
    if "files" in baseline[0]:
        tasks = [_tasks(result) for result in everything]
        values = {}
        for metric, unit, transform in _ratios(tasks):
            sums = [np.array(list(_columns(of_run, unit).values())).T for of_run in tasks]
            values[metric] = [
                dict(zip(sorted(of_run), shares_of_ratio(*both, transform), strict=True))
                for of_run, both in zip(tasks, sums, strict=True)
            ]
    else:
        metrics = [m for m in baseline[0]["values"] if all(m in result["values"] for result in everything)]
        values = {metric: [result["values"][metric] for result in everything] for metric in metrics}
    changes = {}
    for metric, of_runs in values.items():
        shared = [i for i in of_runs[0] if all(i in of_run for of_run in of_runs)]
        kept = [{i: of_run[i] for i in shared} for of_run in of_runs]
        if len(shared) > 1:
            try:
                changes[metric] = change_over_seeds(kept[: len(baseline)], kept[len(baseline) :])
            except ValueError as error:
                raise UserError(str(error)) from None
    return changes


def verdict(metric: str, change: dict) -> str:
    """ "better", "worse" or "not distinguishable"."""
    if not change["distinguishable"]:
        return "not distinguishable"
    return "better" if (change["value"] < 0) == (metric in LOWER_IS_BETTER) else "worse"


def told(metric: str, change: dict) -> str:
    """The verdict in a sentence's words: what is not distinguishable is so at this n, and which n would be needed."""
    word = verdict(metric, change)
    if change["distinguishable"]:
        return word
    needed = change.get("n_needed")
    return f"{word} at this n" + (f" (about {needed} needed)" if needed and change.get("p", 1) > 1 - LEVEL else "")


def table(before: dict, after: dict, changes: dict) -> str:
    """The comparison as aligned text, a line a metric."""
    return _aligned(_rows(before, after, changes))


def table_of_runs(baseline: list[dict], runs: dict[str, list[dict]], changes: dict[str, dict]) -> str:
    """The comparison of several runs as aligned text, a line a run and metric; of seeds the mean is shown."""
    rows = []
    for name, of_run in changes.items():
        head, *lines = _rows(_mean(baseline), _mean(runs[name]), of_run)
        seeds = f" ({len(runs[name])} seeds)" if len(runs[name]) > 1 else ""
        rows += [(name + seeds, *line) for line in lines]
    return _aligned([("run", *head), *rows])


def _mean(results: list[dict]) -> dict:
    """The metrics that all of them have, averaged."""
    shared = [metric for metric in results[0]["metrics"] if all(metric in result["metrics"] for result in results)]
    return {"metrics": {m: sum(result["metrics"][m] for result in results) / len(results) for m in shared}}


def _rows(before: dict, after: dict, changes: dict) -> list[tuple[str, ...]]:
    adjusted = any("p_holm" in change for change in changes.values())
    p_name = "p (Holm)" if adjusted else "p"
    rows = [("metric", "before", "after", "change", "95 % interval", p_name, "n", "verdict")]
    for metric, change in changes.items():
        low, high = change["interval"]
        rows.append(
            (
                metric,
                number(before["metrics"][metric]),
                number(after["metrics"][metric]),
                number(change["value"], sign=True),
                f"[{number(low, sign=True)}, {number(high, sign=True)}]",
                f"{change['p_holm' if adjusted else 'p']:.3f}",
                str(change["n"]),
                told(metric, change),
            )
        )
    return rows


def _aligned(rows: list[tuple[str, ...]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(f"{cell:{w}}" for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows)


def number(value: float, *, sign: bool = False) -> str:
    """Three decimals below ten, two above: 0.619, +0.144, 12.35. A true minus sign, so that columns align."""
    return f"{value:{'+' if sign else ''}.{3 if abs(value) < 10 else 2}f}".replace("-", "−")


def _tasks(result: dict) -> dict:
    """Rows by task id; a task with several samples appears once."""
    kind = {"metrics", "files"} if "files" in result else {"metrics", "values", "results"}
    if missing := sorted(kind - result.keys()):
        raise UserError(f"a result has no {missing[0]!r}; give files that the eval commands wrote")
    if "files" in result:
        return {row["path"]: row for row in result["files"]}
    return {row.get("id", row.get("task_id")): row for row in result["results"]}


def _refuse_others(before: dict, after: dict) -> None:
    """UserError unless both are results of the same tasks."""
    if ("files" in before) != ("files" in after):
        raise UserError("the two results are of different kinds; compare two results of the same eval command")
    one, other = _tasks(before), _tasks(after)
    if one.keys() != other.keys():
        odd = sorted(map(str, one.keys() ^ other.keys()))
        raise UserError(
            f"the two results are not of the same tasks ({len(one)} and {len(other)}, {len(odd)} in one of them alone, "
            f"such as {odd[0]!r}); evaluate both on the same data"
        )
    if not one:
        raise UserError("the results hold no task; there is nothing to compare")
    asked = ("window", "stride", "most_tokens")
    windows = [{key: result.get("settings", {}).get(key) for key in asked} for result in (before, after)]
    if windows[0] != windows[1]:
        raise UserError(f"measured by other windows ({windows[0]} and {windows[1]}); measure both by the same")


def _ratios(files: list[dict]) -> list[tuple[str, str, Callable]]:
    """(metric, what nats are divided by, transform) of what can be compared between these results."""
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
    """One result, or those of several seeds joined by commas."""
    paths = [argument] if Path(argument).exists() else argument.split(",")
    return [read_json(path) for path in paths]


def _names(arguments: list[str]) -> list[str]:
    """Short names of the runs: of their files, where these differ."""
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
        told_all, named = table(*results, changes), {"": changes}
    else:
        changes = named = compare_runs(baseline, runs)
        told_all = table_of_runs(baseline, runs, changes)
    print(told_all)
    compared = {metric for of_run in named.values() for metric in of_run}
    if left_out := dict.fromkeys(m for result in results for m in result["metrics"] if m not in compared):
        print(f"not compared (not on both sides of any task, or two tokenizers): {', '.join(left_out)}")
    if options.out:
        write_json(options.out, changes)
        write_text(options.out.with_suffix(".md"), fenced(told_all) + "\n")
        write_text(options.out.with_suffix(".svg"), interval_picture(named))
        print(f"written to {options.out}, and as {options.out.with_suffix('.md').name} and .svg beside it")


if __name__ == "__main__":
    sys.exit(run_command(main))
