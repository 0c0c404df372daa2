"""Reading and writing files: atomic writes, and rows with errors that name the line.

Everything is written under a temporary name next to its target, flushed to disk, and renamed. A kill or a full disk at
any moment leaves the old file or the new one, never half of either. A folder takes two renames: a kill between them
leaves the old one next to its place, as .NAME.….old.
"""

from __future__ import annotations

import codecs
import gzip
import json
import os
import re
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from common.console import UserError
from common.parquet import MAGIC, rows_of_parquet

SURROGATE = re.compile(r"[\ud800-\udfff]")  # JSON can escape half of a pair; UTF-8 cannot encode it


def cache_folder() -> Path:
    """The folder for downloads: $TRITUNE_CACHE, else ~/.cache/tritune."""
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
        temporary.chmod(0o666 & ~_umask())  # not mkstemp's 0600
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
        if old.exists() and not path.exists():  # interrupted between the two renames
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
    write_text(path, to_json(value, indent=2) + "\n")


def write_jsonl(path: Path | str, rows: Iterable[dict]) -> None:
    """Write one JSON object a line, atomically."""
    write_text(path, "".join(to_json(row) + "\n" for row in rows))


def to_json(value, *, indent: int | None = None) -> str:
    """JSON text that can be encoded as UTF-8: half a surrogate pair stays an escape.

    ValueError for NaN and infinity, which are not JSON.
    """
    text = json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False)
    return SURROGATE.sub(lambda half: f"\\u{ord(half[0]):04x}", text)


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
    """The value of a JSON text. ValueError for anything else, including NaN, infinity and excessive nesting."""
    try:
        return json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=object_pairs_hook)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _refuse_constant(name: str):
    raise ValueError(f"{name} is not a JSON number")


def _each_key_once(pairs: list[tuple]) -> dict:
    """An object in a data row. ValueError for a duplicate key, of which json would silently drop the first."""
    row = dict(pairs)
    if len(row) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} occurs twice")
    return row


def read_json(path: Path | str) -> dict:
    """Read a JSON object. UserError names the file when it is missing, not UTF-8, or not a JSON object."""
    value = _json_value(read_bytes(path), path, object_pairs_hook=dict)
    if not isinstance(value, dict):
        raise UserError(f"{path}: expected a JSON object, found {type(value).__name__}")
    return value


def read_json_list(path: Path | str) -> list[dict]:
    """Read a JSON list of objects, gzipped or not. UserError as for `read_json`."""
    return _json_list(read_bytes(path), path)


def _json_list(data: bytes, path: Path | str) -> list[dict]:
    rows = _json_value(data, path, object_pairs_hook=_each_key_once)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise UserError(f"{path}: expected a list of objects; JSON Lines end in .jsonl")
    return rows


def _json_value(data: bytes, path: Path | str, *, object_pairs_hook):
    try:
        return parse_json(data.decode("utf-8"), object_pairs_hook=object_pairs_hook)
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 ({error.reason} at byte {error.start})") from None
    except ValueError as error:
        raise UserError(f"{path}: not readable as JSON ({error})") from None


def append_jsonl(path: Path | str, rows: Iterable[dict]) -> None:
    """Append rows to a JSON Lines file, creating it if needed; they are on disk when this returns."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a", encoding="utf-8") as file:
        file.writelines(to_json(row) + "\n" for row in rows)
        file.flush()
        os.fsync(file.fileno())


def resume_jsonl(path: Path | str) -> list[dict]:
    """The rows that `append_jsonl` wrote, if any; a partial last line, left by a kill, is removed."""
    path = Path(path)
    if not path.exists():
        return []
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    if whole < len(data):
        os.truncate(path, whole)
    return read_jsonl(path)


def read_objects(path: Path | str) -> list[dict]:
    """The rows of a JSON Lines file, a JSON list or a Parquet file, judged by how the file begins.

    UserError as for these; the rows of the latter two are counted like lines, from 1.
    """
    data = read_bytes(path)
    if data.startswith(MAGIC):
        return rows_of_parquet(data, str(path))
    is_list = data[:64].lstrip().startswith(b"[")
    return _json_list(data, path) if is_list else _json_lines(data, path)


def holds_rows(path: Path | str) -> bool:
    """Whether the name is that of a file of rows, compressed or not."""
    return Path(path).name.removesuffix(".gz").endswith((".jsonl", ".json", ".parquet"))


def read_jsonl(path: Path | str) -> list[dict]:
    """Read JSON Lines, gzipped or not: row i is on line i.

    Lines end at "\\n" only (jsonlines.org), not at U+2028, U+2029 or U+0085, which strings may contain and at which
    str.splitlines would split. A byte-order mark before the first row and blank lines after the last are ignored.
    UserError names file, line and reason if a line is not an object.
    """
    return _json_lines(read_bytes(path), path)


def _json_lines(data: bytes, path: Path | str) -> list[dict]:
    lines = data.split(b"\n")
    while lines and not lines[-1].strip():
        lines.pop()
    return [_row(line, f"{path}:{number}") for number, line in enumerate(lines, 1)]


def _row(line: bytes, where: str) -> dict:
    if not line.strip():
        raise UserError(f"{where}: a blank line between the rows; remove it")
    try:
        row = parse_json(line.decode("utf-8"), object_pairs_hook=_each_key_once)
    except UnicodeDecodeError as error:
        raise UserError(f"{where}: not UTF-8 ({error.reason} at byte {error.start})") from None
    except json.JSONDecodeError as error:
        raise UserError(f"{where}: not JSON ({error.msg} at column {error.colno})") from None
    except ValueError as error:
        raise UserError(f"{where}: not JSON ({error})") from None
    if not isinstance(row, dict):
        raise UserError(f"{where}: expected one JSON object a line, found {type(row).__name__}")
    return row


def read_bytes(path: Path | str) -> bytes:
    """The content of a file, decompressed if it is gzip (by its first two bytes), without a byte-order mark."""
    try:
        data = Path(path).read_bytes()
        data = gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{path}: a damaged gzip file ({error})") from None
    except OSError as error:
        raise UserError(f"{path}: not readable ({error.strerror})") from None
    return data.removeprefix(codecs.BOM_UTF8)
