"""How well a docstring or an explanation fits the code it describes."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from common.python_syntax import parsed
from data.checks.linting import Issue, lint
from data.instruct.docstyle import read_docstring
from data.instruct.form import called_name
from data.search.bm25 import words

# pydocstyle by Google's convention, without missing docstrings (D1), the rules that ruff disables for that convention,
# and backslashes (D301): the escapes are added here
DOCSTRING_RULES = ("D2", "D3", "D4")
NOT_GOOGLES = ("D203", "D204", "D213", "D215", "D301", "D400", "D401", "D404", "D406", "D407", "D408", "D409", "D413")
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_TELLING = 4  # letters; a shorter word of an identifier (get, of, to) says nothing


def docstring_issues(functions: list[str], docstrings: list[str]) -> list[list[Issue]]:
    """Ruff's findings by DOCSTRING_RULES for each docstring in its function, all in one call."""
    put = [_with_docstring(code, text) for code, text in zip(functions, docstrings, strict=True)]
    return lint(put, rules=DOCSTRING_RULES, ignored=NOT_GOOGLES, why="the docstring check")


def _with_docstring(code: str, text: str) -> str:
    """The function's head with the docstring as its body. What would end the literal is escaped."""
    function = next(node for node in ast.walk(ast.parse(code)) if isinstance(node, _FUNCTIONS))
    head = ast.unparse(ast.Module([_bare(function)], [])).split("\n")[:-1]
    body = text.replace("\\", "\\\\").replace('"""', r"\"\"\"")
    body = body[:-1] + r"\"" if body.endswith('"') else body
    lines = [line and f"    {line}" for line in f'"""{body}'.split("\n")]
    return "\n".join([*head, *lines]) + ('\n    """' if "\n" in body else '"""')


def _bare(function: ast.FunctionDef | ast.AsyncFunctionDef) -> ast.stmt:
    fields = {name: getattr(function, name) for name in function._fields}
    return type(function)(**fields | {"body": [ast.Pass()], "decorator_list": []}, lineno=1, col_offset=0)


def docstring_match(text: str, code: str) -> float:
    """How well a docstring fits the function in `code`: entries due and present / entries due or present, 0 to 1.

    Due are an entry in "Args" for each parameter (not self, cls), "Returns" or "Yields" if the function returns or
    yields a value, and one in "Raises" for each exception class that the body raises by name. Other exceptions may come
    from callees and cost nothing. An entry without text and type counts as missing.
    """
    tree = parsed(code)
    function = next((node for node in ast.walk(tree) if isinstance(node, _FUNCTIONS)), None) if tree else None
    if function is None:
        raise ValueError("no function to compare the docstring with")
    entries = read_docstring(text).entries
    due = _due(function)
    there = {(kind, name) for kind, name, is_described in _entries(entries) if is_described}
    raised_below = {entry for entry in there if entry[0] == "Raises"} - due
    if function.args.kwarg:  # keys of **kwargs may be documented by name
        raised_below |= {entry for entry in there if entry[0] == "Args"} - due
        due -= {("Args", function.args.kwarg.arg)} if raised_below else set()
    there -= raised_below
    return len(due & there) / len(due | there) if due | there else 1.0


def _entries(entries: dict) -> list[tuple[str, str, bool]]:
    """(kind, name, whether it has text or a type); results have no name."""
    is_named = {"Args": True, "Raises": True}
    return [
        (kind if kind in is_named else "Returns", entry.name.lstrip("*").rsplit(".", 1)[-1] if kind in is_named else "",
         bool(entry.text or entry.type))
        for kind, listed in entries.items()
        for entry in listed
    ]  # fmt: skip


def _due(function: ast.FunctionDef | ast.AsyncFunctionDef) -> set[tuple[str, str]]:
    arguments = function.args
    named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
    due = {("Args", one.arg) for one in named if one is not None and one.arg not in ("self", "cls")}
    for node in _own_nodes(function):
        if isinstance(node, ast.Yield | ast.YieldFrom) or (isinstance(node, ast.Return) and not _is_none(node.value)):
            due.add(("Returns", ""))
        if isinstance(node, ast.Raise):
            raised = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
            name = getattr(raised, "attr", None) or getattr(raised, "id", "")
            due |= {("Raises", name)} if name[:1].isupper() else set()  # a variable or a bare raise names no class
    return due


def _is_none(node: ast.expr | None) -> bool:
    return node is None or (isinstance(node, ast.Constant) and node.value is None)


def _own_nodes(function: ast.AST) -> Iterator[ast.AST]:
    """All nodes of a function except those of functions and classes inside it."""
    for node in ast.iter_child_nodes(function):
        if not isinstance(node, (*_FUNCTIONS, ast.Lambda, ast.ClassDef)):
            yield node
            yield from _own_nodes(node)


def explanation_coverage(answer: str, code: str) -> float | None:
    """The share of the names in the function in `code` that an explanation mentions, 0 to 1; None if it has none.

    Names are its parameters, what it calls, and what it raises. A name is mentioned verbatim, or if each of its words
    of four letters or more begins a word of the text: "removes the edges" for `remove_edge`. Names without such a word
    count only verbatim; the function's own name does not count.
    """
    tree = parsed(code)
    function = next((node for node in ast.walk(tree) if isinstance(node, _FUNCTIONS)), None) if tree else None
    if function is None:
        raise ValueError("no function to explain")
    names = {name for kind, name in _due(function) if kind != "Returns"}
    names |= {called_name(node) for node in ast.walk(function) if isinstance(node, ast.Call)}
    names -= {"", function.name}
    mentioned = [_mentions(answer, name) for name in sorted(names)]
    return sum(mentioned) / len(mentioned) if mentioned else None


def _mentions(text: str, name: str) -> bool:
    if re.search(rf"\b{re.escape(name)}\b", text):
        return True
    parts = [word for word in words(name) if len(word) >= _TELLING]
    return bool(parts) and all(re.search(rf"\b{re.escape(part)}", text, re.IGNORECASE) for part in parts)
