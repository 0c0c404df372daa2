"""Runs inside the sandbox beside the code under test: the repository's tests, traced or not, recorded calls, and timed
examples.

It is sent there as text and imports nothing from the project. Nothing here knows what a call should return.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import inspect
import itertools
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator

CONFIGS = ("pytest.ini", ".pytest.ini", "pyproject.toml", "tox.ini", "setup.cfg")  # pytest's, in its order
MOST_TRIED = 200  # calls of one function that are examined; a hot one is called millions of times
MOST_CALLS = 8  # kept per function and process
MOST_ARGUMENTS = 400  # characters of a recorded call's arguments
MOST_RESULT = 4000  # characters of a call's result
DEEPEST = 12  # levels of nested containers
ROUNDS = 21  # of a race
BLOCK = 0.01  # least seconds that the slower side takes in a round
PAUSE = 0.001  # seconds until a process that has replied sleeps: only then is its clock exact (Linux, with RLIMIT_CPU)
MOST_RACE = 8.0  # seconds of a race after which no new round begins
CANARY = "test_that_must_fail_in_the_end"


def literal(value, most: int, deepest: int = DEEPEST) -> str:
    """The text of plain data, from which ast.literal_eval makes an equal value of the same types.

    Plain are None, bool, int, float but not nan, str, bytes, and a list, tuple, set or dict of plain data. Raises
    ValueError for anything else, including subclasses, and beyond `most` characters or `deepest` levels.
    """
    kind = type(value)
    if value is None or kind in (bool, int):
        text = repr(value)
    elif kind is float and value == value:
        text = repr(value).replace("inf", "1e999")
    elif kind in (str, bytes) and len(value) <= most:
        text = repr(value)
    elif kind in (list, tuple, set, dict) and deepest and 2 * len(value) <= most:
        text = _container(value, most, deepest - 1)
    else:
        raise ValueError("not plain data")
    if len(text) > most:
        raise ValueError("too long")
    return text


def _container(value, most: int, deepest: int) -> str:
    if type(value) is dict:
        items = [f"{literal(key, most, deepest)}: {literal(value[key], most, deepest)}" for key in value]
        return "{" + ", ".join(items) + "}"
    items = [literal(item, most, deepest) for item in value]
    if type(value) is set:
        return "{" + ", ".join(sorted(items)) + "}" if items else "set()"
    if type(value) is list:
        return "[" + ", ".join(items) + "]"
    return "(" + ", ".join(items) + ("," if len(items) == 1 else "") + ")"


def show(module: str, qualname: str, arguments: str) -> None:
    """Call a function; print, as one literal, (is the result an iterator, result, its arguments after the call).

    arguments  text of ([positional, …], {name: …}). The first items of an iterator count, as a list.
    """
    function = importlib.import_module(module)
    for name in qualname.split("."):
        function = getattr(function, name)
    positional, named = ast.literal_eval(arguments)
    result = function(*positional, **named)
    is_iterator = isinstance(result, Iterator)
    if is_iterator:
        result = list(itertools.islice(result, MOST_RESULT))
    try:
        print(literal((is_iterator, result, positional, named), MOST_RESULT))
    except ValueError:
        print("not plain data")


class Tracer:
    """A trace function that records which functions are entered, and with which plain arguments.

    root       folder that the paths are relative to
    functions  [path, first line, last line of the header, name, whether calls are recorded]; numbered in this order
    """

    def __init__(self, root: str, functions: list):
        self.table: dict[str, dict[tuple[int, str], int]] = {}
        for number, (path, line, _, name, _) in enumerate(functions):
            self.table.setdefault(os.path.join(root, path), {})[line, name] = number
        self.header_ends = [function[2] for function in functions]
        self.entered: set[int] = set()
        self.tries = {number: MOST_TRIED for number, function in enumerate(functions) if function[4]}
        self.calls: dict[int, list[str]] = {}

    def trace(self, frame, event, argument) -> None:
        """For sys.settrace. Returns None: lines and returns are not traced."""
        code = frame.f_code
        functions = self.table.get(code.co_filename)
        if functions is not None and (number := functions.get((code.co_firstlineno, code.co_name))) is not None:
            self.entered.add(number)
            if self.tries.get(number):
                self._record(number, frame)

    def _record(self, number: int, frame) -> None:
        if frame.f_lineno > self.header_ends[number]:
            return  # a generator resumes, which looks like a call
        self.tries[number] -= 1
        calls = self.calls.setdefault(number, [])
        with contextlib.suppress(ValueError, KeyError):  # not plain data; an unbound variable
            arguments = _arguments(frame)
            if arguments not in calls:
                calls.append(arguments)
        if len(calls) == MOST_CALLS:
            self.tries[number] = 0


def _arguments(frame) -> str:
    """The arguments that a frame was entered with, as `show` takes them."""
    code, values = frame.f_code, frame.f_locals
    named_from = code.co_argcount
    named_to = named_from + code.co_kwonlyargcount
    names = code.co_varnames
    positional = [values[name] for name in names[:named_from]]
    named = {name: values[name] for name in names[named_from:named_to]}
    if code.co_flags & inspect.CO_VARARGS:
        positional += values[names[named_to]]
        named_to += 1
    if code.co_flags & inspect.CO_VARKEYWORDS:
        named |= values[names[named_to]]
    return literal((positional, named), MOST_ARGUMENTS)


class OutOfTime(BaseException):
    """A test took too long. Not an Exception, which tests and the code under test may catch."""


def _out_of_time(number, frame) -> None:
    raise OutOfTime


class _Watcher:
    """A pytest plugin that runs the wanted tests (None: all) within their time limits and records their outcomes."""

    def __init__(self, wanted, tracer: Tracer | None, test_seconds: float, deadline: float):
        self.wanted, self.tracer, self.test_seconds, self.deadline = wanted, tracer, test_seconds, deadline
        self.tests: dict[str, dict] = {}  # node id -> outcome, seconds, detail
        self.entered: dict[str, set[int]] = {}
        self.broken: dict[str, str] = {}  # file -> why no test of it could be collected

    def pytest_collection_modifyitems(self, items):
        if self.wanted is not None:
            items[:] = [item for item in items if item.nodeid in self.wanted or _is_canary(item.nodeid)]

    def pytest_collectreport(self, report):
        if report.failed:
            self.broken[report.nodeid] = _last_line(report)

    def pytest_runtest_protocol(self, item):
        if time.monotonic() < self.deadline:
            return None
        self.tests[item.nodeid] = {"outcome": "not run", "seconds": 0.0, "detail": "no time left"}
        return True

    def pytest_runtest_setup(self, item):
        with self._watching(item):
            return (yield)

    def pytest_runtest_call(self, item):
        with self._watching(item):
            return (yield)

    def pytest_runtest_logreport(self, report):
        test = self.tests.setdefault(report.nodeid, {"outcome": "passed", "seconds": 0.0, "detail": ""})
        test["seconds"] += report.duration
        if not report.passed or hasattr(report, "wasxfail"):
            test.update(outcome="skipped" if report.skipped else "failed", detail=_last_line(report))

    @contextlib.contextmanager
    def _watching(self, item):
        signal.setitimer(signal.ITIMER_REAL, self.test_seconds)
        if self.tracer is not None:
            self.tracer.entered = self.entered.setdefault(item.nodeid, set())
            sys.settrace(self.tracer.trace)
        try:
            yield
        finally:
            sys.settrace(None)
            signal.setitimer(signal.ITIMER_REAL, 0)


def _is_canary(node_id: str) -> bool:
    return node_id.endswith(f"::{CANARY}")


def _last_line(report) -> str:
    return (report.longreprtext.strip().splitlines() or [""])[-1][:200]


def _run(base: str, paths: list[str], watcher: _Watcher) -> None:
    """Run pytest in this process on test files, with the repository's own configuration but without its options."""
    import pytest

    for hook in (_Watcher.pytest_runtest_setup, _Watcher.pytest_runtest_call):
        pytest.hookimpl(wrapper=True)(hook)
    config = next((path for name in CONFIGS if os.path.isfile(path := os.path.join(base, name))), os.devnull)
    arguments = [os.path.join(base, path) for path in paths]
    arguments += [f"--rootdir={base}", f"--config-file={config}", "--override-ini=addopts="]
    arguments += ["--override-ini=required_plugins=", "-p", "no:cacheprovider", "--capture=sys", "--tb=line"]
    arguments += ["--continue-on-collection-errors", "--assert=plain"]
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # locally installed plugins must not change the verdict
    signal.signal(signal.SIGALRM, _out_of_time)
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        pytest.main(arguments, plugins=[watcher])


