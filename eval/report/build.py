"""One self-contained HTML page of a run: what changed and how sure that is, how it was learnt, where it fails.

The page reads what lies in the run folder and nothing else, points nowhere outside itself, and escapes every text:
most of them were generated. What it shows of each track is in eval/report/tracks.py.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from common.console import UserError
from common.files import read_json, read_json_list, read_jsonl, write_text
from common.html import Safe, details, element, join, markdown, note, page, safe, table
from eval.change_table import LOWER_IS_BETTER, number, verdict, verdict_phrase
from eval.charts import interval_strip
from eval.report.schema import read_metrics
from eval.report.tracks import Track, track_section

NAMES = {"cpt": "A · Continued pre-training", "sft": "B · Instruction tuning", "embed": "C · Embedding tuning"}
FIRST_METRIC = {"cpt": "perplexity", "sft": "pass@1", "embed": "ndcg@10"}  # the one on the track's card
PAIRED = (
    "Every change is paired: the same held-out tasks (or files) before and after. It is told apart from chance where "
    "its 95 % interval does not hold zero and p is at most 0.05; “needs” says about how many would tell a change like "
    "it. Each interval is drawn to its own scale: the line is no change, right of it is better."
)
MEANING = {
    "perplexity": "among how many tokens the model hesitates at each token of held-out code; lower is better",
    "bits_per_byte": "bits it takes to tell the next byte of held-out code, whatever the tokenizer; lower is better",
    "pass@1": "share of the tasks that can be run whose greedy answer passes its check in the sandbox",
    "pass@3": "chance that one of three sampled answers passes, estimated without bias",
    "lenient_pass@1": "share of all tasks whose greedy answer has the right form, without running it",
    "lenient_pass@3": "chance that one of three sampled answers has the right form",
    "style": "share of greedy answers in code in which ruff finds nothing",
    "hallucination_rate": "share of greedy answers that use a name which exists nowhere, of those with a name to look "
    "up; lower is better",
    "mutation_score": "share of planted bugs that the tests of an answer notice",
    "improvement": "share of rewritten functions that behave as before and measure better",
    "docstring_match": "parts of a function (arguments, returns, raises) that its docstring gets right",
    "docstring_clean": "share of docstrings in which ruff's pydocstyle rules find nothing",
    "explanation_coverage": "what a function takes, calls and raises and the explanation mentions",
    "mrr@10": "one over the rank of the right code, 0 beyond ten, mean over the queries",
    "ndcg@10": "how early the right code comes among the first ten: 1 is first",
    "recall@10": "share of the right codes among the first ten",
}


def write_report(folder: Path, *, title: str) -> Path:
    """Write folder/report.html from the run's files and return its path.

    folder  a quickstart's (metrics.json, data_card.md and a folder for each of cpt, sft, embed), or one training run's
            (the track's files in it, "track" in config.json); docs/formats gives the files
    A file that is missing leaves its part out, and a track of a quickstart that did not run is named as such. Raises
    UserError if there is nothing to report, for a file that cannot be read, and for a metrics.json that does not keep
    to its form (eval/report/schema.py).
    """
    folder = Path(folder)
    summary = folder / "metrics.json"
    metrics = read_metrics(summary) if summary.exists() else {}
    single = (_read(folder / "config.json") or {}).get("track")
    places = {single: folder} if single else {name: folder / name for name in NAMES}
    tracks = [_track(name, place, metrics) for name, place in places.items()]
    ran = [track for track in tracks if track.headline or track.config or track.steps]
    if not ran:
        raise UserError(f"{folder}: nothing to report (no metrics.json and no run of {', '.join(NAMES)} in it)")
    card = folder / "data_card.md"
    sections = [
        ("results", "Results", _results(tracks, metrics)),
        *((track.name, NAMES[track.name], track_section(track)) for track in ran),
        ("data", "Data card", markdown(_text(card)) if card.exists() else ""),
        ("configuration", "Configuration", join([*(_configuration(track) for track in ran), _facts(metrics)])),
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
    head = ("track", "metric", "before", "after", "change", "95 % interval", "p", "n", "verdict")
    missing = [NAMES[track.name] for track in tracks if not track.headline]
    bm25 = {name: value for track in measured for name, value in (track.headline.get("bm25") or {}).items()}
    return join(
        [
            _lead(measured),
            element("div", join(_card(track) for track in measured), class_="cards") if measured else "",
            table(head, rows, texts=2) if rows else "",
            note(PAIRED) if rows else "",
            note(f"BM25 on the queries of C: {_listed(bm25)}.") if bm25 else "",
            *(note(line) for track in measured for line in _partly_paired(track)),
            note(f"Did not run to its end: {'; '.join(missing)}.") if missing else "",
            _meanings(measured),
        ]
    )


def _listed(values: dict[str, float]) -> str:
    return ", ".join(f"{name} {number(value)}" for name, value in values.items())


def _lead(tracks: list[Track]) -> Safe:
    """The answer in a sentence: how many metrics went which way."""
    verdicts = Counter(verdict(*item) for track in tracks for item in (track.headline.get("change") or {}).items())
    if not verdicts:
        return Safe("")
    better, worse, same = (verdicts[word] for word in ("better", "worse", "not distinguishable"))
    strong = element("strong", f"{better} of {verdicts.total()} metrics are better")
    rest = f", {worse} {'is' if worse == 1 else 'are'} worse, and {same} cannot be told from chance at this size."
    return element("p", safe("On held-out data ") + strong + rest, class_="lead")


def _headline_rows(track: Track) -> list[tuple]:
    letter = NAMES[track.name][0]
    rows = _metric_rows(letter, track.headline)
    return rows + _metric_rows(letter, track.headline.get("probe") or {}, of=" of other texts")


def _metric_rows(letter: str, measured: dict, *, of: str = "") -> list[tuple]:
    before, after, changes = (measured.get(key) or {} for key in ("before", "after", "change"))
    rows = []
    for metric in dict.fromkeys([*before, *after]):
        values = [number(side[metric]) if metric in side else "–" for side in (before, after)]
        cells = _change_cells(metric, changes[metric]) if metric in changes else (*("–",) * 4, "not compared")
        rows.append((letter, metric + of, *values, *cells))
    return rows


def _change_cells(metric: str, change: dict) -> tuple:
    p = "<0.001" if change["p"] < 0.001 else f"{change['p']:.3f}"
    interval = safe(f"{_interval(change)} ") + _strip(metric, change)
    n = f"{change['n']} · needs {change['n_needed']:,}" if change["n_needed"] else change["n"]
    return number(change["value"], sign=True), interval, p, n, _badge(verdict(metric, change))


def _interval(change: dict) -> str:
    low, high = (number(end, sign=True) for end in change["interval"])
    return f"[{low},\N{NO-BREAK SPACE}{high}]"


def _strip(metric: str, change: dict) -> Safe:
    color = verdict(metric, change).split()[0]
    return interval_strip(change, lower_is_better=metric in LOWER_IS_BETTER, color=color.replace("not", "muted"))


def _badge(words: str) -> Safe:
    return element("span", words, class_=f"verdict {words.split()[0]}")


def _card(track: Track) -> Safe:
    before, after, changes = (track.headline.get(key) or {} for key in ("before", "after", "change"))
    metric = FIRST_METRIC[track.name]
    if metric not in before or metric not in after:
        return Safe("")
    arrow = element("span", f"{number(before[metric])} →", class_="from") + Safe(f" {number(after[metric])}")
    parts = [
        element("p", NAMES[track.name], class_="track"),
        element("p", arrow, class_="change"),
        element("p", metric, class_="metric"),
    ]
    if change := changes.get(metric):
        line = f"{number(change['value'], sign=True)} {_interval(change)}, n = {change['n']}"
        parts += [_strip(metric, change), element("p", line, class_="metric")]
        parts.append(element("p", _badge(verdict_phrase(metric, change))))
    return element("div", join(parts), class_="card")


def _partly_paired(track: Track) -> list[str]:
    """A line for each metric that could be paired over fewer tasks than it was measured on."""
    counts = [(result or {}).get("n_of", {}) for result in (track.before, track.after)]
    lines = []
    for metric, change in (track.headline.get("change") or {}).items():
        ns = [of_side.get(metric, change["n"]) for of_side in counts]
        if max(ns) > change["n"]:
            lines.append(
                f"{NAMES[track.name][0]}: {metric} is paired over the {change['n']} tasks where both answers have it "
                f"({ns[0]} before, {ns[1]} after)."
            )
    return lines


def _meanings(tracks: list[Track]) -> Safe:
    shown = dict.fromkeys(metric for track in tracks for metric in (track.headline.get("after") or {}))
    terms = [element("dt", name) + element("dd", MEANING[name]) for name in shown if name in MEANING]
    return details("What the metrics mean", element("dl", join(terms))) if terms else Safe("")


def _facts(metrics: dict) -> Safe:
    names = [name for name in ("sizes", "settings", "seconds") if metrics.get(name)]
    facts = [element("div", element("h3", name.capitalize()) + _dictionary(metrics[name])) for name in names]
    return element("div", join(facts), class_="facts") if facts else Safe("")


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
    """A small table without a head."""
    return table((), [(key, _plain(value)) for key, value in values.items()])


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
    """The rows of failures.json."""
    rows = read_json_list(path) if path.exists() else []
    needed = {"id", "category", "cause"}
    if not all(row.keys() >= needed and isinstance(row.get("nearest", {}), dict) for row in rows):
        raise UserError(f"{path}: expected a list of objects with id, category and cause, and nearest an object")
    return rows


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")
