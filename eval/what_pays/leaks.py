"""What a model must not be given to read for a task: the file that the task is from, and code that holds its answer."""

from __future__ import annotations

import ast
from collections.abc import Callable, Collection

from common.python_syntax import parsed
from data.corpus.decontaminate import RUN, WORD, KnownTexts


def leak_detector(held_out: Collection[str], answer: str) -> Callable[[dict], bool]:
    """Whether a unit is from a held-out file, or holds an answer: a function of the unit.

    held_out  paths of the held-out files
    answer    code; it is held by what shares a run of RUN words with it (data/corpus/decontaminate.py), or all of its
              words where it has fewer. Docstrings do not count: those of a repository repeat themselves
    """
    code = without_docstrings(answer)
    words = len(WORD.findall(code))
    known = KnownTexts.of([("answer", code)], min(RUN, words)) if words else None

    def is_leak(unit: dict) -> bool:
        if (unit.get("source") or {}).get("path") in held_out:
            return True
        return known is not None and known.found_in(without_docstrings(unit["code"])) is not None

    return is_leak


def without_docstrings(code: str) -> str:
    """Python without docstrings and comments; what does not parse is returned as it is."""
    tree = parsed(code)
    if tree is None:
        return code
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Module):
            has_docstring = ast.get_docstring(node, clean=False) is not None
            node.body = node.body[has_docstring:] or [ast.Pass()]
    return ast.unparse(tree)
