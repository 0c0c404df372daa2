"""Changes paired by test item, with seeds as a level of their own, p adjusted by Holm over the methods.

A family is the methods of one model and task against one baseline, compared on the seeds that all of its members have.
Of three or more, items and seeds both are samples (eval/stats/seeds.py); two are averaged item by item.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from common.console import UserError
from eval.perplexity import summary
from experiments.figures import changes_from

TEXTS = ("code", "english")  # what forgetting is measured on
OF_TEXTS = ("perplexity", "bits_per_byte")

Results = Mapping[int | None, dict]  # eval results by seed; None: no training


def shared_seeds(runs: Collection[Results]) -> list[int | None]:
    """The seeds that all members of a family have, in the order of the first."""
    first, *others = runs or [{}]
    return [seed for seed in first if all(seed in other for other in others)]


def family(baseline: Results, runs: Mapping[str, Results], metrics: Collection[str]) -> list[dict]:
    """A row for each method and metric: {"method", "metric", "seeds"} and the change, as eval.compare gives it.

    baseline  of one result that is not trained (None), or of a trained method's seeds
    """
    trained = {name: of_run for name, of_run in runs.items() if of_run}
    untrained = None in baseline
    seeds = shared_seeds([*trained.values(), *([] if untrained else [baseline])])
    if not seeds:
        return []
    before = [baseline[None]] if untrained else [baseline[seed] for seed in seeds]
    after = {name: [of_run[seed] for seed in seeds] for name, of_run in trained.items()}
    return [
        {"method": name, "metric": metric, "seeds": len(seeds), **change}
        for name, of_run in changes_from(before, after, metrics).items()
        for metric, change in of_run.items()
    ]


def part_of(texts: dict, kind: str) -> dict:
    """The eval result of the texts of a kind, code or English, within that of all of them. UserError without any."""
    files = [file for file in texts["files"] if file["path"].startswith(f"{kind}/")]
    if not files:
        raise UserError(f"no text of the kind {kind!r} was read")
    return summary(files) | {"settings": texts["settings"]}


def forgetting(before: dict, runs: Mapping[str, Results]) -> list[dict]:
    """What became of code and English: rows of `family` with "text", "before" and "after" (over its seeds).

    before  eval result of the untrained model on all texts; runs: the same of the methods
    """
    rows = []
    for kind in TEXTS:
        parts = {name: {seed: part_of(one, kind) for seed, one in of_run.items()} for name, of_run in runs.items()}
        base = part_of(before, kind)
        for row in family({None: base}, parts, OF_TEXTS):
            value = base["metrics"][row["metric"]]
            rows.append({"text": kind, "before": value, "after": value + row["value"], **row})
    return rows
