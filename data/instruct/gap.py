"""A function with a gap: whole statements cut out of its body, and put back.

As data/fim.py does with a model's own tokens, but as an instruction that any chat model understands.
"""

from __future__ import annotations

import ast
import random
import textwrap

GAP = "<FILL>"
MOST_LINES = 6  # of a gap


def cut_gap(function_source: str, choose: random.Random) -> tuple[str, str] | None:
    """The function with a run of statements replaced by a line with GAP, and the lines that were there.

    Statements of one block, at most MOST_LINES lines, never the whole body. None when nothing can be cut.
    """
    function = ast.parse(function_source).body[0]
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    lines = function_source.split("\n")
    whole = (body[0].lineno, body[-1].end_lineno) if body else None
    spans = sorted(
        (block[i].lineno, block[j].end_lineno)
        for block in _blocks(body)
        for i in range(len(block))
        for j in range(i, len(block))
        if block[j].end_lineno - block[i].lineno < MOST_LINES
        and _stands_alone(block[i], lines)
        and all(block[j].end_lineno < after.lineno for after in block[j + 1 : j + 2])  # `a = 1; b = [` continues below
    )
    spans = [span for span in dict.fromkeys(spans) if span != whole]
    if not spans or GAP in function_source:
        return None
    first, last = choose.choice(spans)
    missing = lines[first - 1 : last]
    marker = missing[0][: len(missing[0]) - len(missing[0].lstrip())] + GAP
    return "\n".join([*lines[: first - 1], marker, *lines[last:]]), "\n".join(missing)


def fill_gap(given: str, answer: str) -> str:
    """The function with an answer in its gap. The answer's own indentation is kept relative to the gap's."""
    before, after = given.split(GAP, 1)
    indent = before.rsplit("\n", 1)[-1]
    text = textwrap.indent(textwrap.dedent(answer.strip("\n")), indent)
    return before.removesuffix(indent) + text + after


def _blocks(body: list[ast.stmt]) -> list[list[ast.stmt]]:
    """The body and every block nested in it, except inside nested functions and classes."""
    found = [body] if body else []
    for statement in body:
        if not isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            for child in ("body", "orelse", "finalbody"):
                found += _blocks(getattr(statement, child, []))
            for part in [*getattr(statement, "handlers", []), *getattr(statement, "cases", [])]:
                found += _blocks(part.body)
    return found


def _stands_alone(statement: ast.stmt, lines: list[str]) -> bool:
    """Whether it occupies whole lines: not after `if x:` or `;`, no `elif`, no decorator."""
    line = lines[statement.lineno - 1]
    is_first = not line.encode()[: statement.col_offset].strip()
    return is_first and not line.lstrip().startswith("elif") and not getattr(statement, "decorator_list", None)
