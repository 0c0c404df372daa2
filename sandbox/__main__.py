"""The command `python -m sandbox`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from common.console import UserError, run_command
from common.options import option, parse
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


@dataclass(frozen=True)
class Options:
    """Options of this command."""

    probe: bool = option(False, "print the active protections as one JSON object, and exit")
    processes: int | None = option(None, "jobs at once (default: one per core)")
    allow_unsafe_exec: bool = option(False, "run jobs even where the network cannot be closed to them")


def main() -> None:
    """Run jobs in the sandbox: JSON Lines in on standard input, an outcome per job out; an empty line ends a batch."""
    options = parse(Options, description=main.__doc__)
    if options.probe:
        print(json.dumps(protection(allow_unsafe_exec=options.allow_unsafe_exec)))
        return
    for jobs in _batches(sys.stdin):
        for outcome in stream_outcomes(jobs, options.processes, choose_layers(options.allow_unsafe_exec)):
            print(json.dumps(asdict(outcome)), flush=True)


if __name__ == "__main__":
    sys.exit(run_command(main))
