"""What the report shows of text tasks: classes, confusions, baselines, causes of errors."""

from __future__ import annotations

from eval.change_table import number, verdict_phrase
from eval.charts import Dot, dots
from eval.report.parts import NONE, Comparison, Table

LIKELIHOOD = "likelihood"  # the part of a result about the most likely label
SIDES = ("before", "after")
MOST_CHARTED, MOST_CONFUSED = 12, 25  # labels in the chart, and in the table of confusions


def text_comparison(before: dict, after: dict, headline: dict) -> Comparison:
    """Charts, tables and notes of a text task, before and after."""
    sides, tables, charts = (before, after), [_baselines(headline)], []
    for kind, of in (("generated answers", None), ("most likely labels", LIKELIHOOD)):
        parts = [side if of is None else side.get(of, {}) for side in sides]
        if all("classes" in part for part in parts):
            charts.append(_chart(parts, kind) if of is None else None)
            tables += [_classes(parts, kind), _confusion(parts[1], kind)]
    tables.append(_causes(before, after))
    notes = [f"No baseline of {line}." for line in before.get("baselines_missing", [])]
    if after.get("shortened"):
        notes.append(f"{after['shortened']:,} of {after['n']:,} texts were cut at their end to fit.")
    return Comparison(charts=charts, tables=tables, notes=notes)


def _baselines(headline: dict) -> Table | None:
    rows = []
    for name, one in (headline.get("baselines") or {}).items():
        for metric, change in one["change"].items():
            low, high = (number(end, sign=True) for end in change["interval"])
            ours = headline["after"][metric]
            theirs = number(ours - change["value"])
            interval = f"[{low}, {high}]"
            change_shown = number(change["value"], sign=True)
            rows.append((name, metric, theirs, number(ours), change_shown, interval, verdict_phrase(metric, change)))
    head = ("baseline", "metric", "baseline", "after", "change", "95 % interval", "verdict")
    note = "What needs no language model, on the same rows; the change from it to the trained model is paired."
    return Table("Beside baselines", head, rows, above=note, texts=2) if rows else None


def _classes(parts: list[dict], kind: str) -> Table:
    rows = []
    for label, last in parts[1]["classes"].items():
        first = parts[0]["classes"].get(label, {})
        cells = [
            f"{number(first[name]) if first else NONE} → {number(last[name])}" for name in ("precision", "recall", "f1")
        ]
        low, high = last["intervals"]["f1"]
        rows.append((label, last["n"], *cells, f"[{number(low)}, {number(high)}]"))
    head = ("label", "n", "precision", "recall", "F1", "95 % interval of F1 after")
    return Table(f"By label, {kind}", head, rows, long=True)


def _chart(parts: list[dict], kind: str):
    labels = [*parts[1]["classes"]][:MOST_CHARTED]
    rows = {
        label: [
            Dot(side, side, part["classes"][label]["f1"], part["classes"][label]["intervals"]["f1"])
            for side, part in zip(SIDES, parts, strict=True)
            if label in part["classes"]
        ]
        for label in labels
    }
    return dots(f"F1 by label, {kind}, with 95 % intervals", rows)


def _confusion(after: dict, kind: str) -> Table | None:
    confusion = after["confusion"]
    if len(confusion["rows"]) > MOST_CONFUSED:
        return None
    rows = [(label, *counts) for label, counts in zip(confusion["rows"], confusion["counts"], strict=True)]
    note = "Rows are the right labels, columns the given ones."
    head = ("right", *confusion["columns"])
    return Table(f"Confusions after training, {kind}", head, rows, above=note, long=True)


def _causes(before: dict, after: dict) -> Table | None:
    names = dict.fromkeys([*after["causes"], *before.get("causes", {})])
    rows = [(name, before.get("causes", {}).get(name, 0), after["causes"].get(name, 0)) for name in names]
    return Table("Errors by cause", ("cause", *SIDES), rows, long=True) if rows else None
