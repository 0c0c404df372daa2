"""Checks: what each records about a function, so that an answer can later be proven.

A check names the function's place and what must come out. It is stored with the pair as plain JSON; data/checks/jobs.py
makes sandbox jobs of it, data/checks/verdict.py judges their outcomes.
"""

from __future__ import annotations

import functools
import hashlib
import textwrap
from pathlib import Path

from common.console import UserError
from data.corpus import import_root
from data.corpus.filters import decode
from data.corpus.functions import Function
from data.corpus.locate import locate

EXECUTED = ("doctest", "unit_test", "values", "tests", "calls")  # kinds of check that run code; "structure" does not


def doctest_check(package: str, function: Function) -> dict:
    """A check that the function's own examples still hold. Examples marked +SKIP are left out."""
    examples = [example for example in function.examples if not example["options"].get("SKIP")]
    return {"kind": "doctest", **_place(package, function), "examples": examples}


def unit_test_check(package: str, function: Function, mutants: list[str]) -> dict:
    """A check that a test passes on the function and fails on at least one of its mutants."""
    return {"kind": "unit_test", **_place(package, function), "mutants": mutants}


def values_check(package: str, function: Function, calls: list[dict]) -> dict:
    """A check that recorded calls give the same results.

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


package_root = functools.lru_cache(import_root)


@functools.lru_cache
def suite_base(package: str) -> Path:
    """The folder that the test files of a source are named from: the import root, or the project around its src/."""
    located = locate(package)
    return located.root.parent if located.scanned.name == "src" else located.root


@functools.lru_cache(maxsize=512)
def _module_text(package: str, module: str) -> str:
    stem = package_root(package).joinpath(*module.split("."))
    for path in (stem.with_suffix(".py"), stem / "__init__.py"):
        if path.is_file():
            return decode(path.read_bytes())
    raise UserError(f"{package}: module {module} not found. Install or fetch the source that the pairs were made from")


def patched_module(check: dict, function_source: str) -> str:
    """The text of the check's module with its function replaced; a method is indented to its place.

    UserError when the module has changed since the check was made.
    """
    text = _module_text(check["package"], check["module"])
    if hashlib.sha256(text.encode()).hexdigest() != check.get("sha256"):
        raise UserError(f"{check['module']} of {check['package']} has changed since the pairs were made. Rebuild them")
    lines = text.split("\n")
    first = lines[check["first_line"] - 1]
    indent = first[: len(first) - len(first.lstrip())]
    new = [indent + line if line.strip() else line for line in function_source.rstrip("\n").split("\n")]
    return "\n".join([*lines[: check["first_line"] - 1], *new, *lines[check["last_line"] :]])


def original_function(check: dict) -> str:
    """The text of the check's function as the repository has it, dedented."""
    lines = _module_text(check["package"], check["module"]).split("\n")
    return textwrap.dedent("\n".join(lines[check["first_line"] - 1 : check["last_line"]]))
