"""Whether an answer has the form its category asks for. Each rule returns None, or the problem in a few words."""

from __future__ import annotations

import ast
import re

from common.markdown import without_blocks
from common.python_syntax import parsed
from data.instruct.docstyle import read_docstring

_SENTENCE_END = re.compile(r"[.!?](?=[\s\"')\]`]|$)")
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_ECHOED_LINE = 12  # characters: a shorter line of code may occur in prose by chance


def function_problem(code: str, name: str) -> str | None:
    """A function must be there and be more than a placeholder."""
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
    """A test needs a function `test...` that calls `name` and checks something: `assert`, or an assert…/raises call."""
    tree = parsed(code)
    if tree is None:
        return "does not parse"
    tests = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test")]
    if not tests:
        return "has no test function"
    nodes = [node for test in tests for node in ast.walk(test)]
    called = {called_name(node) for node in nodes if isinstance(node, ast.Call)}
    referred = {getattr(node, "id", None) or getattr(node, "attr", None) for node in nodes}
    if name not in called and name not in referred:  # pytest.raises(Error, function, ...) only refers to it
        return f"does not call {name}"
    checks = any(isinstance(node, ast.Assert) for node in nodes)
    checks = checks or any(called_name.startswith("assert") or called_name == "raises" for called_name in called)
    return None if checks else "asserts nothing"


def called_name(node: ast.Call) -> str:
    """The bare name of what a call calls; "" for a call of anything else."""
    return getattr(node.func, "id", None) or getattr(node.func, "attr", None) or ""


def docstring_problem(text: str, check: dict, code: str) -> str | None:
    """A docstring must mention each of check["arguments"] and, if check["returns"], what is returned; it must not
    document an argument that the function in `code` does not have.
    """
    if len(re.findall(r"[A-Za-z]{2,}", text)) < 3:
        return "says nothing"
    for argument in check["arguments"]:
        if not re.search(rf"\b{re.escape(argument)}\b", text):
            return f"does not mention the argument {argument}"
    arguments = [node for node in ast.walk(parsed(code) or ast.Module([], [])) if isinstance(node, ast.arguments)]
    real = {node.arg for one in arguments for node in ast.walk(one) if isinstance(node, ast.arg)}
    takes_any = any(one.kwarg for one in arguments)  # keys of **kwargs may be documented by name
    for entry in read_docstring(text).entries.get("Args", []):
        name = entry.name.lstrip("*")
        if name not in real and not takes_any:
            return f"documents {name}, which is no argument"
    if check["returns"] and not re.search(r"\b(returns?|yields?|:rtype)\b", text, re.IGNORECASE):
        return "does not say what is returned"
    return None


def explanation_problem(answer: str, check: dict, code: str) -> str | None:
    """An explanation must have two sentences or more, mention each of check["names"], and not repeat the code.

    Fenced code does not count towards either.
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
