"""How an answer is proven: from a check and an answer to sandbox jobs, and from their results to a verdict.

The wanted outputs stay on this side. The sandbox is told what to run and says what came out; only `judge` knows what
was wanted. The sandbox is a program of its own (`python -m sandbox`), spoken to in JSON Lines.
"""

from __future__ import annotations

import ast
import atexit
import contextlib
import doctest
import functools
import hashlib
import itertools
import json
import math
import re
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path
from typing import TextIO

from common.console import UserError, need, progress
from common.python_syntax import parsed
from data.checks.wrap import wrapped
from data.corpus import import_root
from data.corpus.filters import decode
from data.corpus.functions import Function
from data.corpus.locate import locate

EXECUTED = ("doctest", "unit_test", "values", "tests")  # kinds of check that run code; "structure" does not
SECONDS = 10  # wall clock of one job
MEGABYTES = 1024  # memory of one job
RACE_SECONDS = 30  # wall clock of a job that measures two texts of a function
TEST_SECONDS = 5  # of one test of the repository
TESTS_SECONDS = 40  # wall clock of a job that runs the repository's tests: pytest starts, files are collected
KILLED = frozenset({"exception", "timeout", "memory"})  # how a test fails on a mutant; "denied" or "syntax" is no proof
CLOSE = 1e-9  # relative difference of two floats that counts as none (math.isclose's own)
# What an answer would take to decide its own tests. The repository's assertions run where the answer runs.
HARNESS = frozenset(
    {"pytest", "_pytest", "unittest", "mock", "pluggy", "gc", "ctypes", "_getframe", "currentframe", "settrace"}
    | {f"__{name}__" for name in ("eq", "ne", "lt", "le", "gt", "ge", "bool", "contains", "builtins", "subclasses")}
    | {f"__{name}__" for name in ("traceback", "getattribute", "dict", "import", "globals", "loader")}
    | {"tb_frame", "f_back", "f_locals", "f_globals", "gi_frame", "cr_frame", "ag_frame", "_current_frames", "exc_info"}
    | {"setprofile", "monitoring", "_exit", "fdopen", "FileIO", "posix", "import_module", "attrgetter", "methodcaller"}
    | {"excepthook"}
)
# Words that a text may well hold, so that only names in code count: by these an answer finds the report's pipe and the
# frames without one of the names above.
REACHING = frozenset(
    {"open", "io", "os", "eval", "exec", "compile", "getattr", "vars", "globals", "importlib", "inspect", "traceback"}
    | {"runpy", "pickle", "marshal", "threading", "multiprocessing", "signal", "atexit", "modules"}
)


def doctest_check(package: str, function: Function) -> dict:
    """A check that the function's own examples still hold. Examples marked +SKIP are left out."""
    examples = [example for example in function.examples if not example["options"].get("SKIP")]
    return {"kind": "doctest", **_place(package, function), "examples": examples}


def unit_test_check(package: str, function: Function, mutants: list[str]) -> dict:
    """A check that a test passes on the function and fails on at least one of its mutants."""
    return {"kind": "unit_test", **_place(package, function), "mutants": mutants}


def values_check(package: str, function: Function, calls: list[dict]) -> dict:
    """A check that recorded calls give what they gave.

    calls  {"arguments": text as `show` of data/checks/probe.py takes it, "want": what it printed, "raises": None or the
           name of the exception}
    """
    return {"kind": "values", **_place(package, function), "calls": calls}


def suite_check(package: str, function: Function, tests: list[str]) -> dict:
    """A check that tests of the repository pass: pytest's node ids, relative to `suite_base(package)`."""
    return {"kind": "tests", **_place(package, function), "tests": tests}


def structure_check(arguments: list[str], returns: bool, names: list[str]) -> dict:
    """What an answer that is not executed must mention."""
    return {"kind": "structure", "arguments": arguments, "returns": returns, "names": names}


def _place(package: str, function: Function) -> dict:
    text = _module_text(package, function.module)
    return {
        "package": package,
        "module": function.module,
        "qualname": function.qualname,
        "first_line": function.first_line,
        "last_line": function.last_line,
        "sha256": hashlib.sha256(text.encode()).hexdigest(),
    }


_root = functools.lru_cache(import_root)


