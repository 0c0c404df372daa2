"""Mutants with one bug each: edits of a function's text, found on its syntax tree, that keep every other byte.

The operators are the classic ones of mutation testing (DeMillo, Lipton and Sayward 1978) and those of SWE-smith's
procedural generation (Yang et al., arXiv:2504.21798) that change one line of a function.

| kind | bug | kind | bug |
|---|---|---|---|
| comparison | `<` as `>`, `==` as `!=`, `in` as `not in` | condition | omitted or, without an else, inverted |
| boundary | `<` as `<=` | inverted | branches of if and else exchanged |
| boolean | `and` as `or`, `not` omitted | loop | break as continue, bound of range, while as if |
| arithmetic | `+` as `-`, a sign | return | None returned or yielded |
| operands | `a - b` as `b - a` | assignment | `+=` as `=`, values exchanged |
| operand | `a + b + c` as `a + b` | variable | another variable |
| constant | number one off, truth value flipped | exception | another one raised or caught |
| arguments | neighbours exchanged | | |
"""

from __future__ import annotations

import ast
from dataclasses import dataclass

from common.python_syntax import compiles, parsed
from data.checks.edits import Code, Edit
from data.checks.operators import edits_within_a_line

KINDS = (
    "comparison", "boundary", "boolean", "arithmetic", "operands", "operand", "constant", "arguments", "condition",
    "inverted", "loop", "return", "assignment", "variable", "exception",
)  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """A function with one bug.

    kind           one of KINDS
    line           from 1 in `source`, the only one that differs from the original
    original_line  the line as it was, and
    mutated_line   as it is; both keep their indentation
    """

    kind: str
    source: str
    line: int
    original_line: str
    mutated_line: str


def mutants(function_source: str) -> list[Mutant]:
    """Every mutant of a dedented function, in the order of the text. Signature, decorators and docstring stay.

    Each compiles, has a different syntax tree, and differs from the original in exactly one line.
    """
    code = Code(function_source)
    docstring = ast.get_docstring(code.function, clean=False)
    found: dict[str, Mutant] = {}
    for edit in sorted({*edits_within_a_line(code)}):
        mutant = _applied(code, edit)
        if mutant.source not in found and _is_function(mutant.source, docstring):
            found[mutant.source] = mutant
    return list(found.values())


def _is_function(source: str, docstring: str | None) -> bool:
    """Whether a text is still a single function with this docstring, and compiles.

    An edit may cut through a pair of parentheses.
    """
    tree = parsed(source)
    if tree is None or len(tree.body) != 1 or not compiles(tree):
        return False
    return ast.get_docstring(tree.body[0], clean=False) == docstring


def _applied(code: Code, edit: Edit) -> Mutant:
    data, text = code.data, edit.text.encode()
    start = data.rfind(b"\n", 0, edit.start) + 1
    end = data.find(b"\n", edit.end)
    end = len(data) if end < 0 else end
    return Mutant(
        kind=edit.kind,
        source=(data[: edit.start] + text + data[edit.end :]).decode(),
        line=data.count(b"\n", 0, start) + 1,
        original_line=data[start:end].decode(),
        mutated_line=(data[start : edit.start] + text + data[edit.end : end]).decode(),
    )
