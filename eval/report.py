"""One self-contained HTML page of a run: what changed and how sure that is, how it was learnt, where it fails.

The page reads what lies in the run folder and nothing else, points nowhere outside itself, and escapes every text:
most of them were generated.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from eval.charts import category_bars, loss_curve
from eval.compare import compare, number, verdict
from model.console import UserError, run_command
from model.files import read_json, read_jsonl, write_text
from model.markup import Safe, code, details, element, join, markdown, note, page, safe, table

NAMES = {"cpt": "A · Continued pre-training", "sft": "B · Instruction tuning", "embed": "C · Embedding tuning"}
FIRST_METRIC = {"cpt": "perplexity", "sft": "pass@1", "embed": "ndcg@10"}  # the one on the track's card
LOSS = {"cpt": "loss, nats per token", "sft": "loss, nats per token", "embed": "InfoNCE loss, nats"}
PAIRED = (
    "Every change is paired: the same held-out tasks (or files) before and after, resampled together. “Not "
    "distinguishable” means that a change of this size could be chance at this n."
)


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


def write_report(folder: Path, *, title: str) -> Path:
    """Write folder/report.html from the run's files and return its path.

    folder  a quickstart's (metrics.json, data_card.md and a folder for each of cpt, sft, embed), or one training run's
            (the track's files in it, "track" in config.json); docs/formats gives the files
    A file that is missing leaves its part out, and a track of a quickstart that did not run is named as such. Without
    matplotlib the page has no pictures, and says so. Raises UserError if there is nothing to report, or for a file
    that cannot be read.
    """
    folder = Path(folder)
    metrics = _read(folder / "metrics.json") or {}
    single = (_read(folder / "config.json") or {}).get("track")
    places = {single: folder} if single else {name: folder / name for name in NAMES}
    tracks = [_track(name, place, metrics) for name, place in places.items()]
    ran = [track for track in tracks if track.headline or track.config or track.steps]
    if not ran:
        raise UserError(f"{folder}: nothing to report (no metrics.json and no run of {', '.join(NAMES)} in it)")
    card = folder / "data_card.md"
    sections = [
        ("results", "Results", _results(tracks, metrics)),
        *((track.name, NAMES[track.name], _track_section(track)) for track in ran),
        ("data", "Data card", markdown(_text(card)) if card.exists() else ""),
        ("configuration", "Configuration", join(_configuration(track) for track in ran)),
        ("versions", "Versions", _versions(ran, metrics)),
    ]
    path = folder / "report.html"
    write_text(path, page(title, _about(ran, metrics), [section for section in sections if section[2]]))
    return path


def _about(tracks: list[Track], metrics: dict) -> str:
    each = metrics.get("seconds", {})
    seconds = each.get("total", sum(each.values()))
    environment = next((track.environment for track in tracks if track.environment), {})
    parts = [f"{len(tracks)} of {len(NAMES)} tracks" if len(tracks) > 1 else NAMES[tracks[0].name]]
    parts += [str(environment[key]) for key in ("device", "corpus") if key in environment]
    return " · ".join(parts + ([_duration(seconds)] if seconds else []))


def _results(tracks: list[Track], metrics: dict) -> Safe:
    measured = [track for track in tracks if track.headline]
    rows = [row for track in measured for row in _headline_rows(track)]
    head = ("track", "metric", "before", "after", "change", "95 % interval", "n", "verdict")
    missing = [NAMES[track.name] for track in tracks if not track.headline]
    bm25 = {name: value for track in measured for name, value in (track.headline.get("bm25") or {}).items()}
    return join(
        [
            element("div", join(_card(track) for track in measured), class_="cards") if measured else "",
            table(head, rows, texts=2) if rows else "",
            note(f"BM25 on the queries of C: {_listed(bm25)}.") if bm25 else "",
            note(f"Did not run to its end: {'; '.join(missing)}.") if missing else "",
            note(PAIRED) if rows else "",
            _facts(metrics),
        ]
    )


def _facts(metrics: dict) -> Safe:
    names = [name for name in ("sizes", "settings", "seconds") if metrics.get(name)]
    facts = [element("div", element("h3", name.capitalize()) + _dictionary(metrics[name])) for name in names]
    return element("div", join(facts), class_="facts") if facts else Safe("")


def _listed(values: dict[str, float]) -> str:
    return ", ".join(f"{name} {number(value)}" for name, value in values.items())


def _headline_rows(track: Track) -> list[tuple]:
    letter = NAMES[track.name][0]
    return _metric_rows(letter, track.headline) + _metric_rows(
        letter, track.headline.get("probe") or {}, of=" of other texts"
    )


def _metric_rows(letter: str, measured: dict, *, of: str = "") -> list[tuple]:
    before, after, changes = (measured.get(key) or {} for key in ("before", "after", "change"))
    rows = []
    for metric in dict.fromkeys([*before, *after]):
        values = [number(side[metric]) if side.get(metric) is not None else "–" for side in (before, after)]
        change = changes.get(metric)
        rows.append((letter, metric + of, *values, *(_change_cells(metric, change) if change else ("–",) * 4)))
    return rows


def _change_cells(metric: str, change: dict) -> tuple:
    low, high = (number(end, sign=True) for end in change["interval"])
    return number(change["value"], sign=True), f"[{low}, {high}]", change["n"], _badge(verdict(metric, change))


def _badge(word: str) -> Safe:
    return element("span", word, class_=f"verdict {word.split()[0]}")


def _card(track: Track) -> Safe:
    before, after, changes = (track.headline.get(key) or {} for key in ("before", "after", "change"))
    metric = FIRST_METRIC[track.name]
    if before.get(metric) is None or after.get(metric) is None:
        return Safe("")
    arrow = element("span", f"{number(before[metric])} →", class_="from") + Safe(f" {number(after[metric])}")
    change = changes.get(metric)
    told = f"{metric}, n = {change['n']} " if change else metric
    return element(
        "div",
        join(
            [
                element("p", NAMES[track.name], class_="track"),
                element("p", arrow, class_="change"),
                element("p", safe(told) + (_badge(verdict(metric, change)) if change else ""), class_="metric"),
            ]
        ),
        class_="card",
    )


def _track_section(track: Track) -> Safe:
    parts = [_pictures(track)]
    if track.name == "cpt" and track.before and track.after:
        parts.append(_files(track.before, track.after))
    if track.name == "sft" and track.before and track.after:
        parts.append(_categories(track.before, track.after))
    if track.name == "embed" and track.after:
        parts.append(_beside_bm25(track.before, track.after))
    parts.append(_failures(track.failures))
    if track.samples:
        parts.append(details("Samples", markdown(track.samples, top=4)))
    return join(parts)


def _pictures(track: Track) -> Safe:
    try:
        pictures = [loss_curve(f"{track.name}-loss", track.steps, LOSS[track.name])]
        if track.name == "sft" and track.before and track.after:
            for metric in ("pass@1", "lenient_pass@1"):
                before, after = (_by_category(result, metric) for result in (track.before, track.after))
                if after:
                    pictures.append(category_bars(f"sft-{len(pictures)}", before, after, metric))
    except UserError as error:  # matplotlib is missing: a run of twenty minutes must not end without its report
        return note(error)
    shown = [picture for picture in pictures if picture]
    return element("div", join(shown), class_="figures") if shown else Safe("")


def _by_category(result: dict, metric: str) -> dict[str, float]:
    categories = result.get("by_category") or {}
    return {name: row["metrics"][metric] for name, row in sorted(categories.items()) if metric in row["metrics"]}


def _files(before: dict, after: dict) -> Safe:
    """Per-file perplexity, the largest fall first."""
    first = {row["path"]: row for row in before.get("files", [])}
    rows = []
    for row in after.get("files", []):
        if row["path"] in first:
            old, new = (math.exp(side["nll"] / side["tokens"]) for side in (first[row["path"]], row))
            rows.append((new - old, row["path"], row["tokens"], old, new))
    if not rows:
        return Safe("")
    fell = sum(row[0] < 0 for row in rows)
    shown = [
        (path, f"{tokens:,}", number(old), number(new), number(change, sign=True))
        for change, path, tokens, old, new in sorted(rows)
    ]
    head = ("file", "tokens", "perplexity before", "after", "change")
    told = note(f"Perplexity fell on {fell} of {len(rows)} held-out files.")
    return element("h3", "By file") + told + table(head, shown, class_="table long")


def _categories(before: dict, after: dict) -> Safe:
    categories = sorted(after.get("by_category") or {})
    metrics = [m for m in after["metrics"] if _by_category(after, m)]
    if not categories or not metrics:
        return Safe("")
    sides = [{metric: _by_category(result, metric) for metric in metrics} for result in (before, after)]
    rows = []
    for category in categories:
        pairs = ([side[metric].get(category) for side in sides] for metric in metrics)
        cells = ("–" if None in pair else " → ".join(map(number, pair)) for pair in pairs)
        rows.append((category, after["by_category"][category]["n"], *cells))
    return element("h3", "By category, before → after") + table(("category", "n", *metrics), rows)


def _beside_bm25(before: dict | None, after: dict) -> Safe:
    results = {"BM25": after.get("bm25"), "before": before, "after": after}
    metrics = list(after["metrics"])
    rows = []
    for name, result in results.items():
        if result:
            intervals = {m: ", ".join(number(end) for end in result["intervals"][m]) for m in metrics}
            rows.append((name, *(f"{number(result['metrics'][m])} [{intervals[m]}]" for m in metrics)))
    told = f"{after['n']:,} queries against {after['candidates']:,} candidates, each value with its 95 % interval."
    parts = [element("h3", "Beside BM25"), note(told), table(("", *metrics), rows)]
    if after.get("bm25"):
        changes = compare({**after, **after["bm25"]}, after)
        told = "; ".join(f"{m} {number(c['value'], sign=True)}, {verdict(m, c)}" for m, c in changes.items())
        parts.append(note(f"After tuning, paired against BM25: {told}."))
    return join(parts)


def _failures(failures: list[dict]) -> Safe:
    if not failures:
        return Safe("")
    causes = Counter(row["cause"] for row in failures).most_common()
    told = ", ".join(f"{cause} ({count})" if count > 1 else cause for cause, count in causes)
    shown = []
    for row in failures:
        label = join(
            [element("strong", row["category"]), safe(row["cause"]), element("span", row["id"], class_="id")], " · "
        )
        parts = [
            element("h4", name.capitalize()) + code(row[name])
            for name in ("prompt", "answer", "check")
            if row.get(name)
        ]
        shown.append(details(label, join(parts)))
    return join([element("h3", f"{len(failures)} failures"), note(f"Causes: {told}."), *shown])


def _configuration(track: Track) -> Safe:
    options = (track.config or {}).get("options") or {}
    if not options:
        return Safe("")
    rows = [(name, _plain(option["value"]), option["from"]) for name, option in options.items()]
    return details(NAMES[track.name], table(("option", "value", "from"), rows, texts=3))


def _versions(tracks: list[Track], metrics: dict) -> Safe:
    """One table; a key that differs between the tracks has a row for each."""
    rows: dict[tuple[str, str], list[str]] = {}
    for track in tracks:
        for key, value in (track.environment or {}).items():
            rows.setdefault((key, _plain(value)), []).append(track.name)
    shown = [
        (key, value, "all" if len(names) == len(tracks) else ", ".join(names)) for (key, value), names in rows.items()
    ]
    return table(("", "value", "track"), sorted(shown), texts=3) if shown else Safe("")


def _dictionary(values: dict) -> Safe:
    """A small table without a head; what lies one level below is written out beside its key."""
    rows = []
    for key, value in values.items():
        inner = value.items() if isinstance(value, dict) else [("", value)]
        rows += [(f"{key} {name}".strip(), _plain(item)) for name, item in inner]
    return table((), rows)


def _plain(value: object) -> str:
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return {True: "yes", False: "no", None: "–"}.get(value, value) if not isinstance(value, str) else value
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else json.dumps(value, ensure_ascii=False)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _track(name: str, folder: Path, metrics: dict) -> Track:
    if name not in NAMES:
        raise UserError(f"{folder / 'config.json'}: unknown track {name!r}; known are {', '.join(NAMES)}")
    steps, samples = folder / "metrics.jsonl", folder / "samples.md"
    return Track(
        name=name,
        headline=metrics.get("tracks", {}).get(name),
        config=_read(folder / "config.json"),
        environment=_read(folder / "environment.json"),
        steps=read_jsonl(steps) if steps.exists() else [],
        before=_read(folder / "before.json"),
        after=_read(folder / "after.json"),
        failures=_rows(folder / "failures.json"),
        samples=_text(samples) if samples.exists() else "",
    )


def _read(path: Path) -> dict | None:
    return read_json(path) if path.exists() else None


def _rows(path: Path) -> list[dict]:
    """failures.json holds a list; read_json is for objects."""
    if not path.exists():
        return []
    try:
        rows = json.loads(_text(path))
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: not readable as JSON ({error})") from None
    if not isinstance(rows, list) or not all(
        isinstance(row, dict) and row.keys() >= {"id", "category", "cause"} for row in rows
    ):
        raise UserError(f"{path}: expected a list of objects with id, category and cause")
    return rows


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")


def main() -> None:
    """The command `python -m eval.report`."""
    parser = argparse.ArgumentParser(prog="python -m eval.report", description="Write report.html of a run folder.")
    parser.add_argument("folder", help="run folder of quickstart or of a training script")
    parser.add_argument("--title", default="tritune report", help="heading of the page (default: tritune report)")
    options = parser.parse_args()
    print(write_report(Path(options.folder), title=options.title))


if __name__ == "__main__":
    sys.exit(run_command(main))
