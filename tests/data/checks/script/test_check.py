"""Checks by calls: node runs the answer, and another process, which alone knows the values, makes the calls."""

from __future__ import annotations

import sys

import pytest

from common.console import UserError
from data.checks import jobs_of, proves, refutes, run_groups
from data.checks.node import node_command
from data.checks.script.check import calls_check, function_problem, script_structure_check
from data.checks.verdict import explain

MODULE = "import { one } from './one.js';\n\nexport function add(a, b) {\n  return a + b * one;\n}\n"
MODULES = {"src/add.js": MODULE, "src/one.js": "export const one = 1;\n"}
CALLS = [
    {"arguments": "[1, 2]", "want": "3\n", "raises": None},
    {"arguments": "['x', 0]", "want": "'x0'\n", "raises": None},
]
CHECK = calls_check("javascript", "add", "src/add.js", MODULES, (3, 5), CALLS)


def ready(language: str) -> str:
    """Why code in a language cannot run here, or nothing."""
    try:
        node_command(language)
    except UserError as error:
        return str(error)
    return "" if sys.platform == "linux" else "the layers are Linux's"


needs_node = pytest.mark.skipif(bool(ready("js")), reason=ready("js"))
needs_typescript = pytest.mark.skipif(bool(ready("ts")), reason=ready("ts"))


def outcomes(check, *codes):
    return list(run_groups([jobs_of(check, code) for code in codes]))


@needs_node
def test_an_answer_is_run_in_the_functions_place_with_what_its_module_imports():
    swapped, other, broken, thrown = outcomes(
        CHECK,
        "export function add(a, b) {\n  return one * b + a;\n}",
        "export function add(a, b) {\n  return a - b;\n}",
        "export function add(a, b) {\n  return a +;\n}",
        "export function add(a, b) {\n  return c;\n}",
    )
    told = explain(CHECK, swapped)
    assert told["status"] == "wrong" and told["got"] == "'0x'" and told["held"] == 1
    assert refutes(CHECK, other) and explain(CHECK, other)["expected"] == "3"
    assert explain(CHECK, broken)["status"] == "syntax"
    assert explain(CHECK, thrown)["status"] == "exception" and "c is not defined" in explain(CHECK, thrown)["detail"]
    (gold,) = outcomes(CHECK, "export function add(a, b) {\n  return a + b * one;\n}")
    assert proves(CHECK, gold) and explain(CHECK, gold) == {"status": "pass", "detail": ""}


CHEATS = [
    "export function add() { return { toJSON: () => 3, valueOf: () => 3 }; }",
    "export function add() { return new Proxy(function () {}, { apply: () => 3, get: () => 3 }); }",
    "export function add() { process.exit(0); }",
    "JSON.stringify = () => '[\"value\", 3, null]'; export function add() { return 0; }",
    "export const add = 3;",
]


@needs_node
@pytest.mark.parametrize("code", CHEATS)
def test_an_answer_cannot_decide_its_own_verdict(code):
    (found,) = outcomes(CHECK, code)
    assert not proves(CHECK, found)


@needs_node
def test_expected_values_do_not_enter_the_sandbox():
    (job,) = jobs_of(CHECK, "export function add() {}")
    assert "want" not in repr(job) and "x0" not in repr(job)


@needs_typescript
def test_types_are_taken_out():
    gold = "export const add = (a: number, b: number): number => {\n  return a + b * one;\n};\n"
    module = f"import {{ one }} from './one';\n{gold}"
    modules = {"src/add.ts": module, "src/one.ts": "export const one: number = 1;\n"}
    check = calls_check("typescript", "add", "src/add.ts", modules, (2, 4), CALLS[:1])
    right, wrong = outcomes(
        check,
        "export const add = (a: number, b: number): number => {\n  return b + (a as number);\n};",
        "export const add = (a: number, b: number) => {\n  return a;\n};",
    )
    assert proves(check, right) and refutes(check, wrong)


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ("function add(a) {\n  return a;\n}", None),
        ("const add = (a) => {\n  return a;\n};", None),
        ("function add(a) {\n  return a", "does not parse"),
        ("function sum(a) {\n  return a;\n}", "does not define add"),
        ("function add(a) {\n  // to do\n}", "is a placeholder"),
        ("function add(a) {\n  throw new Error('not written');\n}", "is a placeholder"),
        ("function add(a) {\n  throw new Error('a');\n  return a;\n}", None),
    ],
)
def test_a_function_must_parse_have_its_name_and_do_something(code, problem):
    assert function_problem(code, "add", "javascript") == problem


def test_a_check_of_structure_runs_nothing():
    check = script_structure_check("javascript", "add", ["a"], True, ["add"])
    assert check["kind"] == "structure" and check["language"] == "javascript"
