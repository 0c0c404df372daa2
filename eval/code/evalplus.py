"""EvalPlus's tests: an answer must return what the gold returns, on every input (Liu et al. 2023, arXiv:2305.01210)."""

from __future__ import annotations

import ast
import contextlib

from common.python_syntax import parsed
from eval.code.tasks import CodeTask

# EvalPlus's own comparison (evalplus/eval/__init__.py): numpy's allclose where there is a tolerance.
_COMPARISON = """
import copy
_gold = {}
exec(GOLD, _gold)
def _is_floats(x):
    return isinstance(x, float) or isinstance(x, (list, tuple)) and bool(x) and all(isinstance(y, float) for y in x)
def _close(got, wanted, atol):
    if isinstance(wanted, (list, tuple)):
        return len(got) == len(wanted) and all(_close(g, w, atol) for g, w in zip(got, wanted))
    return got == wanted or abs(got - wanted) <= atol + 1e-07 * abs(wanted)
def _alike(got, wanted):
    atol = ATOL or 1e-6 * _is_floats(wanted)
    return got == wanted or bool(atol) and type(got) is type(wanted) and _close(got, wanted, atol)
for _input in INPUTS:
    assert _alike(AS(ENTRY(*copy.deepcopy(_input))), AS(_gold["ENTRY"](*copy.deepcopy(_input)))), _input
"""
# Functions whose results EvalPlus compares by truth value or as sets (evalplus/eval/_special_oracle.py).
_AS_SETS = ("similar_elements", "find_char_long", "common_in_nested_lists", "extract_singly", "larg_nnum")
_AS_SETS += ("intersection_array", "find_dissimilar", "Diff")
_COMPARED_AS = dict.fromkeys(("check_str", "text_match_three", "text_starta_endb"), "bool")
_COMPARED_AS |= dict.fromkeys(_AS_SETS, "set")


def comparison_with_gold(task: CodeTask, inputs: list[list], atol: float) -> str:
    """Python that asserts that the entry point agrees with `task.gold` on each list of arguments in `inputs`.

    atol  absolute tolerance for floats; 0: none, except 1e-6 for results that are floats
    """
    shown = _shown_arguments(task.prompt, task.entry_point)
    typed = [_typed_arguments(arguments, shown) for arguments in inputs]
    constants = f"from math import inf, nan\nGOLD = {task.gold!r}\nINPUTS = {typed!r}\nATOL = {atol!r}\n"
    compared = _COMPARISON.replace("ENTRY", task.entry_point)
    return constants + compared.replace("AS(", _COMPARED_AS.get(task.entry_point, "") + "(")


def _shown_arguments(prompt: str, name: str) -> list[list]:
    """The arguments of the calls of `name` in the assertions that an MBPP+ prompt shows."""
    trees = [parsed(line.strip()) for line in prompt.splitlines() if line.strip().startswith("assert ")]
    calls = [node for tree in trees if tree for node in ast.walk(tree) if isinstance(node, ast.Call)]
    found = []
    for call in calls:
        with contextlib.suppress(ValueError):  # an argument that is not a literal
            found += [list(map(ast.literal_eval, call.args))] if ast.unparse(call.func) == name else []
    return found


def _typed_arguments(arguments: list, shown: list[list]) -> list:
    places = [[of_call[i] for of_call in shown if i < len(of_call)] for i in range(len(arguments))]
    return [_typed(value, place, list) for value, place in zip(arguments, places, strict=True)]


def _typed(value, shown: list, kind: type):
    """`value` from JSON, with the Python types of the values in the same place in `shown`.

    kind  the type of a list that has no counterpart there
    """
    if isinstance(value, str) and any(isinstance(one, complex) for one in shown):
        return complex(value)
    if isinstance(value, dict):
        values = [item for one in shown if isinstance(one, dict) for item in one.values()]
        return {key: _typed(item, values, kind) for key, item in value.items()}
    if not isinstance(value, list):
        return value
    alike = [one for one in shown if isinstance(one, (list, tuple, set))]
    kind = type(alike[0]) if alike else kind
    items = [item for one in alike for item in one]
    return kind(_typed(item, items, kind) for item in value)
