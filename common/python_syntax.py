"""Syntax trees of foreign Python code. Nothing is run."""

from __future__ import annotations

import ast
import warnings
from functools import lru_cache


def parse(text: str) -> ast.Module:
    """The tree, without Python's warnings about the code, such as an invalid escape in a string."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ast.parse(text)


@lru_cache(maxsize=2)
def shared_tree(text: str) -> ast.Module:
    """parse(text), once for several functions that look at the same file in turn. It is not to be changed."""
    return parse(text)


def parsed(text: str) -> ast.Module | None:
    """The tree, or None if the text is not Python. Nothing is compiled or run."""
    try:
        return parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # all that Python's own parser raises
        return None


def compiles(tree: ast.Module) -> bool:
    """Whether the tree compiles: every `nonlocal` has a binding, every `break` a loop. Nothing is run."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compile(tree, "<text>", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def same_code(first: str, second: str) -> bool:
    """Whether two texts are the same program apart from layout and comments."""
    trees = parsed(first), parsed(second)
    try:
        return None not in trees and ast.dump(trees[0]) == ast.dump(trees[1])
    except RecursionError:  # a tree can parse and still be too deep to dump: 1 + 1 + 1 + ...
        return False


def module_name(path: str) -> str:
    """ "networkx/algorithms/dag.py" -> "networkx.algorithms.dag"; a package's __init__.py is the package."""
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
