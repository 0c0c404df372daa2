"""The syntax tree of someone else's Python."""

from __future__ import annotations

import ast
import warnings


def parse(text: str) -> ast.Module:
    """The tree. What Python would warn of, such as an invalid escape in a string, is not our news."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ast.parse(text)


def parsed(text: str) -> ast.Module | None:
    """The tree, or None for what is no Python. Nothing is compiled or run."""
    try:
        return parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # all four come from Python's own parser
        return None


def compiles(tree: ast.Module) -> bool:
    """Whether Python's compiler takes the tree: a `nonlocal` has its binding, a `break` its loop. Nothing is run."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compile(tree, "<text>", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def same_code(first: str, second: str) -> bool:
    """Whether two texts are the same program but for layout and comments."""
    trees = parsed(first), parsed(second)
    try:
        return None not in trees and ast.dump(trees[0]) == ast.dump(trees[1])
    except RecursionError:  # a tree may be deep enough to parse and too deep to write out: 1 + 1 + 1 + ...
        return False


def module_name(path: str) -> str:
    """ "networkx/algorithms/dag.py" -> "networkx.algorithms.dag"; a package's __init__.py is the package."""
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
