"""What the report shows of a track: charts of the training, tables of what changed, and failures to read."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from common.html import Safe, template
from eval.change_table import number, verdict_phrase
from eval.charts import Dot, dots, loss_curve, norm_curve
from eval.compare import compare
from eval.instruct.published import PUBLISHED
from eval.report.parts import NONE, Comparison, Table, figure
from eval.report.text_results import text_comparison

LOSS = {"cpt": "nats per token", "sft": "nats per token", "embed": "InfoNCE in nats"}
SIDES = ("before", "after")
CATEGORY_CHARTS = ("pass@1", "lenient_pass@1")
COST = {  # key of metrics.json -> its name, and how it is written
    "trainable_parameters": ("trainable parameters", "{:,}".format),
    "file_bytes": ("bytes of the file", "{:,}".format),
    "steps": ("steps", "{:,}".format),
    "seconds_per_step": ("seconds a step (median)", "{:.2f}".format),
    "memory_gib": ("peak memory, GiB", "{:.2f}".format),
    "tokens": ("tokens trained on", "{:,}".format),
    "supervised_tokens": ("of these supervised", "{:,}".format),
}


@dataclass(frozen=True)
class Track:
    """The files of a track's folder; None or empty if missing."""

    name: str
    headline: dict | None  # its part of metrics.json
    config: dict | None
    environment: dict | None
    steps: list[dict]
    before: dict | None
    after: dict | None
    failures: list[dict]
    samples: str


def track_section(track: Track) -> Safe:
    """Charts, tables, failures and samples, as far as the track has them."""
    compared = _comparison(track)
    charts = [loss_curve(track.steps, LOSS[track.name]), norm_curve(track.steps), *compared.charts]
    tables = [_cost(track.headline or {}), *compared.tables]
    return template(Path(__file__).with_name("track.html.j2"))(
        charts=[chart for chart in charts if chart],
        tables=[table for table in tables if table],
        notes=compared.notes,
        failures=_failures_by_cause(track.failures),
        failure_count=len(track.failures),
        samples=track.samples,
    )


def _comparison(track: Track) -> Comparison:
    before, after = track.before, track.after
    if not before or not after:
        return Comparison()
    if track.name == "cpt":
        return Comparison(tables=[_files(before, after)])
    if "causes" in after:  # text tasks (eval/text), which run nothing and have classes instead of categories
        return text_comparison(before, after, track.headline or {})
    if track.name == "embed":
        return Comparison(charts=[_retrieval_chart(before, after)], tables=[_beside_bm25(before, after)])
    return Comparison(
        charts=_category_charts(before, after),
        tables=[_categories(before, after), _gold(before, after), _hallucinations(before, after)],
        notes=_sandbox_notes(after),
    )


def _cost(headline: dict) -> Table | None:
    """What the run cost, beside what it brought."""
    cost = headline.get("cost")
    if not cost:
        return None
    rows = [(name, shown(cost[key])) for key, (name, shown) in COST.items() if key in cost]
    return Table("Cost", ("", ""), rows)


def _files(before: dict, after: dict) -> Table | None:
    """Perplexity per file, the largest decrease first."""
    first, last = ({row["path"]: row for row in side.get("files", [])} for side in (before, after))
    rows = []
    for path in first.keys() & last.keys():
        old, new = (math.exp(side[path]["nll"] / side[path]["tokens"]) for side in (first, last))
        rows.append((new - old, path, last[path]["tokens"], old, new))
    if not rows:
        return None
    note = f"Perplexity fell on {sum(row[0] < 0 for row in rows)} of {len(rows)} held-out files."
    if odd := sorted(first.keys() ^ last.keys()):
        note += f" Measured on one side only, and not compared: {', '.join(odd)}."
    shown = [
        (path, f"{tokens:,}", number(old), number(new), number(change, sign=True))
        for change, path, tokens, old, new in sorted(rows)
    ]
    head = ("file", "tokens", "perplexity before", "after", "change")
    return Table("By file", head, shown, above=note, long=True)


def _by_category(before: dict, after: dict) -> dict[str, tuple[dict, dict]]:
    """category -> its part of both results, for the categories that both have."""
    one, other = (side.get("by_category") or {} for side in (before, after))
    return {name: (one[name], other[name]) for name in sorted(one.keys() & other.keys())}


def _category_charts(before: dict, after: dict) -> list[Safe]:
    charts = []
    for metric in CATEGORY_CHARTS:
        rows = {}
        for category, sides in _by_category(before, after).items():
            if all(metric in side["metrics"] for side in sides):
                rows[category] = [_dot(name, name, metric, side) for name, side in zip(SIDES, sides, strict=True)]
        if rows:
            charts.append(dots(f"{metric} by category, with 95 % intervals", rows))
    return charts


