"""Files that are whole or not there: atomic writes, and JSON Lines whose bad line is named.

Everything is written under another name beside its target, flushed to the disk, and renamed. A kill or a full disk at
any moment leaves the old file or the new one, never half of either. A folder takes two renames: a kill between them
leaves the old one beside its place, as .NAME.….old.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from model.console import UserError


def cache_folder() -> Path:
    """Where downloads are kept: $TRITUNE_CACHE, else ~/.cache/tritune."""
    return Path(os.environ.get("TRITUNE_CACHE") or Path.home() / ".cache" / "tritune")


@contextmanager
def new_file(path: Path | str) -> Iterator[Path]:
    """Yields a path to write to; on success that file takes the place of `path`, on failure it is removed."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())  # mkstemp's 0600 would stay otherwise
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def new_folder(path: Path | str) -> Iterator[Path]:
    """Yields an empty folder to fill; on success it takes the place of `path`, on failure it is removed."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    old = temporary.with_name(temporary.name + ".old")
    try:
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                with open(file, "rb") as opened:
                    os.fsync(opened.fileno())
        temporary.chmod(0o777 & ~_umask())
        if path.exists():
            os.replace(path, old)
        os.replace(temporary, path)
    finally:
        if old.exists() and not path.exists():  # stopped between the two renames
            os.replace(old, path)
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_text(path: Path | str, text: str) -> None:
    """Write UTF-8 text atomically."""
    with new_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path | str, value) -> None:
    """Write JSON atomically, indented, keys in the order given. NaN and infinity are an error."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_jsonl(path: Path | str, rows: Iterable[dict]) -> None:
    """Write one JSON object a line, atomically."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows))


def read_text(path: Path | str) -> str:
    """Read UTF-8 text. UserError names the file when it is missing or not UTF-8."""
    path = Path(path)
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 ({error.reason} at byte {error.start})") from None
    except OSError as error:
        raise UserError(f"{path}: not readable ({error.strerror})") from None


def parse_json(text: str, *, object_pairs_hook: Callable[[list[tuple]], dict] = dict):
    """The value of a JSON text. ValueError for anything else, NaN, infinity and bottomless nesting included."""
    try:
        return json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=object_pairs_hook)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _refuse_constant(name: str):
    raise ValueError(f"{name} is no JSON number")


def read_json(path: Path | str) -> dict:
    """Read a JSON object. UserError names the file when it is missing, not UTF-8, or not a JSON object."""
    text = read_text(path)
    try:
        value = parse_json(text)
    except ValueError as error:
        raise UserError(f"{path}: not readable as JSON ({error})") from None
    if not isinstance(value, dict):
        raise UserError(f"{path}: expected a JSON object, found {type(value).__name__}")
    return value


def read_json_list(path: Path | str) -> list[dict]:
    """Read a JSON list of objects. UserError as for `read_json`."""
    text = read_text(path)
    try:
        rows = parse_json(text)
    except ValueError as error:
        raise UserError(f"{path}: not readable as JSON ({error})") from None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise UserError(f"{path}: expected a list of objects; JSON Lines end in .jsonl")
    return rows


def append_jsonl(path: Path | str, rows: Iterable[dict]) -> None:
    """Add rows to a file of JSON Lines, which is begun where there is none; they are on the disk afterwards."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        file.flush()
        os.fsync(file.fileno())


def resume_jsonl(path: Path | str) -> list[dict]:
    """The rows that `append_jsonl` left, if there are any; half a line, left by a kill, is cut off."""
    path = Path(path)
    if not path.exists():
        return []
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    if whole < len(data):
        os.truncate(path, whole)
    return read_jsonl(path)


def read_jsonl(path: Path | str) -> list[dict]:
    """Read JSON Lines: row i stands on line i. A bad line raises UserError with file, line and reason."""
    path = Path(path)
    try:
        lines = path.read_bytes().split(b"\n")  # not splitlines: U+2028 inside a string does not end a row
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except OSError as error:
        raise UserError(f"{path}: not readable ({error.strerror})") from None
    while lines and not lines[-1].strip():  # whatever follows the last row
        lines.pop()
    rows = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            raise UserError(f"{path}:{number}: a blank line between the rows; remove it")
        try:
            row = parse_json(line.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise UserError(f"{path}:{number}: not UTF-8 ({error.reason} at byte {error.start})") from None
        except json.JSONDecodeError as error:
            raise UserError(f"{path}:{number}: not JSON ({error.msg} at column {error.colno})") from None
        except ValueError as error:
            raise UserError(f"{path}:{number}: not JSON ({error})") from None
        if not isinstance(row, dict):
            raise UserError(f"{path}:{number}: expected one JSON object a line, found {type(row).__name__}")
        rows.append(row)
    return rows