def record(base: str, root: str, paths: list[str], functions: list, *, test_seconds: float, seconds: float) -> None:
    """Run all tests of some files under tracing; print their outcomes, the functions they entered, and recorded calls.

    base          folder that `paths`, the test files, are relative to
    root          folder that the paths of `functions` are relative to; the rest as Tracer takes it
    test_seconds  of one test, after which it is stopped
    seconds       of all tests, after which the rest are skipped
    """
    tracer = Tracer(root, functions)
    watcher = _Watcher(None, tracer, test_seconds, time.monotonic() + seconds)
    _run(base, paths, watcher)
    for node_id, test in watcher.tests.items():
        test["entered"] = sorted(watcher.entered.get(node_id, ()))
    print(json.dumps({"tests": watcher.tests, "broken": watcher.broken, "calls": tracer.calls}))


def require(base: str, tests: list[str], *, test_seconds: float) -> None:
    """Raise AssertionError unless each of these tests passes.

    One more test must fail; if it passes, pytest has been tampered with.
    """
    with open(f"{CANARY}.py", "w") as file:
        file.write(f"def {CANARY}():\n    assert len(__name__) == 0\n")
    watcher = _Watcher(set(tests), None, test_seconds, float("inf"))
    paths = list(dict.fromkeys(test.split("::")[0] for test in tests))
    _run(base, [*paths, os.path.abspath(f"{CANARY}.py")], watcher)
    canary = [test["outcome"] for node_id, test in watcher.tests.items() if _is_canary(node_id)]
    if canary != ["failed"]:
        raise AssertionError("a test that must fail did not fail")
    passed = [test for test in tests if watcher.tests.get(test, {}).get("outcome") == "passed"]
    if len(passed) < len(tests):
        first = next(test for test in tests if test not in passed)
        why = watcher.tests.get(first, {"detail": "not found"})["detail"]
        raise AssertionError(f"{len(tests) - len(passed)} of {len(tests)} tests fail, first {first}: {why}")


