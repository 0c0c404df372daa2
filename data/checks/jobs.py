"""From a check and an answer to sandbox jobs.

A job holds what to run, never what must come out: the expected values stay in this process (data/checks/verdict.py).
"""

from __future__ import annotations

import ast
import copy
import functools
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from common.console import need
from common.python_syntax import parse, parsed
from data.checks.check import original_function, package_root, patched_module, suite_base
from data.checks.script.check import job_of_calls
from sandbox.run import Job, Outcome, run_jobs

SECONDS = 10  # wall clock of one job
MEGABYTES = 1024  # memory of one job
RACE_SECONDS = 30  # wall clock of a job that times two versions of a function
TEST_SECONDS = 5  # of one test of the repository
TESTS_SECONDS = 40  # wall clock of a job that runs the repository's tests: pytest starts, files are collected
# Names that an answer would need to decide its own tests: the repository's assertions run in the answer's process.
HARNESS = frozenset({
    "pytest", "_pytest", "unittest", "mock", "pluggy",
    "__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__", "__bool__", "__contains__",
    "__builtins__", "__subclasses__", "__traceback__", "__getattribute__", "__dict__", "__import__", "__globals__",
    "__loader__",
    "tb_frame", "f_back", "f_locals", "f_globals", "gi_frame", "cr_frame", "ag_frame", "_getframe", "currentframe",
    "_current_frames", "exc_info",
    "settrace", "setprofile", "monitoring", "gc", "ctypes", "_exit", "fdopen", "FileIO", "posix", "excepthook",
    "import_module", "attrgetter", "methodcaller",
})  # fmt: skip
# Names that lead to the report's pipe and to frames without any of those above. They are ordinary words in a string,
# so only their use in code counts.
REACHING = frozenset({
    "open", "io", "os", "eval", "exec", "compile", "getattr", "vars", "globals", "importlib", "inspect", "traceback",
    "runpy", "pickle", "marshal", "threading", "multiprocessing", "signal", "atexit", "modules",
})  # fmt: skip
WRAPPED = "_wrapped"  # the inner function's name in `wrapped`


def run_groups(
    groups: Sequence[Sequence[Job]],
    *,
    processes: int | None = None,
    allow_unsafe_exec: bool = False,
    what: str = "running in the sandbox",
) -> Iterator[list[Outcome]]:
    """Run the jobs of all groups at once; yields the outcomes of each group, in order.

    processes  how many jobs run at once (default: one per core)
    what       label of the progress bar
    Raises UserError where the sandbox cannot cut off the network, unless `allow_unsafe_exec`.
    """
    jobs = [job for group in groups for job in group]
    outcomes = iter(run_jobs(jobs, processes=processes, allow_unsafe_exec=allow_unsafe_exec, what=what) if jobs else [])
    for group in groups:
        yield [next(outcomes) for _ in group]


def jobs_of(check: dict, answer: str) -> list[Job]:
    """The sandbox jobs that put an answer to an executed check; none when the answer can prove nothing.

    answer  the function's whole text; for a unit_test check the test's
    """
    if check["kind"] == "doctest":
        return [doctest_job(check, answer)]
    if check["kind"] == "values":
        return [values_job(check, answer)]
    if check["kind"] == "calls":
        return [job_of_calls(check, answer)]
    return unit_test_jobs(check, answer) if check["kind"] == "unit_test" else suite_jobs(check, answer)


def rerun(jobs: list[Job], number: int, *, comment: str = "#") -> list[Job]:
    """The jobs of a check with the first (on the original) changed by a comment: the sandbox runs equal jobs once."""
    return [replace(job, program=f"{job.program}{comment} run {number}\n") for job in jobs[:1]] + jobs[1:]


def doctest_job(check: dict, function_source: str) -> Job:
    """The job that runs a doctest check's examples with `function_source` in the function's place."""
    examples = [{"source": example["source"]} for example in check["examples"]]  # not what they should print
    return _job(check, "", patch=patched_module(check, function_source), examples=examples)


def unit_test_jobs(check: dict, test_source: str) -> list[Job]:
    """Jobs that run a test on the function and on each mutant; none when the text has no test function.

    Original and mutants are each wrapped in a function that only calls them (`wrapped`), so a test that reads the code
    instead of running it fails on the original, too. No file shows which one is a mutant. Not caught: a test that digs
    through the wrapper's code object, and chance (`assert random.random() < 0.5`).
    """
    tree = parsed(test_source)
    tests = [
        node.name
        for node in (tree.body if tree else [])
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test")
    ]
    if not tests:
        return []
    program = "\n".join([test_source.rstrip("\n"), "", *(f"{name}()" for name in tests)]) + "\n"
    versions = [original_function(check), *check["mutants"]]
    return [_job(check, program, patch=patched_module(check, wrapped(version))) for version in versions]


