"""Foreign code runs here and nowhere else: each job in its own process, without network, time-limited, and disbelieved.

A job finishes only by reporting, over a private pipe and with the run's secret, that its last line has run: an exit
code of zero, `sys.exit()` or a print prove nothing. With examples, what each printed comes back and is compared by the
caller. With tests, the program runs in one process and the tests in another, which alone holds the secret: they call
the program by messages of plain values, so that it cannot reach what judges it.

    python -m sandbox < jobs.jsonl > outcomes.jsonl        python -m sandbox --probe

An empty line starts the jobs before it, so that a program may send one batch after the other.

What is active on this machine is found out once, by trying (`protection`), and belongs into every result file.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import secrets
import select
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from common.console import UserError, progress
from sandbox.workers import Workers

OUTCOMES = ("finished", "exception", "syntax", "timeout", "memory", "denied", "died")
_REPORT_LIMIT = 16 << 20  # bytes; the child's own limits keep an honest report far below
_TIERS = (  # strongest first; each cuts the network and hides the files, by the first or the last layer
    ("namespaces", "seccomp", "landlock"),
    ("namespaces", "seccomp"),
    ("bubblewrap", "seccomp", "landlock"),
    ("seccomp", "landlock"),
)
_UNSAFE_TIERS = (("seccomp",), ())  # used on request only: the user's files stay open


@dataclass(frozen=True)
class Job:
    """One program to run.

    id         returned with the outcome
    program    source text, run first; may be empty
    root       folder put first on sys.path
    patch      {"module", "source"}: importing `module` executes `source` in the place of its file's text; program and
               examples then run in a copy of that module's names, as doctest does
    examples   [{"source"}]: run one after another as doctest runs them; with tests, after and beside them
    seconds    wall-clock limit
    megabytes  limit of the address space of each process
    tests      {"source", "names"}: run after the program, in another process, where `names` of the program are
               stand-ins. Arguments and results that are plain values are copied (mutable arguments back, too),
               callables and the program's own objects are lent; lent objects are equal to themselves only. "names"
               should hold what is to be tested and nothing that the tests judge with. With "against", another patch,
               the program runs once more, in a third process, and lends its names in the dict `against`. "methods":
               false forbids to call methods of lent objects, which is right where functions alone are tested
    command    what runs the program in the place of Python, with `tests` only: confined like it and told the numbers of
               two pipes, over which it receives the program and speaks as sandbox/peer.py does
    readable   folders beside `root` that the program may read: a repository whose tests it runs. Where it can have no
               root folder of its own, it then sees the names in other folders, too, which pytest lists
    """

    id: str
    program: str = ""
    root: str | None = None
    patch: dict | None = None
    examples: list[dict] | None = None
    seconds: float = 10.0
    megabytes: int = 1024
    tests: dict | None = None
    command: list[str] | None = None
    readable: list[str] | None = None


@dataclass(frozen=True)
class Outcome:
    """What became of a job.

    outcome     one of OUTCOMES; "finished" means that the last line ran, not that any answer is right
    got         per example: what it printed, the representation of a last expression included
    exceptions  per example: None, or "Type: message" as doctest compares it
    detail      the deciding exception, at most 500 characters
    seconds     wall-clock time
    """

    id: str
    outcome: str
    got: list[str]
    exceptions: list[str | None]
    detail: str
    seconds: float


def run_jobs(
    jobs: list[Job], *, processes: int | None = None, allow_unsafe_exec: bool = False, what: str = "running code"
) -> list[Outcome]:
    """Run every job, `processes` at once (default: the cores); outcomes in the jobs' order. Equal jobs run once.

    Raises UserError where the network cannot be cut off here, unless `allow_unsafe_exec`.
    """
    outcomes = _outcomes(jobs, processes, _layers(allow_unsafe_exec))
    return list(progress(outcomes, what=what, total=len(jobs), unit="job"))


def _outcomes(jobs: list[Job], processes: int | None, layers: tuple[str, ...]) -> Iterator[Outcome]:
    """Outcomes in the jobs' order, each as soon as it and those before it are there."""
    keys = [json.dumps(asdict(replace(job, id="")), sort_keys=True) for job in jobs]
    workers = Workers(layers, {path for job in jobs for path in _readable(job)})
    with ThreadPoolExecutor(processes or os.cpu_count()) as pool:
        running = {}
        for key, job in zip(keys, jobs, strict=True):
            if key not in running:
                running[key] = pool.submit(_run_one, job, workers)
        try:
            for key, job in zip(keys, jobs, strict=True):
                yield replace(running[key].result(), id=job.id)
        finally:
            pool.shutdown(cancel_futures=True)  # after Ctrl-C only the running jobs are waited for
            workers.close()


