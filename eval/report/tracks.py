"""What the report shows of a track: how it was learnt, what changed in which part, and failures to read."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from dataclasses import dataclass

from common.html import Safe, code, details, element, join, markdown, note, safe, table
from eval.change_table import number, verdict_phrase
from eval.charts import Dot, dots, loss_curve, norm_curve
from eval.compare import compare

LOSS = {"cpt": "nats per token", "sft": "nats per token", "embed": "InfoNCE in nats"}
SIDES = (("before", "before"), ("after", "after"))  # and the colour of each
DRAWN = ("pass@1", "lenient_pass@1")


@dataclass(frozen=True)
class Track:
    """What a track left in its folder; None or empty where it left nothing."""

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
    """Curves and pictures, tables, failures, samples; each where there is something to show."""
    pictures = [loss_curve(track.steps, LOSS[track.name]), norm_curve(track.steps)]
    parts = []
    if track.before and track.after:
        if track.name == "cpt":
            parts.append(_files(track.before, track.after))
        elif track.name == "sft":
            pictures += _category_pictures(track.before, track.after)
            parts += [_categories(track.before, track.after), _beside_gold(track.before, track.after)]
            parts += [_invented(track.before, track.after), _sandbox(track.after)]
        else:
            pictures.append(_retrieval_picture(track.before, track.after))
            parts.append(_beside_bm25(track.before, track.after))
    parts.append(_failures(track.failures))
    if track.samples:
        parts.append(details("Samples", markdown(track.samples, top=4)))
    shown = [picture for picture in pictures if picture]
    return join([element("div", join(shown), class_="figures") if shown else "", *parts])


def _files(before: dict, after: dict) -> Safe:
    """Per-file perplexity, the largest fall first."""
    first, last = ({row["path"]: row for row in side.get("files", [])} for side in (before, after))
    rows = []
    for path in first.keys() & last.keys():
        old, new = (math.exp(side[path]["nll"] / side[path]["tokens"]) for side in (first, last))
        rows.append((new - old, path, last[path]["tokens"], old, new))
    if not rows:
        return Safe("")
    told = f"Perplexity fell on {sum(row[0] < 0 for row in rows)} of {len(rows)} held-out files."
    if odd := sorted(first.keys() ^ last.keys()):
        told += f" Measured on one side alone, and not compared: {', '.join(odd)}."
    shown = [
        (path, f"{tokens:,}", number(old), number(new), number(change, sign=True))
        for change, path, tokens, old, new in sorted(rows)
    ]
    head = ("file", "tokens", "perplexity before", "after", "change")
    return element("h3", "By file") + note(told) + table(head, shown, class_="table long")


def _by_category(before: dict, after: dict) -> dict[str, tuple[dict, dict]]:
    """category -> its part of both results, where both have it."""
    one, other = (side.get("by_category") or {} for side in (before, after))
    return {name: (one[name], other[name]) for name in sorted(one.keys() & other.keys())}


def _category_pictures(before: dict, after: dict) -> list[Safe]:
    pictures = []
    for metric in DRAWN:
        rows = {}
        for category, sides in _by_category(before, after).items():
            if all(metric in side["metrics"] for side in sides):
                rows[category] = [
                    _dot(when, color, metric, side) for (when, color), side in zip(SIDES, sides, strict=True)
                ]
        if rows:
            pictures.append(dots(f"{metric} by category, with 95 % intervals", rows))
    return pictures


def _dot(series: str, color: str, metric: str, result: dict) -> Dot:
    return Dot(series, color, result["metrics"][metric], result.get("intervals", {}).get(metric))


def _categories(before: dict, after: dict) -> Safe:
    rows = []
    for category, (one, other) in _by_category(before, after).items():
        for metric in dict.fromkeys([*one["metrics"], *other["metrics"]]):
            values = [side["metrics"].get(metric) for side in (one, other)]
            n = other.get("n_of", {}).get(metric, other["n"])
            shown = ("–" if value is None else number(value) for value in values)
            change = "–" if None in values else number(values[1] - values[0], sign=True)
            rows.append((category, metric, *shown, change, n))
    if not rows:
        return Safe("")
    head = ("category", "metric", "before", "after", "change", "n after")
    return element("h3", "By category") + table(head, rows, texts=2, class_="table long")


def _beside_gold(before: dict, after: dict) -> Safe:
    """The measures of text beside those of the pairs' own answers: what is to be had."""
    gold = after.get("gold", {}).get("metrics", {})
    rows = [
        (
            metric,
            *("–" if metric not in side else number(side[metric]) for side in (before["metrics"], after["metrics"])),
            number(value),
        )
        for metric, value in gold.items()
    ]
    if not rows:
        return Safe("")
    told = "Gold is the same measure of the pairs' own answers: what can be had, and how often the measure itself errs."
    return element("h3", "Beside the gold answers") + note(told) + table(("metric", "before", "after", "gold"), rows)