@functools.lru_cache
def suite_base(package: str) -> Path:
    """The folder that the test files of a source are named from: the import root, or the project around its src/."""
    located = locate(package)
    return located.root.parent if located.scanned.name == "src" else located.root


@functools.lru_cache(maxsize=512)
def _module_text(package: str, module: str) -> str:
    stem = _root(package).joinpath(*module.split("."))
    for path in (stem.with_suffix(".py"), stem / "__init__.py"):
        if path.is_file():
            return decode(path.read_bytes())
    raise UserError(f"{package}: module {module} is not there. Install or fetch what the pairs were made from")


def patched_module(check: dict, function_source: str) -> str:
    """The text of the check's module with its function replaced; a method's text is indented to its place.

    UserError when the module is not the one that the check was made from.
    """
    text = _module_text(check["package"], check["module"])
    if hashlib.sha256(text.encode()).hexdigest() != check.get("sha256"):
        raise UserError(
            f"{check['module']} of {check['package']} has changed since the pairs were made. Make them again"
        )
    lines = text.split("\n")
    first = lines[check["first_line"] - 1]
    indent = first[: len(first) - len(first.lstrip())]
    new = [indent + line if line.strip() else line for line in function_source.rstrip("\n").split("\n")]
    return "\n".join([*lines[: check["first_line"] - 1], *new, *lines[check["last_line"] :]])


def _original(check: dict) -> str:
    """The text of the check's function, with no indentation."""
    lines = _module_text(check["package"], check["module"]).split("\n")
    return textwrap.dedent("\n".join(lines[check["first_line"] - 1 : check["last_line"]]))


def doctest_job(check: dict, function_source: str) -> dict:
    """The sandbox job that runs a doctest check's examples with `function_source` in the function's place."""
    examples = [{"source": example["source"]} for example in check["examples"]]
    return _job(check, "", patch=patched_module(check, function_source), examples=examples)


