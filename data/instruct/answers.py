"""Reads answers by category: the code that an answer stands for, and whether it has the right form."""

from __future__ import annotations

import re
from collections.abc import Callable

from common.console import UserError
from common.python_syntax import parsed, same_code
from data.checks.code_blocks import code_blocks
from data.checks.extract import complete_function, correct_line, extract_code
from data.checks.script import is_script
from data.instruct import form
from data.instruct.docstyle import docstring_in
from data.instruct.gap import GAP, fill_gap
from data.instruct.reading import Reading, judged
from data.instruct.script.answers import SCRIPT_READERS

CODE_CATEGORIES = ("complete", "fim", "bugfix", "unit_test", "improve")
_CODE_START = re.compile(r"\s*(?:@|(?:async +)?def |class |import |from \S+ import )")
IN_PLACE = ("complete", "fim", "bugfix")  # the answer goes into the code that the prompt shows


def _name(pair: dict) -> str:
    """The function's bare name; for a check of structure the first name that the input defines."""
    if "qualname" in pair["check"]:
        return pair["check"]["qualname"].rsplit(".", 1)[-1]
    tree = parsed(given_code(pair))
    return next((node.name for node in tree.body if hasattr(node, "name")), "") if tree else ""


def given_code(pair: dict) -> str:
    """The code that the prompt shows: the input, or the first block in it if it is prose."""
    given = pair["input"]
    is_bare = _CODE_START.match(given) or parsed(given.replace(GAP, "pass")) is not None
    blocks = [] if is_bare else code_blocks(given)
    return blocks[0] if blocks else given


def _read_complete(pair: dict, output: str) -> Reading:
    code = complete_function(given_code(pair), _name(pair), output)
    if code is None:
        return Reading(None, "no body that parses", "syntax" if output.strip() else "extraction")
    return judged(code, form.function_problem(code, _name(pair)))


def _read_fim(pair: dict, output: str) -> Reading:
    """The whole function, or the content of the gap: indented anyhow, or continuing the line of the gap."""
    given, name = given_code(pair), _name(pair)
    if GAP not in given:
        raise UserError(f"pair {pair['id']}: its input has no {GAP} to fill")
    blocks = code_blocks(output)
    missing = (blocks[0] if blocks else output.replace("\r\n", "\n")).rstrip()
    if GAP in missing:  # the prompt repeated; parts of it would parse as a function
        return Reading(None, "leaves the gap", "wrong")
    readings = [extract_code(output, name)]
    readings += [fill_gap(given, missing), given.replace(GAP, missing.lstrip())] if missing else []
    code = next((one for one in readings if one is not None and parsed(one) is not None), None)
    if code is None:
        return Reading(None, "no lines that parse in the gap", "syntax" if missing else "extraction")
    is_empty = any(same_code(code, fill_gap(given, nothing)) for nothing in ("", "pass", "..."))
    return judged(code, form.function_problem(code, name) or ("leaves the gap" if is_empty else None))


def _read_bugfix(pair: dict, output: str) -> Reading:
    given = given_code(pair)
    code = correct_line(given, _name(pair), pair["check"]["line"], output)
    if code is None:
        return Reading(None, "neither one line nor the function", "extraction")
    unchanged = "leaves the bug" if same_code(code, given) else None
    return judged(code, form.function_problem(code, _name(pair)) or unchanged)


def _read_improve(pair: dict, output: str) -> Reading:
    code = extract_code(output, _name(pair))
    if code is None:
        return _no_code(output)
    unchanged = "changes nothing" if same_code(code, given_code(pair)) else None
    return judged(code, form.function_problem(code, _name(pair)) or unchanged)


def _read_unit_test(pair: dict, output: str) -> Reading:
    code = extract_code(output)
    return _no_code(output) if code is None else judged(code, form.unit_test_problem(code, _name(pair)))


def _no_code(output: str) -> Reading:
    looks_like_code = bool(code_blocks(output)) or "def " in output
    return Reading(None, "no code that parses", "syntax" if looks_like_code else "extraction")


def _read_docstring(pair: dict, output: str) -> Reading:
    problem = form.docstring_problem(docstring_in(output), pair["check"], given_code(pair))
    return Reading(None, problem, problem and "wrong")


def _read_explain(pair: dict, output: str) -> Reading:
    problem = form.explanation_problem(output, pair["check"], given_code(pair))
    return Reading(None, problem, problem and "wrong")


READERS: dict[str, Callable[[dict, str], Reading]] = {
    "complete": _read_complete,
    "fim": _read_fim,
    "bugfix": _read_bugfix,
    "improve": _read_improve,
    "unit_test": _read_unit_test,
    "docstring": _read_docstring,
    "explain": _read_explain,
}


def read(pair: dict, output: str) -> Reading:
    """An answer to a pair, read as its category and language ask for."""
    readers = SCRIPT_READERS if is_script(pair) else READERS
    return readers[pair["category"]](pair, output)
