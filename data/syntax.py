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
    """The tree, or None for what is no Python. Text is only parsed, never compiled or run."""
    try:
        return parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # all four come from Python's own parser
        return None