def _run_one(job: Job, workers: Workers) -> Outcome:
    """Run one job; whatever it does, all its processes are ended and its folder is deleted."""
    secret = secrets.token_hex(16)
    with (
        tempfile.TemporaryDirectory(dir=workers.folder, ignore_cleanup_errors=True) as folder,
        tempfile.TemporaryFile() as job_file,
        workers.one() as worker,
    ):
        start = time.monotonic()
        job_file.write(json.dumps(asdict(job)).encode())
        job_file.seek(0)
        settings = {
            "folder": folder,
            "layers": workers.layers,
            "seconds": job.seconds,
            "megabytes": job.megabytes,
            "readable": _readable(job),
            "listing": bool(job.readable),
            "apart": 0 if job.tests is None else 2 if "against" in job.tests else 1,
            "command": job.command,
        }
        report_read, report_write = os.pipe()
        secret_read, secret_write = os.pipe()
        os.write(secret_write, secret.encode())
        os.close(secret_write)
        with open(report_read, "rb", buffering=0) as report:
            try:
                handles = [job_file.fileno(), report_write, secret_read]
                socket.send_fds(worker, [json.dumps(settings).encode()], handles)
            finally:
                os.close(report_write)
                os.close(secret_read)
            data, in_time = _read_until(report, start + job.seconds)
            worker.sendall(b"end")
            reply = worker.recv(1 << 12)
        if not reply:
            raise RuntimeError("a worker of the sandbox has ended")
        _unlock(folder)
    outcome = _outcome(job, data, in_time, secret, round(time.monotonic() - start, 3))
    stopped = json.loads(reply)
    if stopped is not None and outcome.outcome in ("died", "timeout"):
        return replace(outcome, outcome="denied", detail=stopped)
    return outcome


def _readable(job: Job) -> list[str]:
    return [os.path.abspath(path) for path in [job.root, *(job.readable or [])] if path]


def _unlock(folder: str) -> None:
    """Give back the rights that a job took from its folders, so that they can be deleted."""
    for parent, names, _ in os.walk(folder):
        for name in names:
            path = os.path.join(parent, name)
            if not os.path.islink(path):
                os.chmod(path, 0o700)


def _read_until(report, deadline: float) -> tuple[bytes, bool]:
    """Everything that comes over the pipe, and whether its end came before the deadline."""
    data = b""
    while len(data) <= _REPORT_LIMIT:
        if not select.select([report], [], [], max(0.0, deadline - time.monotonic()))[0]:
            return data, False
        piece = report.read(1 << 16)
        if not piece:
            break
        data += piece
    return data, True


def _outcome(job: Job, data: bytes, in_time: bool, secret: str, seconds: float) -> Outcome:
    """Believe a report only if it is whole, of the right form and carries the secret."""
    if not in_time:
        return Outcome(job.id, "timeout", [], [], f"no end after {job.seconds:g} s", seconds)
    died = Outcome(job.id, "died", [], [], "the process ended without a report", seconds)
    try:
        report = json.loads(data)
        believed = secrets.compare_digest(report.pop("secret"), secret)
        outcome = Outcome(id=job.id, seconds=seconds, **report)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return died
    if not believed:
        return died
    if outcome.outcome == "not confined":
        raise RuntimeError(f"a sandbox layer that held before could not be set: {outcome.detail}")
    complete = len(outcome.got) == len(outcome.exceptions) == len(job.examples or [])
    if outcome.outcome not in OUTCOMES or (outcome.outcome == "finished" and not complete):
        return died
    return outcome


