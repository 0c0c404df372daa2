"""Loops that cannot be meant: those that never end, and those that always end in their first pass.

Read off the syntax tree; nothing is run. Both tests are one-sided: what they find is malformed, and they find only what
is plain to see, so that a loop that they pass may still be wrong.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from common.python_syntax import parsed

_SCOPES = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda
_LOOPS = ast.For | ast.AsyncFor | ast.While
_LEAVES = ast.Return | ast.Raise | ast.Break
_PURE = frozenset({"len", "abs", "int", "min", "max", "sum"})  # functions that change nothing that they are given


def has_endless_loop(code: str) -> bool:
    """Whether a `while` has no way out: nothing leaves it, and nothing in its body can change its condition."""
    tree = parsed(code)
    return tree is not None and any(isinstance(node, ast.While) and _is_endless(node) for node in ast.walk(tree))


def has_single_pass_loop(code: str) -> bool:
    """Whether every path through the body of a loop leaves it in the first pass, as with a misplaced `return`.

    A body of one statement is not counted, for `for x in xs: return x` may well be meant; nor is `while True`.
    """
    tree = parsed(code)
    loops = (node for node in ast.walk(tree) if isinstance(node, _LOOPS)) if tree else ()
    return any(
        _always_leaves(loop.body) and not isinstance(loop.body[0], _LEAVES) and not _is_constant(loop) for loop in loops
    )


def _is_constant(loop: ast.stmt) -> bool:
    return isinstance(loop, ast.While) and isinstance(loop.test, ast.Constant)


def _is_endless(loop: ast.While) -> bool:
    inside = [node for statement in loop.body for node in _own_nodes(statement)]
    if any(isinstance(node, ast.Return | ast.Raise | ast.Yield | ast.YieldFrom | ast.Await) for node in inside):
        return False
    if any(isinstance(node, ast.Break) for node in _of_this_loop(loop.body)):
        return False
    if any(isinstance(node, _SCOPES) for node in inside):
        return False  # the condition may change out of sight

    # the condition: names and calls of functions that change nothing; anything else may change by itself
    called = {id(node.func) for node in ast.walk(loop.test) if isinstance(node, ast.Call)}
    functions = [node for node in ast.walk(loop.test) if id(node) in called]
    if not all(isinstance(node, ast.Name) and node.id in _PURE for node in functions):
        return False
    if any(isinstance(node, ast.NamedExpr | ast.Attribute | ast.Await) for node in ast.walk(loop.test)):
        return False
    read = {node.id for node in ast.walk(loop.test) if isinstance(node, ast.Name) and id(node) not in called}
    changed = {name for node in inside for name in _changed(node)}
    return not read & changed and not (isinstance(loop.test, ast.Constant) and not loop.test.value)


def _own_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """A node and all nodes below it, without those inside a function or class of its own."""
    yield node
    if not isinstance(node, _SCOPES):
        for inner in ast.iter_child_nodes(node):
            yield from _own_nodes(inner)


def _of_this_loop(body: list[ast.stmt]) -> Iterator[ast.AST]:
    """The nodes of a loop's body without those of inner loops, whose `break` and `continue` are their own."""
    for statement in body:
        if isinstance(statement, _LOOPS):
            yield from _of_this_loop(statement.orelse)
        elif not isinstance(statement, _SCOPES):
            yield statement
            for _, value in ast.iter_fields(statement):
                blocks = value if isinstance(value, list) else []
                yield from _of_this_loop([node for node in blocks if isinstance(node, ast.stmt)])
                for part in blocks:  # the handlers of a try, the cases of a match
                    if isinstance(part, ast.ExceptHandler | ast.match_case):
                        yield from _of_this_loop(part.body)


def _changed(node: ast.AST) -> set[str]:
    """The variables that a node binds, or whose value it may change: `x = …`, `x[0] = …`, `x.pop()`, `f(x)`."""
    if isinstance(node, ast.Name):
        return set() if isinstance(node.ctx, ast.Load) else {node.id}
    if isinstance(node, ast.Subscript | ast.Attribute) and not isinstance(node.ctx, ast.Load):
        return _names(node.value)
    if isinstance(node, ast.Call) and not (isinstance(node.func, ast.Name) and node.func.id in _PURE):
        return _names(node)
    return set()


def _names(node: ast.AST) -> set[str]:
    return {inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name)}


def _always_leaves(body: list[ast.stmt]) -> bool:
    """Whether every path through the statements reaches `return`, `raise` or `break`, and none a `continue`."""
    if any(isinstance(node, ast.Continue) for node in _of_this_loop(body)):
        return False
    return any(_leaves(statement) for statement in body)


def _leaves(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.If):
        return bool(statement.orelse) and _always_leaves(statement.body) and _always_leaves(statement.orelse)
    if isinstance(statement, ast.With | ast.AsyncWith):
        return _always_leaves(statement.body)
    return isinstance(statement, _LEAVES)
