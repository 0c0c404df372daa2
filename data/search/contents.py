"""The searchable contents of a repository: its files and their units, reread only if a file has changed.

Vendored, generated, minified and data files are left out, and tests unless requested. Unlike in training data, short
files are kept, nothing is redacted, and no duplicates are dropped.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from common.console import UserError, progress
from common.workers import answers, processes_for
from data.corpus import SourceFile
from data.corpus.filters import MOST_BYTES, decode, reject_no_source, reject_path
from data.corpus.languages import GRAMMARS, grammar_of, language_of, packages_of
from data.corpus.locate import locate
from data.search.units import documented_units


@dataclass(frozen=True)
class Contents:
    """The files of a repository, and their units by path and line."""

    root: Path  # unit paths are relative to it
    units: list[dict]
    files: list[dict]  # that were read: {"path", "sha256", "reason"}; the reason why a file has no unit, or null
    left_out: Counter[str]  # number of files by reason
    source: str  # what they were read from: an absolute folder, or another SOURCE
    tests: bool  # whether test files are included


def read_contents(
    source: str, *, tests: bool = False, files: Iterable[dict] = (), units: Iterable[dict] = ()
) -> Contents:
    """The units of every source file of `source` (as data.corpus takes it).

    tests         include test files
    files, units  from an earlier call: unchanged files are not parsed again
    Raises UserError if there is no unit.
    """
    located = locate(source)
    root = located.root if source.startswith("package:") else located.tree  # a package's paths start with its name
    known_reasons = {(row["path"], row["sha256"]): row["reason"] for row in files}
    known_units: dict[str, list[dict]] = {}
    for unit in units if known_reasons else ():  # units without files need not have a path
        known_units.setdefault(unit["source"]["path"], []).append(unit)

    # what is there, and which of it is new
    found, new = [], []
    for file in _source_files(located.tree):
        path = os.fsencode(file.relative_to(root).as_posix()).decode("utf-8", "replace")
        reason, data = _content(file, path, tests)
        digest = hashlib.sha256(data).hexdigest()
        found.append((path, reason, digest))
        if reason is None and (path, digest) not in known_reasons:
            new.append([os.fsdecode(file), path])

    named = str(Path(source).resolve()) if Path(source).exists() else source
    contents = Contents(root, units=[], files=[], left_out=Counter(), source=named, tests=tests)
    parsed = _parse_all(new)
    for path, reason, digest in progress(found, what="reading files", unit="file"):
        if reason is None:
            if (path, digest) in known_reasons:
                reason, units_of_file = known_reasons[path, digest], known_units.get(path, [])
            else:
                reason, digest, units_of_file = next(parsed)
            contents.files.append({"path": path, "sha256": digest, "reason": reason})
            contents.units.extend(units_of_file)
        if reason is not None:
            contents.left_out[reason] += 1
    if not contents.units:
        reasons = ", ".join(f"{number} ({reason})" for reason, number in contents.left_out.most_common())
        raise UserError(f"{source}: nothing to search in it: {f'skipped {reasons}' if reasons else 'no source file'}")
    return contents


def watched_files(source: str) -> list[Path] | None:
    """The files of a SOURCE that may change under our hands, a folder or an installed package; None of any other."""
    return _source_files(locate(source).tree) if Path(source).exists() or source.startswith("package:") else None


def _source_files(tree: Path) -> list[Path]:
    """Files by path; in a git repository those tracked or not ignored. Symlinked folders are not followed."""
    if tree.is_file():
        return [tree]
    listed = None
    if (tree / ".git").exists() and shutil.which("git"):
        command = ["git", "-C", str(tree), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        listed = subprocess.run(command, capture_output=True)
    if listed is not None and listed.returncode == 0:
        # git lists deleted files until the deletion is committed, and conflicting ones three times
        names = sorted({os.fsdecode(name) for name in listed.stdout.split(b"\0") if name})
        found = [tree / name for name in names if os.path.lexists(tree / name)]
    else:
        found = sorted(Path(folder, name) for folder, _, names in os.walk(tree) for name in names)
    return [file for file in found if grammar_of(file.name, tuple(GRAMMARS))]


def _content(file: Path, path: str, tests: bool) -> tuple[str | None, bytes]:
    """(reason to leave a file out unread, or None; its bytes)."""
    if (why := reject_path(path)) and not (tests and why[0] == "test file"):
        return why[0], b""
    language = language_of(path)
    missing = [package for package in packages_of([language]) if importlib.util.find_spec(package) is None]
    if missing:
        return f"{language} needs pip install {' '.join(missing).replace('_', '-')}", b""
    try:
        if file.is_symlink():
            return "link", b""
        if not file.is_file():
            return "not readable", b""  # reading a pipe would block
        if file.stat().st_size > MOST_BYTES:
            return "too large", b""
        return None, file.read_bytes()
    except OSError:
        return "not readable", b""


def _parse_all(files: list[list[str]]) -> Iterator[tuple[str | None, str, list[dict]]]:
    """_parse_file of each [file, path], in several processes if they are many."""
    if (processes := processes_for(len(files))) == 1:
        yield from map(_parse_file, files)
    else:
        yield from answers(_parse_file, files, processes=processes)


def _parse_file(named: list[str]) -> tuple[str | None, str, list[dict]]:
    """(reason to leave a file out, or None; the hash of what was read; its units)."""
    file, path = named
    try:
        data = Path(file).read_bytes()
    except OSError:  # it has disappeared since it was listed
        return "not readable", hashlib.sha256().hexdigest(), []
    digest = hashlib.sha256(data).hexdigest()
    reason, units = _parse(path, data, digest)
    return reason, digest, units


def _parse(path: str, data: bytes, digest: str) -> tuple[str | None, list[dict]]:
    """(reason to leave a file out, or None; its units)."""
    text = decode(data)
    if text is None:
        return "not UTF-8", []
    if not text.strip():
        return "empty", []
    grammar = grammar_of(path, tuple(GRAMMARS))
    why = reject_no_source(text, grammar)
    if why and (grammar == "python" or why[0] != "does not parse"):  # tree-sitter parses past what it does not know
        return why[0], []
    file = SourceFile(path, text, digest, license=None, commit=None, split="", language=language_of(path))
    return None, documented_units(file)
