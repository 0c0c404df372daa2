"""The command `python -m sandbox`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict

from common.console import UserError, run_command
from sandbox.protection import choose_layers
from sandbox.run import Job, protection, stream_outcomes


def _batches(lines) -> Iterator[list[Job]]:
    """The jobs up to each empty line, as soon as it has been read, and those after the last."""
    jobs: list[Job] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            yield jobs
            jobs = []
            continue
        try:
            jobs.append(Job(**json.loads(line)))
        except (ValueError, TypeError) as error:
            raise UserError(f"stdin:{number}: not a job ({error}). See `Job` in sandbox/job.py") from None
    yield jobs


def main() -> None:
    """Command line: jobs in, outcomes out."""
    parser = argparse.ArgumentParser(prog="python -m sandbox", description=__doc__.split("\n\n")[0])
    parser.add_argument("--probe", action="store_true", help="print what guards this machine as one JSON object")
    parser.add_argument("--processes", type=int, help="jobs at once (default: the cores)")
    parser.add_argument("--allow-unsafe-exec", action="store_true", help="run even where the network stays reachable")
    options = parser.parse_args()
    if options.probe:
        print(json.dumps(protection(allow_unsafe_exec=options.allow_unsafe_exec)))
        return
    for jobs in _batches(sys.stdin):
        for outcome in stream_outcomes(jobs, options.processes, choose_layers(options.allow_unsafe_exec)):
            print(json.dumps(asdict(outcome)), flush=True)


if __name__ == "__main__":
    sys.exit(run_command(main))
