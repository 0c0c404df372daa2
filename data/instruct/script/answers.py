"""Reads answers about functions in JavaScript and TypeScript: their code, and whether it has the right form."""

from __future__ import annotations

import re
from collections.abc import Callable

from common.markdown import blocks, without_blocks
from data.checks.script import function_problem, parts_of
from data.corpus.languages import tree_of
from data.instruct import form
from data.instruct.reading import Reading, judged
from data.instruct.script.jsdoc import read_jsdoc

_DEFINITIONS = frozenset({
    "function_declaration", "generator_function_declaration", "class_declaration", "export_statement",
    "lexical_declaration", "variable_declaration", "comment",
})  # fmt: skip
_COMMENT = re.compile(r"/\*\*.*?\*/", re.DOTALL)


def function_in(pair: dict, output: str) -> str | None:
    """The function of an answer: the block that binds its name, else the first block, else the whole answer.

    A block that is only the body is put between the header and the footer of the pair's input. None without a text.
    """
    language, name = pair["check"]["language"], pair["check"]["name"]
    found = [block.text.strip("\n") for block in blocks(output) if block.text.strip()]
    candidates = found or ([output.strip()] if output.strip() else [])
    for code in candidates:
        parts = parts_of(code, language)
        if parts is not None and parts.name == name:
            return code
    given = parts_of(pair["input"], language)
    for code in candidates:
        if given is None or not _does_something(code, language):
            continue
        whole = f"{given.header}\n{code}\n{given.footer}"
        if (parts := parts_of(whole, language)) is not None and parts.name == name:
            return whole
    return candidates[0] if candidates else None


def _does_something(code: str, language: str) -> bool:
    """Whether a text has a statement that is more than a definition, as the body of a function must."""
    statements = tree_of(code, language).root_node.named_children
    return any(one.type not in _DEFINITIONS for one in statements)


def _read_function(pair: dict, output: str) -> Reading:
    code = function_in(pair, output)
    if code is None:
        return Reading(None, "no code", "extraction")
    problem = function_problem(code, pair["check"]["name"], pair["check"]["language"])
    if problem == "does not parse" and not blocks(output):
        return Reading(None, "no code that parses", "extraction")
    return judged(code, problem)


def _read_bugfix(pair: dict, output: str) -> Reading:
    reading = _read_function(pair, output)
    if reading.problem is None and reading.code is not None and _plain(reading.code) == _plain(pair["input"]):
        return judged(reading.code, "leaves the bug")
    return reading


def _plain(code: str) -> str:
    """A code without comments and layout, by which two are compared."""
    return "".join(re.sub(r"/\*.*?\*/|//[^\n]*", "", code, flags=re.DOTALL).split())


def _read_docstring(pair: dict, output: str) -> Reading:
    problem = jsdoc_problem(comment_in(output), pair)
    return Reading(None, problem, problem and "wrong")


def comment_in(output: str) -> str:
    """The JSDoc comment of an answer; the whole text if it has none."""
    found = _COMMENT.search(output)
    return found[0] if found else without_blocks(output) or output


def jsdoc_problem(comment: str, pair: dict) -> str | None:
    """A comment must mention each of the check's arguments and the result, and document no other parameter."""
    if len(re.findall(r"[A-Za-z]{2,}", comment)) < 3:
        return "says nothing"
    check = pair["check"]
    for argument in check["arguments"]:
        if not re.search(rf"(?<![\w$]){re.escape(argument)}(?![\w$])", comment):
            return f"does not mention the argument {argument}"
    function = parts_of(pair["input"], check["language"])
    real = function.arguments if function is not None else ()
    for one in read_jsdoc(comment).params:
        if real and one.name not in real:
            return f"documents {one.name}, which is no argument"
    if check["returns"] and not re.search(r"\breturns?\b", comment, re.IGNORECASE):
        return "does not say what is returned"
    return None


def _read_explain(pair: dict, output: str) -> Reading:
    problem = form.explanation_problem(output, pair["check"], pair["input"])
    return Reading(None, problem, problem and "wrong")


SCRIPT_READERS: dict[str, Callable[[dict, str], Reading]] = {
    "complete": _read_function,
    "bugfix": _read_bugfix,
    "docstring": _read_docstring,
    "explain": _read_explain,
}
