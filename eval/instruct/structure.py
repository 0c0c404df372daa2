"""What can be told of an answer without running it. Each rule gives None, or what is wrong in a few words."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from common.markdown import without_blocks
from common.python_syntax import parsed
from data.instruct.docstyle import read_docstring
from data.search.bm25 import words

_SENTENCE_END = re.compile(r"[.!?](?=[\s\"')\]`]|$)")
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_TELLING = 4  # letters: a shorter word of an identifier (get, of, to) tells nothing
_ECHOED_LINE = 12  # characters: a shorter line of code may stand in prose by chance


def function_problem(code: str, name: str) -> str | None:
    """A function is a problem when it is missing or only a placeholder."""
    tree = parsed(code)
    if tree is None:
        return "does not parse"
    function = next((node for node in ast.walk(tree) if isinstance(node, _FUNCTIONS) and node.name == name), None)
    if function is None:
        return f"does not define {name}"
    return "is a placeholder" if all(_is_placeholder(node) for node in function.body) else None


def _is_placeholder(node: ast.stmt) -> bool:
    if isinstance(node, ast.Raise):
        raised = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
        return isinstance(raised, ast.Name) and raised.id == "NotImplementedError"
    return isinstance(node, ast.Pass) or (
        isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant | ast.Name)
    )


def unit_test_problem(code: str, name: str) -> str | None:
    """A test needs a function `test...` that calls `name` and checks something: an assert or an assert_/raises call."""
    tree = parsed(code)
    if tree is None:
        return "does not parse"
    tests = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test")]
    if not tests:
        return "has no test function"
    nodes = [node for test in tests for node in ast.walk(test)]
    called = {_called_name(node) for node in nodes if isinstance(node, ast.Call)}
    referred = {getattr(node, "id", None) or getattr(node, "attr", None) for node in nodes}
    if name not in called and name not in referred:  # pytest.raises(Error, function, ...) only refers to it
        return f"does not call {name}"
    checks = any(isinstance(node, ast.Assert) for node in nodes)
    checks = checks or any(called_name.startswith("assert") or called_name == "raises" for called_name in called)
    return None if checks else "asserts nothing"


def _called_name(node: ast.Call) -> str:
    return getattr(node.func, "id", None) or getattr(node.func, "attr", None) or ""


def docstring_problem(text: str, check: dict, code: str) -> str | None:
    """A docstring mentions each of check["arguments"], says what is returned if check["returns"], and documents no
    argument that the function in `code` does not have.
    """
    if len(re.findall(r"[A-Za-z]{2,}", text)) < 3:
        return "says nothing"
    for argument in check["arguments"]:
        if not re.search(rf"\b{re.escape(argument)}\b", text):
            return f"does not mention the argument {argument}"
    arguments = [node for node in ast.walk(parsed(code) or ast.Module([], [])) if isinstance(node, ast.arguments)]
    real = {node.arg for one in arguments for node in ast.walk(one) if isinstance(node, ast.arg)}
    takes_any = any(one.kwarg for one in arguments)  # what goes into **kwargs may be documented by name
    for entry in read_docstring(text).entries.get("Args", []):
        name = entry.name.lstrip("*")
        if name not in real and not takes_any:
            return f"documents {name}, which is no argument"
    if check["returns"] and not re.search(r"\b(returns?|yields?|:rtype)\b", text, re.IGNORECASE):
        return "does not say what is returned"
    return None


def explanation_problem(answer: str, check: dict, code: str) -> str | None:
    """An explanation is at least two sentences, mentions every one of check["names"], and does not repeat the code.

    Code between fences is no explanation: sentences and names count outside of it.
    """
    text = without_blocks(answer)
    if len(_SENTENCE_END.findall(text)) < 2:
        return "fewer than two sentences"
    for name in check["names"]:
        if not re.search(rf"\b{re.escape(name)}\b", text):
            return f"does not mention {name}"
    quoted = {line.strip() for line in code.split("\n") if len(line.strip()) >= _ECHOED_LINE}
    if sum(line.strip() in quoted for line in answer.splitlines()) > 1:
        return "repeats the code"
    return None


def docstring_match(text: str, code: str) -> float:
    """How well a docstring fits the function in `code`: entries that are due and there / entries due or there, 0 to 1.

    Due are an entry in "Args" for each parameter (not self, cls), "Returns" or "Yields" where a value is given back,
    and one in "Raises" for each class of exception that the body raises by name. An exception that the body does not
    raise may come from what it calls: it costs nothing. An entry without any text or type counts as missing.
    """
    tree = parsed(code)
    function = next((node for node in ast.walk(tree) if isinstance(node, _FUNCTIONS)), None) if tree else None
    if function is None:
        raise ValueError("there is no function to hold the docstring against")
    entries = read_docstring(text).entries
    due = _due(function)
    there = {(kind, name) for kind, name, is_told in _entries(entries) if is_told}
    raised_below = {entry for entry in there if entry[0] == "Raises"} - due
    if function.args.kwarg:  # what goes into **kwargs may be documented by name
        raised_below |= {entry for entry in there if entry[0] == "Args"} - due
        due -= {("Args", function.args.kwarg.arg)} if raised_below else set()
    there -= raised_below
    return len(due & there) / len(due | there) if due | there else 1.0


def _entries(entries: dict) -> list[tuple[str, str, bool]]:
    """(kind, name, whether it says anything); what is given back has no name."""
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
    """Everything below a function but not within a function or class inside it."""
    for node in ast.iter_child_nodes(function):
        if not isinstance(node, (*_FUNCTIONS, ast.Lambda, ast.ClassDef)):
            yield node
            yield from _own_nodes(node)


def explanation_coverage(answer: str, code: str) -> float | None:
    """The share of what the function in `code` does that an explanation mentions, 0 to 1; None where nothing is named.

    What it does is told by names: parameters, what it calls, and what it raises. A name is mentioned where it stands as
    it is, or where each of its words of four letters or more does, as the beginning of a word: "removes the edges" for
    `remove_edge`. The name of the function itself and names without such a word do not count, unless as they are.
    """
    tree = parsed(code)
    function = next((node for node in ast.walk(tree) if isinstance(node, _FUNCTIONS)), None) if tree else None
    if function is None:
        raise ValueError("there is no function to be explained")
    names = {name for kind, name in _due(function) if kind != "Returns"}
    names |= {_called_name(node) for node in ast.walk(function) if isinstance(node, ast.Call)}
    names -= {"", function.name}
    told = [_mentions(answer, name) for name in sorted(names)]
    return sum(told) / len(told) if told else None


def _mentions(text: str, name: str) -> bool:
    if re.search(rf"\b{re.escape(name)}\b", text):
        return True
    parts = [word for word in words(name) if len(word) >= _TELLING]
    return bool(parts) and all(re.search(rf"\b{re.escape(part)}", text, re.IGNORECASE) for part in parts)
