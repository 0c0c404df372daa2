"""The source files that a command reads: one file, the Python files of a folder, or a split of a corpus."""

from __future__ import annotations

from pathlib import Path

from common.console import UserError
from data.corpus import load_corpus


def read_files(place: Path, *, split: str = "test") -> list[tuple[str, str]]:
    """(path, text) of a file, of every Python file below a folder, or of one split of a corpus folder.

    Raises UserError if there is no such file, no Python file, or a file that is not UTF-8.
    """
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
