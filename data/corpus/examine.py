"""Examines source files, one at a time: read, filtered, redacted, fingerprinted; the text is not kept.

Many files are distributed over worker processes (`python -m data.corpus.examine`, JSON Lines in and out), file n to
process n mod N, and their findings read back in order: the number of processes affects nothing but the time. Workers
import neither torch nor the rest of the project, which would cost each of them seconds.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from data.corpus.filters import MOST_BYTES, decode, reject_path, reject_text
from data.corpus.known_texts import KnownTexts
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
    licenses: tuple[str, ...] | None = None  # allowed ones; None for any
    tasks: KnownTexts | None = None  # benchmark tasks to keep out


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
    known = {"sha256": sha256(text), "license": license, "tokens": count_tokens(text), "redacted": redacted}
    why = reject_text(text, request.grammar)
    if why is None and rules.licenses is not None and not allowed(license, rules.licenses):
        why = "licence not allowed", license or "none declared"
    if why is None and rules.tasks is not None and (task := rules.tasks.found_in(text)):
        why = "benchmark task", f"holds {rules.tasks.size} words in a row of {task}"
    if why:
        return Finding(*why, **known)
    return Finding(**known, signature=signature(shingles(text)).tobytes())


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
            yield _from_json(json.loads(line))


@contextlib.contextmanager
def _worker(requests: list[Request], rules: Rules) -> Iterator[subprocess.Popen]:
    """A process that examines these files. It blocks when its output is not read: a pipe holds 64 KiB."""
    with tempfile.TemporaryFile("w+", encoding="utf-8") as file:
        file.write(json.dumps(_rules_as_json(rules)) + "\n")
        file.writelines(json.dumps(asdict(request)) + "\n" for request in requests)
        file.seek(0)
        home = Path(__file__).resolve().parents[2]
        command = [sys.executable, "-m", "data.corpus.examine"]
        worker = subprocess.Popen(command, cwd=home, stdin=file, stdout=subprocess.PIPE, encoding="utf-8")
        try:
            yield worker
        finally:
            worker.kill()
            worker.communicate()


def _as_json(finding: Finding) -> dict:
    return {**asdict(finding), "signature": finding.signature and finding.signature.hex()}


def _from_json(row: dict) -> Finding:
    return Finding(**{**row, "signature": row["signature"] and bytes.fromhex(row["signature"])})


def _rules_as_json(rules: Rules) -> dict:
    tasks = rules.tasks and {
        "names": rules.tasks.names,
        "size": rules.tasks.size,
        "ngrams": rules.tasks.ngrams.tolist(),
        "owners": rules.tasks.owners.tolist(),
    }
    return {"redact": rules.redact, "licenses": rules.licenses, "tasks": tasks}


def _rules_from_json(row: dict) -> Rules:
    tasks = row["tasks"]
    if tasks:
        arrays = np.array(tasks["ngrams"], dtype=np.uint64), np.array(tasks["owners"], dtype=np.int64)
        tasks = KnownTexts(tasks["names"], tasks["size"], *arrays)
    return Rules(row["redact"], row["licenses"], tasks)


def main() -> None:
    """Examine the files listed on standard input, by the rules in its first line."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent process handles Ctrl-C and ends us
    rules = _rules_from_json(json.loads(sys.stdin.readline()))
    for line in sys.stdin:
        print(json.dumps(_as_json(examine(Request(**json.loads(line)), rules))), flush=True)


if __name__ == "__main__":
    main()
