"""Foreign code runs here and nowhere else: each job in its own process, without network, time-limited, and untrusted.

A job counts as finished only if it reports, over a private pipe and with the run's secret, that its last line has run:
an exit code of zero, `sys.exit()` or a print prove nothing. With examples, what each printed is returned and compared
by the caller. With tests, the program runs in one process and the tests in another, which alone holds the secret: they
call the program through messages of plain values, so that it cannot reach what judges it.

    python -m sandbox < jobs.jsonl > outcomes.jsonl        python -m sandbox --probe

An empty line starts the jobs before it, so that a program can send one batch after the other.

The protections of this machine are determined once, by trying them out (`protection`), and recorded in every result.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace

from common.console import progress
from sandbox.job import Job, Outcome
from sandbox.protection import choose_layers, protection
from sandbox.supervise import readable_folders, run_one
from sandbox.workers import Workers

__all__ = ["Job", "Outcome", "protection", "run_jobs", "stream_outcomes"]


def run_jobs(
    jobs: list[Job], *, processes: int | None = None, allow_unsafe_exec: bool = False, what: str = "running code"
) -> list[Outcome]:
    """Run every job, `processes` at once (default: the number of cores); outcomes in the order of the jobs.

    Equal jobs run once. Raises UserError if the network cannot be cut off here, unless `allow_unsafe_exec`.
    """
    outcomes = stream_outcomes(jobs, processes, choose_layers(allow_unsafe_exec))
    return list(progress(outcomes, what=what, total=len(jobs), unit="job"))


def stream_outcomes(jobs: list[Job], processes: int | None, layers: tuple[str, ...]) -> Iterator[Outcome]:
    """Outcomes in the order of the jobs, each as soon as it and all before it are known."""
    keys = [json.dumps(asdict(replace(job, id="")), sort_keys=True) for job in jobs]
    workers = Workers(layers, {path for job in jobs for path in readable_folders(job)})
    with ThreadPoolExecutor(processes or os.cpu_count()) as pool:
        running = {}
        for key, job in zip(keys, jobs, strict=True):
            if key not in running:
                running[key] = pool.submit(run_one, job, workers)
        try:
            for key, job in zip(keys, jobs, strict=True):
                yield replace(running[key].result(), id=job.id)
        finally:
            pool.shutdown(cancel_futures=True)  # after Ctrl-C wait only for jobs that are already running
            workers.close()
