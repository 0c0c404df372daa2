"""One self-contained HTML page of a run: what changed and how sure that is, the training curves, where it fails.

The page is built from the files in the run folder alone, points nowhere outside itself, and escapes every text, since
most of them were generated.
"""

from __future__ import annotations

import json
from pathlib import Path

from common.console import UserError
from common.files import read_json, read_json_list, read_jsonl, write_text
from common.html import Safe, markdown, page, template
from eval.report.parts import NONE
from eval.report.results import NAMES, results_section
from eval.report.schema import read_metrics
from eval.report.tracks import Track, track_section

HERE = Path(__file__).parent


def write_report(folder: Path, *, title: str) -> Path:
    """Write folder/report.html from the files of a run and return its path.

    folder  a quickstart's (metrics.json, data_card.md and a folder for each of cpt, sft, embed), or one training run's
            (with the files of its track, "track" in config.json); docs/formats.md describes the files
    A missing file leaves out its part, and a track that a quickstart did not finish is named. Raises UserError if there
    is nothing to report, for an unreadable file, and for a metrics.json that does not match its schema.
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
        ("results", "Results", results_section(tracks)),
        *((track.name, NAMES[track.name], track_section(track)) for track in ran),
        ("data", "Data card", markdown(_text(card)) if card.exists() else Safe("")),
        ("configuration", "Configuration", _configuration(ran, metrics)),
        ("versions", "Versions", _versions(ran)),
    ]
    path = folder / "report.html"
    write_text(path, page(title, _about(ran, metrics), [section for section in sections if section[2].strip()]))
    return path


def _about(tracks: list[Track], metrics: dict) -> str:
    """The line below the title: tracks, device, corpus, duration."""
    each = metrics.get("seconds", {})
    seconds = each.get("total", sum(each.values()))
    environment = next((track.environment for track in tracks if track.environment), {})
    parts = [f"{len(tracks)} of {len(NAMES)} tracks" if len(tracks) > 1 else NAMES[tracks[0].name]]
    parts += [str(environment[key]) for key in ("device", "corpus") if key in environment]
    return " · ".join(parts + ([_duration(seconds)] if seconds else []))


def _configuration(tracks: list[Track], metrics: dict) -> Safe:
    """The options of each track, with where each value came from; sizes, settings and seconds of a quickstart."""
    options = [
        (NAMES[track.name], [(name, _plain(option["value"]), option["from"]) for name, option in given.items()])
        for track in tracks
        if (given := (track.config or {}).get("options"))
    ]
    facts = [
        (name.capitalize(), [(key, _plain(value)) for key, value in metrics[name].items()])
        for name in ("sizes", "settings", "seconds")
        if metrics.get(name)
    ]
    return template(HERE / "configuration.html.j2")(options=options, facts=facts)


def _versions(tracks: list[Track]) -> Safe:
    """One table; a key whose value differs between tracks has a row for each value."""
    names_of: dict[tuple[str, str], list[str]] = {}
    for track in tracks:
        for key, value in (track.environment or {}).items():
            names_of.setdefault((key, _plain(value)), []).append(track.name)
    rows = [
        (key, value, "all" if len(names) == len(tracks) else ", ".join(names))
        for (key, value), names in names_of.items()
    ]
    return template(HERE / "versions.html.j2")(rows=sorted(rows)) if rows else Safe("")


def _plain(value: object) -> str:
    """A value of any JSON type for a table cell."""
    if isinstance(value, str):
        return value
    if value is None:
        return NONE
    if isinstance(value, bool):
        return "yes" if value else "no"
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
    """The rows of failures.json. UserError if they are not failures."""
    rows = read_json_list(path) if path.exists() else []
    needed = {"id", "category", "cause"}
    if not all(row.keys() >= needed and isinstance(row.get("nearest", {}), dict) for row in rows):
        raise UserError(f"{path}: expected a list of objects with id, category and cause, and nearest an object")
    return rows


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")
