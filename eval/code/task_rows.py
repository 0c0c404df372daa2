"""The formats of code tasks: rows of the published benchmarks and of our own, as `CodeTask`.

- MBPP (Austin et al. 2021, arXiv:2108.07732): mbpp.jsonl and sanitized-mbpp.json, as published
- HumanEval (Chen et al. 2021, arXiv:2107.03374): HumanEval.jsonl, also with .gz
- EvalPlus (Liu et al. 2023, arXiv:2305.01210): HumanEvalPlus.jsonl and MbppPlus.jsonl with base_input, plus_input
- MultiPL-E (Cassano et al. 2022, arXiv:2208.08227) for JavaScript and TypeScript
- our own: {"task_id", "prompt", "entry_point", "tests"}, optionally "setup" and "canonical_solution"
"""

from __future__ import annotations

import ast
import json
from dataclasses import replace

from common.python_syntax import parsed
from data.checks.node import NAMES
from eval.code.evalplus import comparison_with_gold
from eval.code.javascript import python_tests
from eval.code.tasks import CodeTask, defined_names


def task_of_row(row: dict) -> CodeTask:
    """The task of a row in any of the formats; if it has several test suites, the strongest determines the format.

    Raises KeyError, TypeError, ValueError, AttributeError or SyntaxError for anything else.
    """
    if row.get("language") in NAMES:
        entry_point, tests = python_tests(row["tests"])
        return CodeTask(
            _id(row, "name"),
            _text(row, "prompt"),
            entry_point=entry_point,
            tests=tests,
            language=row["language"],
            stops=tuple(row["stop_tokens"]),
        )
    if "base_input" in row:
        return _plus(row)
    if "test_list" in row:
        return _mbpp(row)
    if "test" in row:
        if row.get("tests"):
            raise ValueError('"tests" beside "test": only one of them can be used; remove the other')
        return _humaneval(row)
    tests, setup = _lines(row["tests"]), _lines(row.get("setup") or "")
    if not tests:
        raise ValueError('its "tests" are empty')
    task = CodeTask(_id(row), _text(row, "prompt"), entry_point=_text(row, "entry_point"), tests=tests, setup=setup)
    return task if row.get("canonical_solution") is None else _with_gold(task, row["canonical_solution"])


def _id(row: dict, field: str = "task_id") -> str:
    """The id as text: answers may give a number either way. ValueError for anything but text or a whole number."""
    value = row[field]
    if not isinstance(value, str | int) or isinstance(value, bool) or value == "":
        raise ValueError(f'"{field}" must be text or a whole number, not {json.dumps(value)}')
    return str(value)


def _text(row: dict, field: str) -> str:
    if not isinstance(row[field], str):
        raise ValueError(f'"{field}" must be text, not {type(row[field]).__name__}')
    return row[field]


def _lines(text: str | list[str]) -> str:
    """A text, or a list of lines, with "\\n" line ends and one at the end; empty if it is blank."""
    joined = text if isinstance(text, str) else "\n".join(text)
    return joined.replace("\r\n", "\n").rstrip() + "\n" if joined.strip() else ""


def _with_gold(task: CodeTask, solution: str) -> CodeTask:
    """The task with its gold: `solution` is a whole module, or the body that follows the prompt."""
    whole = _lines(solution)
    return replace(task, gold=whole if task.entry_point in defined_names(whole) else task.prompt + solution)


def _mbpp(row: dict) -> CodeTask:
    """A row of MBPP, or of EvalPlus's mbppplus, whose "test" (the original inputs and many more) is used instead."""
    shown = tuple(test.replace("\r\n", "\n").strip() for test in row["test_list"])
    if not shown:
        raise ValueError('its "test_list" is empty')
    gold = _lines(row["code"])
    entry_point = _called(shown[0], gold)
    setup = _lines([*(row.get("test_imports") or ()), row.get("test_setup_code") or ""])
    tests = _lines([*shown, *(row.get("challenge_test_list") or ())])
    if row.get("test"):
        tests = _suite(row["test"], entry_point)
    prompt = _text(row, "text" if row.get("text") else "prompt")
    return CodeTask(_id(row), prompt, entry_point=entry_point, tests=tests, setup=setup, shown=shown, gold=gold)


def _suite(test: str | list[str], entry_point: str) -> str:
    """The tests in a field "test": HumanEval's define `check(candidate)`, which is then called; others are plain."""
    tests = _lines(test)
    return tests + (f"\ncheck({entry_point})\n" if "check" in defined_names(tests) else "")


def _called(test: str, gold: str) -> str:
    """The function of `gold` that an assertion calls; if it calls several, the outermost."""
    tree = parsed(gold)
    defined = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)} if tree else set()
    calls = [node.func for node in ast.walk(ast.parse(test)) if isinstance(node, ast.Call)]
    names = [call.id for call in calls if isinstance(call, ast.Name)]
    found = [name for name in names if name in defined or not defined]
    if not found:
        raise ValueError("its tests call no function of its solution")
    return found[0]


def _humaneval(row: dict) -> CodeTask:
    tests = _suite(row["test"], _text(row, "entry_point"))
    if not tests:
        raise ValueError('its "test" is empty')
    task = CodeTask(_id(row), _text(row, "prompt"), entry_point=row["entry_point"], tests=tests)
    return _with_gold(task, row["canonical_solution"])


def _plus(row: dict) -> CodeTask:
    """A row of EvalPlus with both sets of inputs, checked against the gold."""
    task = CodeTask(_id(row), _text(row, "prompt"), entry_point=_text(row, "entry_point"), tests="")
    task = _with_gold(task, row["canonical_solution"])
    inputs = [*row["base_input"], *row["plus_input"]]
    return replace(task, tests=comparison_with_gold(task, inputs, row.get("atol") or 0))
