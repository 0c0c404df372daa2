"""Before and after, task by task: what changed, how sure that is, and whether it can be told apart from nothing.

python -m eval.compare before.json after.json
"""

from __future__ import annotations

import argparse
import math
import sys

from eval.stats import paired_change, paired_ratio_of_sums
from model.console import UserError, run_command
from model.files import read_json, write_json

LOWER_IS_BETTER = frozenset({"perplexity", "bits_per_byte", "hallucination_rate"})


def compare(before: dict, after: dict) -> dict:
    """Change of each metric that both eval results have: {metric: {"value", "interval", "n", "distinguishable"}}.

    value is after - before, in the metric's own unit. Perplexity and bits per byte resample files; every other metric
    resamples tasks. A metric that is not defined for every answer (style needs code to look at) is paired over the
    tasks where both results have it: its n says how many. Perplexity is left out where the token counts differ, since
    two tokenizers' perplexities measure different things; a metric without any shared task is left out as well.
    Raises UserError for results of different kinds or of different tasks.
    """
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
    return _compare_files(one, other) if "files" in before else _compare_values(before, after)


def verdict(metric: str, change: dict) -> str:
    """ "better", "worse" or "not distinguishable"."""
    if not change["distinguishable"]:
        return "not distinguishable"
    return "better" if (change["value"] < 0) == (metric in LOWER_IS_BETTER) else "worse"


def table(before: dict, after: dict, changes: dict) -> str:
    """The comparison as aligned text, a line a metric."""
    rows = [("metric", "before", "after", "change", "95 % interval", "n", "verdict")]
    for metric, change in changes.items():
        low, high = change["interval"]
        rows.append(
            (
                metric,
                number(before["metrics"][metric]),
                number(after["metrics"][metric]),
                number(change["value"], sign=True),
                f"[{number(low, sign=True)}, {number(high, sign=True)}]",
                str(change["n"]),
                verdict(metric, change),
            )
        )
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


def _compare_files(before: dict, after: dict) -> dict:
    def columns(files: dict, unit: str) -> dict:
        return {path: (row["nll"], row[unit]) for path, row in files.items()}

    changes = {}
    if all(before[path]["tokens"] == after[path]["tokens"] for path in before):
        changes["perplexity"] = paired_ratio_of_sums(columns(before, "tokens"), columns(after, "tokens"))
    changes["bits_per_byte"] = paired_ratio_of_sums(
        columns(before, "bytes"), columns(after, "bytes"), transform=lambda nats: nats / math.log(2)
    )
    return changes


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


def main() -> None:
    """The command `python -m eval.compare`."""
    parser = argparse.ArgumentParser(
        prog="python -m eval.compare", description="Paired comparison of two eval results."
    )
    parser.add_argument("before", help="eval result, JSON")
    parser.add_argument("after", help="eval result on the same data, JSON")
    parser.add_argument("--out", help="also write the changes here, JSON")
    options = parser.parse_args()
    before, after = read_json(options.before), read_json(options.after)
    changes = compare(before, after)
    print(table(before, after, changes))
    if left_out := dict.fromkeys(m for m in (*before["metrics"], *after["metrics"]) if m not in changes):
        print(f"not compared (not on both sides of any task, or two tokenizers): {', '.join(left_out)}")
    if options.out:
        write_json(options.out, changes)
        print(f"written to {options.out}")


if __name__ == "__main__":
    sys.exit(run_command(main))
