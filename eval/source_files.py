"""The texts that a command reads: one file, the Python files of a folder, a split of a corpus, or rows with a text."""

from __future__ import annotations

from pathlib import Path

from common.console import UserError
from common.files import read_jsonl
from common.shuffle import seeded_order
from data.corpus import load_corpus


def read_files(place: Path, *, split: str = "test") -> list[tuple[str, str]]:
    """(path, text) of a file, of every Python file below a folder, or of one split of a corpus folder; (id, text) of
    the rows {"id", "text"} of a .jsonl file, named by their line where they have no id.

    Raises UserError if there is no such file, no Python file, a file that is not UTF-8, or a row without a text.
    """
    if place.is_file() and place.suffix == ".jsonl":
        return _texts_of_rows(place)
    if (place / "manifest.jsonl").is_file():
        return [(file.path, file.text) for file in load_corpus(place).split(split)]
    paths = [place] if place.is_file() else sorted(path for path in place.rglob("*.py") if path.is_file())
    if not paths:
        raise UserError(f"{place}: no such file, or a folder without Python files")
    try:
        return [
            (path.name if place.is_file() else path.relative_to(place).as_posix(), path.read_text("utf-8"))
            for path in paths
        ]
    except UnicodeDecodeError as error:
        raise UserError(f"{place}: a file is not UTF-8 ({error})") from None


def drawn_files(files: list[tuple[str, str]], count: int) -> list[tuple[str, str]]:
    """`count` of (path, text) files (0: all), the same whatever the seed of a run, in their order."""
    chosen = set(seeded_order([path for path, _ in files], seed=0)[: count or None])
    return [(path, text) for path, text in files if path in chosen]


def _texts_of_rows(place: Path) -> list[tuple[str, str]]:
    texts: dict[str, str] = {}
    for number, row in enumerate(read_jsonl(place), 1):
        name = str(row.get("id", f"line {number}"))
        if not isinstance(row.get("text"), str):
            raise UserError(f'{place}:{number}: "text" is missing or no text (this line has: {", ".join(row)})')
        if name in texts:
            raise UserError(f"{place}:{number}: the id {name!r} is used twice")
        texts[name] = row["text"]
    return [*texts.items()]
