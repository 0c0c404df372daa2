"""What a model must not be given to read for a task: the file that the task is from, and code that holds its answer."""

from __future__ import annotations

import ast
from collections.abc import Collection

from common.python_syntax import parsed
from data.corpus.decontaminate import RUN, WORD


def is_leak(unit: dict, held_out: Collection[str], answer: str) -> bool:
    """Whether a unit is from a held-out file, or holds an answer.

    held_out  paths of the held-out files
    answer    code; it is held by what shares a run of RUN words with it (data/corpus/decontaminate.py), or all of its
              words where it has fewer. Docstrings do not count: those of a repository repeat themselves
    """
    if (unit.get("source") or {}).get("path") in held_out:
        return True
    words, others = code_words(answer), code_words(unit["code"])
    size = min(RUN, len(words))
    runs = {tuple(words[start : start + size]) for start in range(len(words) - size + 1)} if size else set()
    return any(tuple(others[start : start + size]) in runs for start in range(len(others) - size + 1))


def code_words(code: str) -> list[str]:
    """The words of code, lower-cased; of Python that parses, without docstrings and comments."""
    tree = parsed(code)
    if tree is not None:
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Module):
                has_docstring = ast.get_docstring(node, clean=False) is not None
                node.body = node.body[has_docstring:] or [ast.Pass()]
        code = ast.unparse(tree)
    return WORD.findall(code.lower())
