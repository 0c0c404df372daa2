"""Candidates in other forms: code found without its docstring or names is found by what it does."""

from __future__ import annotations

import ast
import re

from common.python_syntax import parsed
from data.likeness.rename import rename_identifiers

DOCUMENTED = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Module)
# The docstring of code that Python 3 cannot parse: the first triple-quoted string that begins a line.
TRIPLE_QUOTED = re.compile(r'^[ \t]*[rRuU]?("""|\'\'\').*?\1[ \t]*\n?', re.DOTALL | re.MULTILINE)


def without_docstrings(code: str) -> str:
    """Python code without its docstrings, otherwise unchanged."""
    code = code.replace("\r\n", "\n").replace("\r", "\n")  # the only line ends that the parser counts
    tree = parsed(code)
    if tree is None:
        return TRIPLE_QUOTED.sub("", code, count=1)
    lines = [line.encode() for line in code.split("\n")]  # the parser counts columns in bytes
    documented = [node for node in ast.walk(tree) if isinstance(node, DOCUMENTED) and _is_documented(node)]
    for node in sorted(documented, key=lambda node: -node.body[0].lineno):  # last first: line numbers stay valid
        literal = node.body[0]
        first, last = literal.lineno - 1, literal.end_lineno - 1
        before, after = lines[first][: literal.col_offset], lines[last][literal.end_col_offset :]
        alone = len(node.body) == 1 or after.lstrip().startswith(b";")
        line = before + (b"pass" if alone else b"") + after
        lines[first : last + 1] = [line] if line.strip() else []
    return b"\n".join(lines).decode()


def _is_documented(node: ast.AST) -> bool:
    return ast.get_docstring(node, clean=False) is not None


def renamed(code: str) -> str:
    """Python code without docstrings, with the names that it defines replaced (data/likeness/rename.py)."""
    bare = without_docstrings(code)
    return rename_identifiers(bare) if parsed(bare) else bare


FORMS = {"as-is": str, "no-docstrings": without_docstrings, "renamed": renamed}


def in_form(candidates: list[dict], form: str) -> tuple[list[dict], int]:
    """The candidates in one of FORMS, and the number that it changed.

    The outline of a whole file consists of names and is left unchanged.
    """
    changed = [
        row if row.get("kind") == "file" else row | {"code": FORMS[form](row["code"]) or row["code"]}
        for row in candidates
    ]
    return changed, sum(one["code"] != other["code"] for one, other in zip(changed, candidates, strict=True))
