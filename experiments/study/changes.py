"""Changes paired by test item, with seeds as a level of their own, p adjusted by Holm over the methods.

A family is the methods of one model and task against one baseline. Where all of its members have three seeds or more
in common, items and seeds both are samples (eval/stats/seeds.py); until then the first common seed stands alone.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

from common.console import UserError
from eval.perplexity import summary
from experiments.figures import changes_from

SEEDS = 3  # as a level: eval.stats.change_over_seeds takes no fewer
TEXTS = ("code", "english")  # what forgetting is measured on
OF_TEXTS = ("perplexity", "bits_per_byte")

Results = Mapping[int | None, dict]  # eval results by seed; None: no training


def shared_seeds(runs: Collection[Results]) -> list[int | None]:
    """The seeds that a family is compared with, in the order of the first run: those that all have if there are
    enough, else the first of these; none if they have none in common.
    """
    first, *others = runs or [{}]
    common = [seed for seed in first if all(seed in other for other in others)]
    return common if len(common) >= SEEDS else common[:1]


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
    """What became of code and English: rows of `family` with "text", "before" and "after" (the mean over its seeds).

    before  eval result of the untrained model on all texts; runs: the same of the methods
    """
    rows = []
    for kind in TEXTS:
        parts = {name: {seed: part_of(one, kind) for seed, one in of_run.items()} for name, of_run in runs.items()}
        base, seeds = part_of(before, kind), shared_seeds(parts.values())
        for row in family({None: base}, parts, OF_TEXTS):
            values = [parts[row["method"]][seed]["metrics"][row["metric"]] for seed in seeds]
            sides = {"before": base["metrics"][row["metric"]], "after": math.fsum(values) / len(values)}
            rows.append({"text": kind, **sides, **row})
    return rows
