"""One job, seen from outside: hand it to a worker, wait for its report, and believe only a report with the secret."""

from __future__ import annotations

import json
import os
import secrets
import select
import socket
import tempfile
import time
from dataclasses import asdict, replace

from sandbox.job import OUTCOMES, Job, Outcome
from sandbox.workers import Workers

REPORT_LIMIT = 16 << 20  # bytes; the child's own limits keep an honest report far below


def run_one(job: Job, workers: Workers) -> Outcome:
    """Run one job. Whatever it does, all of its processes are killed and its folder is deleted."""
    secret = secrets.token_hex(16)
    with (
        tempfile.TemporaryDirectory(dir=workers.folder, ignore_cleanup_errors=True) as folder,
        tempfile.TemporaryFile() as job_file,
        workers.one() as worker,
    ):
        start = time.monotonic()
        job_file.write(json.dumps(asdict(job)).encode())
        job_file.seek(0)
        data, in_time, stopped = _exchange(
            job, worker, layers=workers.layers, folder=folder, job_fd=job_file.fileno(), secret=secret
        )
        _unlock(folder)
    seconds = round(time.monotonic() - start, 3)
    outcome = judge_report(job, data, in_time=in_time, secret=secret, seconds=seconds)
    if stopped is not None and outcome.outcome in ("died", "timeout"):
        return replace(outcome, outcome="denied", detail=stopped)
    return outcome


def _exchange(
    job: Job, worker: socket.socket, *, layers: tuple[str, ...], folder: str, job_fd: int, secret: str
) -> tuple[bytes, bool, str | None]:
    """Have a worker fork a child for the job, and end it after its report or its time limit.

    Returns the report, whether it was complete in time, and why the worker itself stopped the job, if it did.
    """
    deadline = time.monotonic() + job.seconds
    settings = {
        "folder": folder,
        "layers": layers,
        "seconds": job.seconds,
        "megabytes": job.megabytes,
        "readable": readable_folders(job),
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
            socket.send_fds(worker, [json.dumps(settings).encode()], [job_fd, report_write, secret_read])
        finally:
            os.close(report_write)
            os.close(secret_read)
        data, in_time = _read_until(report, deadline)
        worker.sendall(b"end")
        reply = worker.recv(1 << 12)
    if not reply:
        raise RuntimeError("a worker of the sandbox has ended")
    return data, in_time, json.loads(reply)


def readable_folders(job: Job) -> list[str]:
    """The folders outside its own that a job may read, absolute."""
    return [os.path.abspath(path) for path in [job.root, *(job.readable or [])] if path]


def _unlock(folder: str) -> None:
    """Restore the permissions that a job removed from its folders, so that they can be deleted."""
    for parent, names, _ in os.walk(folder):
        for name in names:
            path = os.path.join(parent, name)
            if not os.path.islink(path):
                os.chmod(path, 0o700)


def _read_until(report, deadline: float) -> tuple[bytes, bool]:
    """Everything written to the pipe, and whether it was closed before the deadline."""
    data = b""
    while len(data) <= REPORT_LIMIT:
        if not select.select([report], [], [], max(0.0, deadline - time.monotonic()))[0]:
            return data, False
        piece = report.read(1 << 16)
        if not piece:
            break
        data += piece
    return data, True


def judge_report(job: Job, data: bytes, *, in_time: bool, secret: str, seconds: float) -> Outcome:
    """The outcome of a job: its report if that is complete, well-formed and carries the secret; else "died".

    Raises RuntimeError if the child could not be confined, although these layers worked before.
    """
    if not in_time:
        detail = f"not finished after {job.seconds:g} s"
        return Outcome(job.id, "timeout", got=[], exceptions=[], detail=detail, seconds=seconds)
    detail = "the process ended without a report"
    died = Outcome(job.id, "died", got=[], exceptions=[], detail=detail, seconds=seconds)
    try:
        report = json.loads(data)
        believed = secrets.compare_digest(report.pop("secret"), secret)
        outcome = Outcome(id=job.id, seconds=seconds, **report)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return died
    if not believed:
        return died
    if outcome.outcome == "not confined":
        raise RuntimeError(f"a sandbox layer that worked before could not be set: {outcome.detail}")
    complete = len(outcome.got) == len(outcome.exceptions) == len(job.examples or [])
    if outcome.outcome not in OUTCOMES or (outcome.outcome == "finished" and not complete):
        return died
    return outcome