def unit_test_jobs(check: dict, test_source: str) -> list[dict]:
    """Jobs that run a test on the function and on each mutant; none when the text holds no test function.

    Each is moved into a function that only calls it (data/checks/wrap.py): a test that looks at the code and not at
    what it does fails on the function itself, too. The files show no mutant. What digs in the code of the wrapping for
    the code inside, and chance (`assert random.random() < 0.5`), are not found out.
    """
    try:
        tree = ast.parse(test_source)
    except (SyntaxError, ValueError, RecursionError):
        return []
    tests = [node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test")]
    if not tests:
        return []
    program = "\n".join([test_source.rstrip("\n"), "", *(f"{name}()" for name in tests)]) + "\n"
    functions = [_original(check), *check["mutants"]]
    return [_job(check, program, patch=patched_module(check, wrapped(function))) for function in functions]


def values_job(check: dict, function_source: str) -> dict:
    """The sandbox job that makes a values check's calls with `function_source` in the function's place."""
    place = f"{check['module']!r}, {check['qualname']!r}"
    examples = [{"source": f"_probe.show({place}, {call['arguments']!r})\n"} for call in check["calls"]]
    return _job(check, probe_program(), patch=patched_module(check, function_source), examples=examples)


def race_job(check: dict, before: str, after: str) -> dict | None:
    """The sandbox job in which two texts of a function run a check's examples or calls in turn, or None without those.

    Its one example prints what `race` of data/checks/probe.py measures, in a process that neither text reaches. `after`
    can still do less than it is asked to, or remember what it is asked again.
    """
    if check["kind"] not in ("doctest", "values"):
        return None
    put = doctest_job if check["kind"] == "doctest" else values_job
    old, new = put(check, before), put(check, after)
    sources = [example["source"] for example in new["examples"]]
    program = f"{probe_program()}_repeat = _probe.repeater(globals(), {sources!r})\n"
    tests = {"source": probe_program(), "names": ["_repeat"], "against": old["patch"]}
    examples = [{"source": "_probe.race(against['_repeat'], _repeat)\n"}]
    return {**new, "program": program, "tests": tests, "examples": examples, "seconds": RACE_SECONDS}


def suite_jobs(check: dict, function_source: str) -> list[dict]:
    """The job that runs a tests check's tests; none for an answer that reaches for what could decide them.

    The tests' assertions run in the answer's process, on values that it made: an object that equals everything, or a
    patched pytest, would pass them. Names that such tricks take (HARNESS, REACHING) are refused unless the original has
    them, and a test that must fail runs last. That is a hurdle and no wall: only a process of its own would be one, and
    a graph has no way there and back on which it stays the same to its tests. What the hurdle costs, by networkx: of 73
    answers of its pairs none is refused, of 1,024 functions rewritten (data/instruct/degrade.py) none; 35 of its 1,394
    functions hold such a name, so about 2.5 % of honest answers could. UserError where pytest is not installed.
    """
    need("pytest", why="a check by the repository's own tests")
    original = _original(check)
    if (_names(function_source) - _names(original)) & HARNESS:
        return []
    if (_code_names(function_source) - _code_names(original)) & REACHING:
        return []
    base = str(suite_base(check["package"]))
    program = probe_program() + f"_probe.require({base!r}, {check['tests']!r}, test_seconds={TEST_SECONDS})\n"
    job = _job(check, program, patch=patched_module(check, function_source))
    return [{**job, "seconds": TESTS_SECONDS, "readable": [base]}]


def jobs_of(check: dict, answer: str) -> list[dict]:
    """The sandbox jobs that put an answer to an executed check; none when the answer can prove nothing.

    answer  the function's whole text; for a unit_test check the test's
    """
    if check["kind"] == "doctest":
        return [doctest_job(check, answer)]
    if check["kind"] == "values":
        return [values_job(check, answer)]
    return unit_test_jobs(check, answer) if check["kind"] == "unit_test" else suite_jobs(check, answer)


@functools.lru_cache
def probe_program() -> str:
    """A program after which `_probe` is data/checks/probe.py, under no name that the code under test could have."""
    text = Path(__file__).with_name("probe.py").read_text(encoding="utf-8")
    return f"import types\n_probe = types.ModuleType('_probe')\nexec({text!r}, vars(_probe))\n"


def _names(source: str) -> set[str]:
    """Every name, attribute and word of a string in a text; of one that does not parse, every word."""
    return set(re.findall(r"\w+", source))


def _code_names(source: str) -> set[str]:
    """The names, attributes and modules in a text of Python; every word of one that does not parse on its own."""
    tree = parsed(source)
    if tree is None:
        return _names(source)
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


def _job(check: dict, program: str, *, patch: str | None, examples: list[dict] | None = None) -> dict:
    return {
        "program": program,
        "root": str(_root(check["package"])),
        "patch": patch and {"module": check["module"], "source": patch},
        "examples": examples,
        "seconds": SECONDS,
        "megabytes": MEGABYTES,
    }


def judge(check: dict, results: list[dict]) -> bool:
    """Whether the results of an executed check's jobs prove the answer right. No results prove nothing."""
    if check["kind"] not in EXECUTED:
        raise ValueError(f"a check of kind {check['kind']!r} is not executed")
    if not results or results[0]["outcome"] != "finished":
        return False
    if check["kind"] == "unit_test":
        return any(result["outcome"] in KILLED for result in results[1:])
    if check["kind"] == "values":
        return compare_calls(check["calls"], results[0]["got"], results[0]["exceptions"])
    return check["kind"] == "tests" or compare_examples(check["examples"], results[0]["got"], results[0]["exceptions"])


def refutes(check: dict, results: list[dict]) -> bool:
    """Whether results of a check of a function show the answer wrong, rather than a run that broke down."""
    outcome = results[0]["outcome"] if results else "died"
    return outcome in KILLED or (outcome == "finished" and not judge(check, results))


def compare_calls(calls: list[dict], got: list[str], exceptions: list[str | None]) -> bool:
    """Whether each call printed and gave, or raised, what it did when it was recorded."""
    if not calls or not (len(calls) == len(got) == len(exceptions)):
        return False
    return all(_call_holds(*one) for one in zip(calls, got, exceptions, strict=True))


def _call_holds(call: dict, got: str, exception: str | None) -> bool:
    if exception is not None or call["raises"] is not None:
        raised = exception and exception_name(exception)
        return raised == call["raises"] and got == call["want"]
    *printed, value = got.rstrip("\n").split("\n")
    *wanted_printed, wanted = call["want"].rstrip("\n").split("\n")
    try:
        return printed == wanted_printed and same(ast.literal_eval(wanted), ast.literal_eval(value))
    except (ValueError, SyntaxError, MemoryError, RecursionError):  # all four come from Python's own parser
        return False


def same(wanted, got) -> bool:
    """Whether plain data are equal in type and value; floats up to a relative difference of CLOSE."""
    if type(wanted) is not type(got):
        return False
    if isinstance(wanted, float):
        return math.isclose(wanted, got, rel_tol=CLOSE, abs_tol=CLOSE)
    if isinstance(wanted, list | tuple):
        return len(wanted) == len(got) and all(map(same, wanted, got))
    if isinstance(wanted, set):
        return sorted(map(repr, wanted)) == sorted(map(repr, got))
    if isinstance(wanted, dict):
        return same(set(wanted), set(got)) and all(same(wanted[key], got[key]) for key in wanted)
    return wanted == got


def compare_examples(examples: list[dict], got: list[str], exceptions: list[str | None]) -> bool:
    """Whether what each example printed (or raised) is what its docstring wants, by doctest's own rules and options."""
    if not (len(examples) == len(got) == len(exceptions)):
        return False
    wanted = [one for one in zip(examples, got, exceptions, strict=True) if not one[0].get("options", {}).get("SKIP")]
    return bool(wanted) and all(_example_holds(*one) for one in wanted)


def _example_holds(example: dict, got: str, exception: str | None) -> bool:
    options = example.get("options", {})
    flags = sum(doctest.OPTIONFLAGS_BY_NAME[name] for name, on in options.items() if on)
    check = doctest.OutputChecker().check_output
    raises = example.get("raises")
    if raises is None:
        return exception is None and check(example["want"], got, flags)
    if exception is None:
        return False
    if flags & doctest.IGNORE_EXCEPTION_DETAIL:
        return exception_name(raises) == exception_name(exception)
    return check(raises, exception.rstrip("\n") + "\n", flags)


def exception_name(text: str) -> str:
    """The name of the class in an exception's text, without its module."""
    return text.split(":", 1)[0].strip().rsplit(".", 1)[-1]


def run_in_sandbox(jobs: list[dict], *, processes: int | None = None) -> list[dict]:
    """Run jobs in the sandbox; results in the order of the jobs. Equal jobs are run once.

    processes: how many run at once (default: one a core). Raises RuntimeError when the sandbox itself breaks.
    """
    keys = [json.dumps(job, sort_keys=True) for job in jobs]
    distinct = list(dict.fromkeys(keys))
    if not distinct:
        return []
    sandbox, errors = _sandbox(processes)
    results = {}
    try:
        with contextlib.suppress(BrokenPipeError):  # it has ended, and its last words say why
            for number, key in enumerate(distinct):
                sandbox.stdin.write(json.dumps({"id": str(number), **json.loads(key)}) + "\n")
            sandbox.stdin.write("\n")
            sandbox.stdin.flush()
        lines = itertools.islice(sandbox.stdout, len(distinct))
        for line in progress(lines, what="running in the sandbox", total=len(distinct), unit="job"):
            result = json.loads(line)
            results[distinct[int(result["id"])]] = result
    finally:
        if len(results) != len(distinct):
            _sandbox.cache_clear()  # the next call starts another
            _end(sandbox)
    if len(results) != len(distinct):
        errors.seek(0)
        raise RuntimeError(f"the sandbox ended with status {sandbox.wait()}: {errors.read()[-2000:]}")
    return [results[key] for key in keys]


@functools.lru_cache
def _sandbox(processes: int | None) -> tuple[subprocess.Popen, TextIO]:
    """The sandbox, which serves as long as this process runs, and what it says on stderr: starting it takes seconds."""
    command = [sys.executable, "-m", "sandbox"]
    command += ["--processes", str(processes)] if processes else []
    home = Path(__file__).resolve().parents[2]
    errors = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115 (open as long as the sandbox is)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": errors, "encoding": "utf-8"}
    sandbox = subprocess.Popen(command, cwd=home, **pipes)
    atexit.register(_end, sandbox)
    return sandbox, errors


def _end(sandbox: subprocess.Popen) -> None:
    """Hang up: the sandbox ends when it wants to read or to say more, after the jobs that are running."""
    with contextlib.suppress(BrokenPipeError):
        sandbox.stdin.close()
    sandbox.stdout.close()