def _invented(before: dict, after: dict) -> Safe:
    """Names that exist nowhere, by kind, of those that were looked up."""
    sides = [before.get("hallucination"), after.get("hallucination"), after.get("gold", {}).get("hallucination")]
    if not sides[1]:
        return Safe("")
    rows = [
        (
            kind,
            *(
                f"{side[kind]['invented']:,} of {side[kind]['checked']:,}" if side and kind in side else "–"
                for side in sides
            ),
        )
        for kind in sides[1]
    ]
    false = sorted({name for names in after.get("gold", {}).get("invented", {}).values() for name in names})
    told = (
        f"Called invented in a gold answer, and so wrongly: {', '.join(false)}."
        if false
        else "No gold answer is said to invent a name."
    )
    head = ("kind", "before", "after", "gold")
    return element("h3", "Names that exist nowhere, of those looked up") + table(head, rows) + note(told)


def _sandbox(after: dict) -> Safe:
    sandbox = after.get("sandbox")
    if not sandbox:
        return Safe("")
    told = f"Answers ran in the sandbox at tier {sandbox['tier']}."
    missing = sandbox.get("not_available")
    return note(f"{told} Not available here: {', '.join(map(str, missing))}." if missing else told)


def _retrieval_results(before: dict, after: dict) -> dict[str, tuple[str, dict]]:
    """name -> colour and result of each that there is."""
    results = {"BM25": ("ink", after.get("bm25")), "before": ("before", before), "after": ("after", after)}
    return {name: (color, result) for name, (color, result) in results.items() if result}


def _retrieval_picture(before: dict, after: dict) -> Safe:
    results = _retrieval_results(before, after)
    rows = {
        metric: [
            _dot(name, color, metric, result)
            for name, (color, result) in results.items()
            if metric in result["metrics"]
        ]
        for metric in after["metrics"]
        if metric.endswith("@10")
    }
    return dots("Retrieval, with 95 % intervals", rows)


def _beside_bm25(before: dict, after: dict) -> Safe:
    metrics = [metric for metric in after["metrics"] if metric.endswith("@10")]
    rows = []
    for name, (_, result) in _retrieval_results(before, after).items():
        cells = []
        for metric in metrics:
            ends = ", ".join(number(end) for end in result["intervals"].get(metric, ()))
            cells.append(f"{number(result['metrics'][metric])} [{ends}]" if metric in result["metrics"] else "–")
        rows.append((name, *cells))
    told_n = f"{after['n']:,} queries against {after['candidates']:,} candidates, each value with its 95 % interval."
    parts = [element("h3", "Beside BM25"), note(told_n), table(("system", *metrics), rows)]
    if after.get("bm25"):
        changes = compare({**after, **after["bm25"]}, after)
        words = "; ".join(
            f"{m} {number(changes[m]['value'], sign=True)}, {verdict_phrase(m, changes[m])}" for m in metrics
        )
        parts.append(note(f"After tuning, paired against BM25: {words}."))
    return join(parts)


def _failures(failures: list[dict]) -> Safe:
    """By cause, the most frequent first."""
    if not failures:
        return Safe("")
    by_cause = defaultdict(list)
    for row in failures:
        by_cause[row["cause"]].append(row)
    parts = [element("h3", f"{len(failures)} failures, by cause")]
    for cause, count in Counter(row["cause"] for row in failures).most_common():
        parts += [element("h4", f"{cause} ({count})"), *map(_failure, by_cause[cause])]
    return join(parts)


def _failure(row: dict) -> Safe:
    label = element("strong", row["category"]) + " · " + element("span", row["id"], class_="id")
    parts = _texts(row, {"prompt": "Prompt", "answer": "Answer", "check": "What the check saw"})
    if nearest := row.get("nearest"):
        name = safe("Nearest training example · ") + element("span", nearest.get("id", ""), class_="id")
        parts.append(details(name, join(_texts(nearest, {"prompt": "Prompt", "answer": "Answer"}))))
    return details(label, join(parts))


def _texts(row: dict, names: dict[str, str]) -> list[Safe]:
    return [element("h5", name) + code(row[key]) for key, name in names.items() if row.get(key)]
