"""Verdicts kept in a file next to the result, so that an interrupted run resumes where it stopped."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

from common.files import append_jsonl, resume_jsonl
from eval.code.verdict import Verdict, run_tests
from sandbox.run import Job

CHUNK = 200  # jobs run between two writes


class VerdictCache:
    """Verdicts by the hash of everything that a job runs, so that a changed task, limit or test is run again.

    path  JSON Lines, one verdict per line; None: in memory only
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self.known = {row.pop("key"): Verdict(**row) for row in resume_jsonl(path)} if path is not None else {}

    def verdicts(
        self, jobs: list[Job], *, processes: int | None = None, allow_unsafe_exec: bool = False
    ) -> list[Verdict]:
        """Verdicts in the order of the jobs; those not yet known are run as `run_tests` does, equal jobs once."""
        keys = [hashlib.sha256(json.dumps(asdict(job)).encode()).hexdigest() for job in jobs]
        unknown = {key: job for key, job in zip(keys, jobs, strict=True) if key not in self.known}
        todo = list(unknown)
        for start in range(0, len(todo), CHUNK):
            chunk = todo[start : start + CHUNK]
            new = run_tests([unknown[key] for key in chunk], processes=processes, allow_unsafe_exec=allow_unsafe_exec)
            found = dict(zip(chunk, new, strict=True))
            self.known |= found
            if self.path is not None:
                append_jsonl(self.path, [{"key": key, **asdict(verdict)} for key, verdict in found.items()])
        return [self.known[key] for key in keys]
