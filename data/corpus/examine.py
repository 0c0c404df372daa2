"""Examines source files, one at a time: read, filtered, redacted, fingerprinted; the text is not kept.

Many files are distributed over worker processes (common/workers.py).
"""

from __future__ import annotations

import functools
import hashlib
import json
import stat
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from common.workers import answers, processes_for
from data.corpus.decontaminate import RUN, KnownTexts
from data.corpus.filters import MOST_BYTES, decode, reject_path, reject_text
from data.corpus.licenses import allowed, declared
from data.corpus.redact import redact
from data.likeness.near_duplicates import count_tokens, shingles, signature


@dataclass(frozen=True)
class Request:
    """A file to examine."""

    file: str  # where it is
    path: str  # its name in the corpus
    grammar: str
    license: str | None  # where the file itself declares none


@dataclass(frozen=True)
class Rules:
    """What is required of every file besides the filters."""

    redact: bool = True
    licenses: Sequence[str] | None = None  # allowed ones; None for any
    tasks: Sequence[tuple[str, str]] = ()  # (name, text) of the benchmark tasks to keep out

    @functools.cached_property
    def known_tasks(self) -> KnownTexts:
        """The runs of words in the tasks."""
        return KnownTexts.of(self.tasks, RUN)


@dataclass(frozen=True)
class Finding:
    """What was found out about a file: it may be kept (`reason` is None), or why not."""

    reason: str | None = None
    detail: str = ""
    sha256: str | None = None  # of the text in UTF-8, placeholders included; None when no text was read
    license: str | None = None
    tokens: int | None = None  # words and punctuation marks
    redacted: dict[str, int] = field(default_factory=dict)  # placeholders by type
    signature: bytes | None = None  # MinHash, if it may be kept


def examine(request: Request, rules: Rules) -> Finding:
    """Examine one file."""
    file = Path(request.file)
    why = ("link", "a symbolic link") if file.is_symlink() else reject_path(request.path)
    if why:
        return Finding(*why, license=request.license)
    try:
        about = file.stat()
        if not stat.S_ISREG(about.st_mode):  # reading a pipe would block
            return Finding("not readable", "no regular file", license=request.license)
        if about.st_size > MOST_BYTES:
            return Finding("too large", f"{about.st_size} bytes", license=request.license)
        data = file.read_bytes()
    except OSError as error:
        return Finding("not readable", error.strerror or "", license=request.license)
    if (text := decode(data)) is None:
        return Finding("not UTF-8", license=request.license)
    license = declared(text) or request.license
    redacted: dict[str, int] = {}
    if rules.redact:
        text, redacted = redact(text, request.grammar)
    finding = Finding(sha256=sha256(text), license=license, tokens=count_tokens(text), redacted=redacted)
    why = reject_text(text, request.grammar)
    if why is None and rules.licenses is not None and not allowed(license, rules.licenses):
        why = "licence not allowed", license or "none declared"
    if why is None and (task := rules.known_tasks.found_in(text)):
        why = "benchmark task", f"holds {RUN} words in a row of {task}"
    if why:
        return replace(finding, reason=why[0], detail=why[1])
    return replace(finding, signature=signature(shingles(text)).tobytes())


def read_again(request: Request, redacted: bool) -> str:
    """The text of a file that was examined and may be kept; "" if it has disappeared."""
    try:
        text = decode(Path(request.file).read_bytes()) or ""
    except OSError:
        return ""
    return redact(text, request.grammar)[0] if redacted else text


def sha256(text: str) -> str:
    """The hash of a text in UTF-8."""
    return hashlib.sha256(text.encode()).hexdigest()


def examine_all(requests: list[Request], rules: Rules, *, processes: int | None = None) -> Iterator[Finding]:
    """Findings in the order of the requests, as they come.

    processes  how many run at once; 1: only this one; default: one per core, as long as each gets enough files
    """
    processes = processes_for(len(requests)) if processes is None else processes
    if processes == 1:
        yield from (examine(request, rules) for request in requests)
        return
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", suffix=".json") as file:
        json.dump(asdict(rules), file)
        file.flush()
        for found in answers(_examined, [[file.name, asdict(one)] for one in requests], processes=processes):
            yield Finding(**found | {"signature": found["signature"] and bytes.fromhex(found["signature"])})


def _examined(item: list) -> dict:
    """`examine` of [file of the rules, request], in a worker."""
    rules, request = item
    finding = asdict(examine(Request(**request), _rules(rules)))
    return finding | {"signature": finding["signature"] and finding["signature"].hex()}


@functools.cache
def _rules(file: str) -> Rules:
    return Rules(**json.loads(Path(file).read_text(encoding="utf-8")))
