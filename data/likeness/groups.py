"""Groups of texts that are alike, so that none becomes another's negative or leaks across a split.

Code is alike to its near-duplicates and to the same program with other names: a wrapper that was copied and renamed
answers the same query, however few words the two have in common.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence

import numpy as np

from common.python_syntax import parsed
from data.likeness.near_duplicates import NEAR, near_duplicates
from data.likeness.rename import rename_identifiers


class Groups:
    """Which items are joined, directly or through others (union-find)."""

    def __init__(self):
        self._parent: dict = {}

    def first(self, one):
        """The least member of the group of `one`."""
        parent = self._parent
        while (above := parent.get(one, one)) != one:
            parent[one] = parent.get(above, above)  # path halving
            one = above
        return one

    def join(self, a, b) -> None:
        """Merge the groups of a and b."""
        low, high = sorted((self.first(a), self.first(b)))
        if low != high:
            self._parent[high] = low


def groups_of_codes(codes: Sequence[str]) -> np.ndarray:
    """[N] int64: equal numbers for codes that are equal, near-duplicates, or the same body with other names."""
    return _numbered([_body(code) for code in codes], near_duplicates(list(codes), NEAR))


def groups_of_queries(queries: Sequence[str]) -> np.ndarray:
    """[N] int64: equal numbers for queries that differ at most in case, layout and a word in many."""
    folded = [" ".join(query.lower().split()) for query in queries]
    return _numbered(folded, near_duplicates(folded, NEAR))


def _numbered(keys: list[str], alike: list[tuple[int, int, float]]) -> np.ndarray:
    """For each text the index of the first one with an equal key, or alike to it, directly or through others."""
    first: dict[str, int] = {}
    groups = Groups()
    for i, key in enumerate(keys):
        groups.join(first.setdefault(key, i), i)
    for i, j, _ in alike:
        groups.join(i, j)
    return np.array([groups.first(i) for i in range(len(keys))], dtype=np.int64)


def _body(code: str) -> str:
    """The program without its names, docstrings and layout; text that is not Python is returned unchanged."""
    tree = parsed(code)
    if tree is None:
        return code
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and ast.get_docstring(node):
            node.body = node.body[1:] or [ast.Pass()]
    try:
        return rename_identifiers(ast.unparse(tree))
    except (RecursionError, SyntaxError):  # a tree may be too deep for ast.unparse
        return code
