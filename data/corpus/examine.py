"""Examines source files, one at a time: read, filtered, redacted, fingerprinted; the text is not kept.

Many files are distributed over worker processes (JSON Lines in and out), file n to process n mod N, and their findings
read back in order: the number of processes affects nothing but the time. Workers do not import torch, which would cost
each of them seconds; those of `multiprocessing` would, as they import the main script.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from data.corpus.decontaminate import RUN, KnownTexts
from data.corpus.filters import MOST_BYTES, decode, reject_path, reject_text
from data.corpus.licenses import allowed, declared
from data.corpus.redact import redact
from data.likeness.near_duplicates import count_tokens, shingles, signature

FEW = 200  # files from which another process pays off


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

    processes  how many run at once; 1: only this one; default: one per core, as long as each gets FEW files.
    """
    if processes is None:
        processes = max(1, min(os.cpu_count() or 1, len(requests) // FEW))
    if processes == 1:
        yield from (examine(request, rules) for request in requests)
        return
    with contextlib.ExitStack() as stack:
        workers = [stack.enter_context(_worker(requests[n::processes], rules)) for n in range(processes)]
        for number in range(len(requests)):
            line = workers[number % processes].stdout.readline()
            if not line:
                raise RuntimeError(f"the process that examines {requests[number].file} has ended")
            found = json.loads(line)
            yield Finding(**found | {"signature": found["signature"] and bytes.fromhex(found["signature"])})


@contextlib.contextmanager
def _worker(requests: list[Request], rules: Rules) -> Iterator[subprocess.Popen]:
    """A process that examines these files. It blocks when its output is not read: a pipe holds 64 KiB."""
    with tempfile.TemporaryFile("w+", encoding="utf-8") as file:
        file.write(json.dumps(asdict(rules)) + "\n")
        file.writelines(json.dumps(asdict(request)) + "\n" for request in requests)
        file.seek(0)
        home = Path(__file__).resolve().parents[2]
        command = [sys.executable, "-c", "from data.corpus.examine import main; main()"]
        worker = subprocess.Popen(command, cwd=home, stdin=file, stdout=subprocess.PIPE, encoding="utf-8")
        try:
            yield worker
        finally:
            worker.kill()
            worker.communicate()


def main() -> None:
    """Examine the files listed on standard input, by the rules in its first line."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent process handles Ctrl-C and ends us
    rules = Rules(**json.loads(sys.stdin.readline()))
    for line in sys.stdin:
        finding = examine(Request(**json.loads(line)), rules)
        print(json.dumps(asdict(finding), default=bytes.hex), flush=True)