def repeater(names: dict, sources: list[str]) -> Callable[[int], None]:
    """A function that runs examples n times, each time in a copy of `names`; output and errors are discarded."""
    codes = [compile(source + "\n", "<example>", "single", dont_inherit=True) for source in sources]

    def repeat(times: int) -> None:
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
            for _ in range(times):
                space = dict(names)
                for code in codes:
                    with contextlib.suppress(Exception):
                        exec(code, space)

    return repeat


def cpu_clock(process: int) -> int:
    """The clock of another process's CPU time: clock_getcpuclockid(3), which Python does not have.

    The kernel's encoding (linux/posix-timers_types.h): the complement of the process id above three bits, of which 2
    is the time that the scheduler counted (CPUCLOCK_SCHED).
    """
    return ~process << 3 | 2


def race(before, after) -> None:
    """Print as JSON the CPU seconds of each round: [n repetitions by `before`, n by `after`].

    Both are `repeater`s in other processes (`Remote` of sandbox/peer.py). The kernel counts their time, so that neither
    can influence it, and other load hardly does. They take turns in going first. The overhead of an empty call is
    subtracted. Linux only.
    """

    def seconds(side, times: int) -> float:
        clock = cpu_clock(side.__peer__.process)
        start = time.clock_gettime(clock)
        side(times)
        time.sleep(PAUSE)
        return time.clock_gettime(clock) - start

    deadline, times = time.monotonic() + MOST_RACE, 1
    for side in (before, after):
        side(1)  # imports, caches
    while (longer := max(seconds(before, times), seconds(after, times))) < BLOCK and time.monotonic() < deadline:
        times *= 2 if longer > BLOCK / 16 else 8
    idle = {side: min(seconds(side, 0) for _ in range(ROUNDS)) for side in (before, after)}
    rounds = []
    while len(rounds) < ROUNDS and time.monotonic() < deadline:
        turns = (after, before) if len(rounds) % 2 else (before, after)
        took = {side: seconds(side, times) - idle[side] for side in turns}
        rounds.append([took[before], took[after]])
    print(json.dumps(rounds))