def wrapped(source: str) -> str:
    """A function moved into one that only calls it: the same behaviour from a code object that does not give it away.

    The body becomes an inner function with the old body, and a call to it with all arguments. Decorators, signature and
    docstring stay outside. A plain function passes a generator or coroutine through.
    """
    (outer,) = parse(source).body
    inner = copy.deepcopy(outer)
    inner.name, inner.decorator_list, inner.returns = WRAPPED, [], None
    arguments = inner.args
    arguments.defaults, arguments.kw_defaults = [], [None] * len(arguments.kwonlyargs)  # every argument is passed
    positional = [*arguments.posonlyargs, *arguments.args]
    given = [ast.Name(one.arg) for one in positional]
    given += [ast.Starred(ast.Name(arguments.vararg.arg))] if arguments.vararg else []
    named = [ast.keyword(one.arg, ast.Name(one.arg)) for one in arguments.kwonlyargs]
    named += [ast.keyword(None, ast.Name(arguments.kwarg.arg))] if arguments.kwarg else []
    for one in (*positional, arguments.vararg, *arguments.kwonlyargs, arguments.kwarg):
        if one is not None:
            one.annotation = None
    documented = ast.get_docstring(outer, clean=False) is not None
    outer.body = [*outer.body[:documented], inner, ast.Return(ast.Call(ast.Name(WRAPPED), given, named))]
    plain = {name: getattr(outer, name) for name in outer._fields}
    return ast.unparse(ast.fix_missing_locations(ast.FunctionDef(**plain))) + "\n"


def values_job(check: dict, function_source: str) -> Job:
    """The job that makes a values check's calls with `function_source` in the function's place."""
    place = f"{check['module']!r}, {check['qualname']!r}"
    examples = [{"source": f"_probe.show({place}, {call['arguments']!r})\n"} for call in check["calls"]]
    return _job(check, probe_program(), patch=patched_module(check, function_source), examples=examples)


def race_job(check: dict, before: str, after: str) -> Job | None:
    """The job in which two versions of a function take turns at a check's examples or calls; None if it has neither.

    Its one example prints what `race` of data/checks/probe.py measures, in a process that neither version can reach.
    `after` can still do less than it should, or cache the results of repeated calls.
    """
    if check["kind"] not in ("doctest", "values"):
        return None
    job_for = doctest_job if check["kind"] == "doctest" else values_job
    old, new = job_for(check, before), job_for(check, after)
    sources = [example["source"] for example in new.examples]
    return replace(
        new,
        program=f"{probe_program()}_repeat = _probe.repeater(globals(), {sources!r})\n",
        tests={"source": probe_program(), "names": ["_repeat"], "against": old.patch},
        examples=[{"source": "_probe.race(against['_repeat'], _repeat)\n"}],
        seconds=RACE_SECONDS,
    )


def suite_jobs(check: dict, function_source: str) -> list[Job]:
    """The job that runs a tests check's tests; none for an answer that uses names which could decide them.

    The tests' assertions run in the answer's process, on values that it made: an object that equals everything, or a
    patched pytest, would pass. The names such tricks need (HARNESS, REACHING) are refused unless the original uses
    them, and a test that must fail runs last. This is a hurdle, not a wall: only a separate process would be one, and a
    graph that crosses a process boundary and back is no longer the same object to its tests. The cost, measured on
    networkx: none of its pairs' 73 answers is refused, nor any of 1,024 rewritten functions
    (data/instruct/degrade.py); 35 of its 1,394 functions use such a name, so about 2.5 % of honest answers might.
    UserError where pytest is not installed.
    """
    need("pytest", why="a check by the repository's own tests")
    original = original_function(check)
    if (_words(function_source) - _words(original)) & HARNESS:
        return []
    if (_code_names(function_source) - _code_names(original)) & REACHING:
        return []
    base = str(suite_base(check["package"]))
    program = probe_program() + f"_probe.require({base!r}, {check['tests']!r}, test_seconds={TEST_SECONDS})\n"
    job = _job(check, program, patch=patched_module(check, function_source))
    return [replace(job, seconds=TESTS_SECONDS, readable=[base])]


@functools.lru_cache
def probe_program() -> str:
    """A program that binds `_probe` to data/checks/probe.py, without adding a module the tested code could import."""
    text = Path(__file__).with_name("probe.py").read_text(encoding="utf-8")
    return f"import types\n_probe = types.ModuleType('_probe')\nexec({text!r}, vars(_probe))\n"


def _words(source: str) -> set[str]:
    """Every word of a text, those in strings and comments included."""
    return set(re.findall(r"\w+", source))


def _code_names(source: str) -> set[str]:
    """The names, attributes and modules that Python code uses; every word if it does not parse."""
    tree = parsed(source)
    if tree is None:
        return _words(source)
    found = set()
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name):
                found.add(name)
            case ast.Import(names=names):
                found.update(part for alias in names for part in alias.name.split("."))
            case ast.ImportFrom(module=module, names=names):
                found.update((module or "").split("."), (alias.name for alias in names))
    return found


def _job(check: dict, program: str, *, patch: str, examples: list[dict] | None = None) -> Job:
    return Job(
        id=check["qualname"],
        program=program,
        root=str(package_root(check["package"])),
        patch={"module": check["module"], "source": patch},
        examples=examples,
        seconds=SECONDS,
        megabytes=MEGABYTES,
    )