_PROBE = """
import ctypes, os, socket
tried = {}
def attempt(name, action):
    try:
        action()
        tried[name] = "allowed"
    except OSError as error:
        tried[name] = os.strerror(error.errno)
def connect():
    with socket.socket() as s:
        s.settimeout(0.5)
        s.connect(("127.0.0.1", PORT))
def fork():
    if os.fork() == 0:
        os._exit(0)
def write():
    with open(OUTSIDE + ".new", "w") as file:
        file.write("x")
attempt("network", connect)
attempt("processes", fork)
attempt("write outside", write)
attempt("read outside", lambda: open(OUTSIDE).close())
"""


def _probe(layers: tuple[str, ...]) -> dict[str, str]:
    """What a child under these layers gets when it connects to a listening port, forks, writes and reads elsewhere.

    Raises RuntimeError where a layer cannot be set.
    """
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        tempfile.NamedTemporaryFile() as outside,
        contextlib.closing(Workers(layers)) as workers,
    ):
        program = _PROBE.replace("PORT", str(server.getsockname()[1])).replace("OUTSIDE", repr(outside.name))
        job = Job("probe", program, examples=[{"source": "for name in tried: print(name, '=', tried[name])"}])
        outcome = _run_one(job, workers)
        Path(outside.name + ".new").unlink(missing_ok=True)
    if outcome.outcome != "finished":
        raise RuntimeError(f"the sandbox's probe ended with {outcome.outcome}: {outcome.detail}")
    return dict(line.split(" = ", 1) for line in outcome.got[0].splitlines())


@functools.lru_cache(maxsize=1)
def _probed() -> tuple[tuple[str, ...] | None, dict[str, str], list[str]]:
    """The strongest tier that can be set and is seen to refuse everything; what it refused; why others were not."""
    missing = []
    for layers in _TIERS if sys.platform == "linux" else ():
        try:
            refused = _probe(layers)
        except RuntimeError as error:
            missing.append(f"{'+'.join(layers)}: {error}")
            continue
        allowed = [what for what, answer in refused.items() if answer == "allowed"]
        if not allowed:
            return layers, refused, missing
        missing.append(f"{'+'.join(layers)}: lets through {', '.join(allowed)}")
    return None, {}, missing


@functools.lru_cache(maxsize=1)
def _probed_unsafe() -> tuple[tuple[str, ...], dict[str, str]]:
    """The strongest of the tiers that leave the user's files open, and what it refused."""
    for layers in _UNSAFE_TIERS:
        try:
            return layers, _probe(layers)
        except RuntimeError:
            continue
    raise UserError("no process can be started for generated code on this machine")


def _layers(allow_unsafe_exec: bool) -> tuple[str, ...]:
    if os.name != "posix":
        raise UserError("running generated code needs Linux or macOS: on Windows use WSL")
    layers, _, missing = _probed()
    if layers is not None:
        return layers
    if allow_unsafe_exec:
        return _probed_unsafe()[0]
    why = "; ".join(missing) or f"no sandbox for {sys.platform}"
    raise UserError(
        f"generated code could reach the network or your files here ({why}). Use Linux with user namespaces, or with "
        "seccomp and Landlock, or accept the risk with --allow-unsafe-exec"
    )


def protection(*, allow_unsafe_exec: bool = False) -> dict:
    """What guards this machine while generated code runs, found out by trying; it goes into every result file.

    Raises UserError where the network and the files cannot be cut off, unless `allow_unsafe_exec`.
    """
    layers = _layers(allow_unsafe_exec)
    tier, refused, missing = _probed()
    if tier is None:
        refused = _probed_unsafe()[1]
    return {
        "tier": "+".join(layers) if tier is not None else "+".join(("unsafe", *layers)),
        "network": refused["network"],
        "processes": refused["processes"],
        "filesystem": refused["write outside"],
        "reading": refused["read outside"],
        "memory": "unlimited" if sys.platform == "darwin" else "RLIMIT_AS",
        "threads": "watched" if sys.platform == "linux" else "unlimited",
        "wall_clock": "SIGKILL to all processes of the job",
        "proof": "secret over a private pipe after the last line; expected outputs or tests in another process",
        "not_available": missing,
    }