def _dot(series: str, color: str, metric: str, result: dict) -> Dot:
    return Dot(series, color, result["metrics"][metric], result.get("intervals", {}).get(metric))


def _categories(before: dict, after: dict) -> Table | None:
    rows = []
    for category, (one, other) in _by_category(before, after).items():
        for metric in dict.fromkeys([*one["metrics"], *other["metrics"]]):
            if metric.startswith(PUBLISHED):  # a second set, of form alone: eval.instruct prints it
                continue
            values = [side["metrics"].get(metric) for side in (one, other)]
            n = other.get("n_of", {}).get(metric, other["n"])
            change = NONE if None in values else number(values[1] - values[0], sign=True)
            rows.append((category, metric, *map(figure, values), change, n))
    head = ("category", "metric", "before", "after", "change", "n after")
    return Table("By category", head, rows, texts=2, long=True) if rows else None


def _gold(before: dict, after: dict) -> Table | None:
    """Metrics next to those of the pairs' own answers, which show what can be reached."""
    gold = after.get("gold", {}).get("metrics", {})
    rows = [
        (metric, *(figure(side["metrics"].get(metric)) for side in (before, after)), number(value))
        for metric, value in gold.items()
    ]
    note = "Gold is the same metric on the pairs' own answers: what can be reached, and how often the metric errs."
    return Table("Beside the gold answers", ("metric", "before", "after", "gold"), rows, above=note) if rows else None


def _hallucinations(before: dict, after: dict) -> Table | None:
    """Names that exist nowhere, by kind."""
    sides = [before.get("hallucination"), after.get("hallucination"), after.get("gold", {}).get("hallucination")]
    if not sides[1]:
        return None

    def share(side: dict | None, kind: str) -> str:
        return f"{side[kind]['invented']:,} of {side[kind]['checked']:,}" if side and kind in side else NONE

    rows = [(kind, *(share(side, kind) for side in sides)) for kind in sides[1]]
    false = sorted({name for names in after.get("gold", {}).get("invented", {}).values() for name in names})
    note = "No gold answer is reported to invent a name."
    if false:
        note = f"Reported as invented in a gold answer, and therefore wrongly: {', '.join(false)}."
    head = ("kind", "before", "after", "gold")
    return Table("Names that exist nowhere, of those looked up", head, rows, below=note)


def _sandbox_notes(after: dict) -> list[str]:
    sandbox = after.get("sandbox")
    if not sandbox:
        return []
    note = f"Answers ran in the sandbox at tier {sandbox['tier']}."
    if missing := sandbox.get("not_available"):
        note += f" Not available here: {', '.join(map(str, missing))}."
    return [note]


def _systems(before: dict, after: dict) -> dict[str, tuple[str, dict]]:
    """name -> colour and result of each system that was measured."""
    systems = {"BM25": ("ink", after.get("bm25")), "before": ("before", before), "after": ("after", after)}
    return {name: (color, result) for name, (color, result) in systems.items() if result}


def _at_10(result: dict) -> list[str]:
    return [metric for metric in result["metrics"] if metric.endswith("@10")]


def _retrieval_chart(before: dict, after: dict) -> Safe:
    systems = _systems(before, after)
    rows = {
        metric: [
            _dot(name, color, metric, result)
            for name, (color, result) in systems.items()
            if metric in result["metrics"]
        ]
        for metric in _at_10(after)
    }
    return dots("Retrieval, with 95 % intervals", rows)


def _beside_bm25(before: dict, after: dict) -> Table:
    metrics, rows = _at_10(after), []
    for name, (_, result) in _systems(before, after).items():
        cells = []
        for metric in metrics:
            ends = ", ".join(number(end) for end in result["intervals"].get(metric, ()))
            cells.append(f"{number(result['metrics'][metric])} [{ends}]" if metric in result["metrics"] else NONE)
        rows.append((name, *cells))
    above = f"{after['n']:,} queries against {after['candidates']:,} candidates, with 95 % intervals."
    below = ""
    if after.get("bm25"):
        changes = compare({**after, **after["bm25"]}, after)
        words = (f"{m} {number(changes[m]['value'], sign=True)}, {verdict_phrase(m, changes[m])}" for m in metrics)
        below = f"After tuning, paired against BM25: {'; '.join(words)}."
    return Table("Beside BM25", ("system", *metrics), rows, above=above, below=below)


def _failures_by_cause(failures: Sequence[dict]) -> list[tuple[str, list[dict]]]:
    """(cause, failures), the most frequent cause first."""
    by_cause = defaultdict(list)
    for row in failures:
        by_cause[row["cause"]].append(row)
    return [(cause, by_cause[cause]) for cause, _ in Counter(row["cause"] for row in failures).most_common()]
