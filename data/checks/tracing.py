"""Runs the repository's own tests once under tracing in the sandbox: which functions each enters, with what arguments.

Tracing is sys.settrace without line events: one dictionary look-up per function call.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from common.console import need
from data.checks.check import suite_base
from data.checks.jobs import MEGABYTES, TEST_SECONDS, probe_program
from data.corpus import import_root
from data.corpus.filters import reject_path
from data.corpus.functions import Function
from sandbox.run import Job, Outcome, run_jobs

BATCH = 8  # test files that share a process: starting pytest and importing the package takes longer than most tests
BATCH_SECONDS = 120  # wall clock of a batch
STARTING_SECONDS = 30  # of these, reserved for starting, collecting and reporting


@dataclass(frozen=True)
class Recording:
    """The result of one run of the tests. Path and first line identify a function.

    seconds  of each test that passed, by pytest's node id
    entered  the functions that each passed test enters, by node id
    calls    by function: texts of ([positional, …], {name: …}), each plain data, in order of occurrence
    lost     how many tests (skipped, failed, not run) and files could not be used, by reason
    """

    seconds: dict[str, float]
    entered: dict[str, frozenset[tuple[str, int]]]
    calls: dict[tuple[str, int], tuple[str, ...]]
    lost: dict[str, int]

    def tests_of(self, function: Function) -> list[str]:
        """Tests that enter a function: first those named after it, then those that enter the fewest others."""
        name = function.name.strip("_").lower()
        found = [test for test, entered in self.entered.items() if key_of(function) in entered]
        return sorted(found, key=lambda test: (name not in test.lower(), len(self.entered[test]), test))

    def calls_of(self, function: Function) -> tuple[str, ...]:
        """Recorded arguments of a function."""
        return self.calls.get(key_of(function), ())


def key_of(function: Function) -> tuple[str, int]:
    """What identifies a function here."""
    return function.path, function.first_line


def files_with_tests(source: str) -> list[str]:
    """The files of a source that pytest would collect tests from, relative to `suite_base(source)`."""
    base = suite_base(source)
    package = source.removeprefix("package:") if source.startswith("package:") else ""
    found = []
    for folder, folders, names in os.walk(base / package):
        folders.sort()
        for name in sorted(names):
            path = Path(folder, name).relative_to(base).as_posix()
            is_test = PurePosixPath(name).match("test_*.py") or PurePosixPath(name).match("*_test.py")
            reject = reject_path(path)
            if is_test and reject is not None and reject[0] == "test file":
                found.append(path)
    return found


def record_tests(source: str, functions: list[Function], *, processes: int | None = None) -> Recording:
    """Run the tests of a source once, in the sandbox, and record how they use `functions`.

    source     what the functions' corpus was made from: folder, package:NAME, pypi:NAME==VERSION or git URL
    processes  how many run at once (default: one per core)
    A batch that ends without a report, and a file that cannot be collected with others, is rerun file by file. Calls
    are recorded for module-level functions, not for methods, which need an object first. Raises UserError where
    there are tests and pytest is not installed.
    """
    paths = files_with_tests(source)
    if paths:
        need("pytest", why="running a repository's own tests")
    batches = [paths[start : start + BATCH] for start in range(0, len(paths), BATCH)]
    reports, again = [], []
    for batch, report in _reports(source, functions, batches, processes):
        if len(batch) == 1:
            reports.append(report)
            continue
        again += [path for path in batch if report is None or path in report["broken"]]
        if report is not None:
            reports.append(report | {"broken": {}})
    reports += [report for _, report in _reports(source, functions, [[path] for path in again], processes)]
    return _merged(reports, functions)


def _reports(
    source: str, functions: list[Function], batches: list[list[str]], processes: int | None
) -> Iterator[tuple[list[str], dict | None]]:
    """Each batch of test files with the report that probe.py's `record` printed; None if it did not get that far."""
    base, root = str(suite_base(source)), str(import_root(source))
    table = [
        [one.path, one.first_line, one.first_line + one.header.count("\n"), one.name, "." not in one.qualname]
        for one in functions
    ]
    limits = f"test_seconds={TEST_SECONDS}, seconds={BATCH_SECONDS - STARTING_SECONDS}"
    program = f"{probe_program()}_functions = {table!r}\n"
    jobs = [
        Job(
            id=batch[0],
            program=program,
            root=root,
            readable=[base],
            examples=[{"source": f"_probe.record({base!r}, {root!r}, {batch!r}, _functions, {limits})\n"}],
            seconds=BATCH_SECONDS,
            megabytes=2 * MEGABYTES,
        )
        for batch in batches
    ]
    outcomes = run_jobs(jobs, processes=processes, what="tracing the tests") if jobs else []
    for batch, outcome in zip(batches, outcomes, strict=True):
        yield batch, _report(outcome, len(functions))


def _report(outcome: Outcome, functions: int) -> dict | None:
    """What a job reported, if it has the form that `record` gives it: foreign code ran in that process."""
    if outcome.outcome != "finished" or outcome.exceptions != [None]:
        return None
    try:
        report = json.loads(outcome.got[0].rstrip("\n").split("\n")[-1])
        calls = {int(number): [str(call) for call in calls] for number, calls in report["calls"].items()}
        tests = {
            name: {"outcome": str(test["outcome"]), "seconds": float(test["seconds"]), "entered": test["entered"]}
            for name, test in report["tests"].items()
        }
        numbers = [*calls, *(number for test in tests.values() for number in test["entered"])]
        if not all(0 <= number < functions for number in numbers):
            return None
        return {"tests": tests, "broken": dict(report["broken"]), "calls": calls}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def _merged(reports: list[dict | None], functions: list[Function]) -> Recording:
    seconds, entered, lost = {}, {}, Counter()
    calls: dict[tuple[str, int], list[str]] = {}
    for report in reports:
        if report is None:
            lost["file without a report"] += 1
            continue
        lost["file that cannot be collected"] += len(report["broken"])
        for name, test in report["tests"].items():
            if test["outcome"] != "passed":
                lost[f"test {test['outcome']}"] += 1
                continue
            seconds[name] = round(test["seconds"], 3)
            entered[name] = frozenset(key_of(functions[number]) for number in test["entered"])
        for number, found in report["calls"].items():
            calls.setdefault(key_of(functions[number]), []).extend(found)
    unique = {key: tuple(dict.fromkeys(found)) for key, found in calls.items() if found}
    return Recording(seconds, entered, unique, dict(+lost))
