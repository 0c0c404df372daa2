"""Mutants with one bug each: edits of a function's text, found on its syntax tree, that keep every other byte.

The operators are the classic ones of mutation testing (DeMillo, Lipton and Sayward 1978) and those of SWE-smith's
procedural generation (Yang et al., arXiv:2504.21798) that apply to a function; its operators on classes do not.

| kind | bug | kind | bug |
|---|---|---|---|
| comparison | `<` as `>`, `==` as `!=`, `in` as `not in` | condition | omitted or, without an else, inverted |
| boundary | `<` as `<=` | inverted | branches of if and else exchanged |
| boolean | `and` as `or`, `not` omitted | loop | break as continue, bound of range, while as if; removed |
| arithmetic | `+` as `-`, a sign | return | None returned or yielded |
| operands | `a - b` as `b - a` | assignment | `+=` as `=`, values exchanged; removed |
| operand | `a + b + c` as `a + b` | variable | another variable |
| constant | number one off, truth value flipped | exception | another one raised or caught |
| arguments | neighbours exchanged | else, wrapper, order | removed; try or with removed; two lines exchanged |
| commented out | `# return x` | | |
"""

from __future__ import annotations

import ast
from dataclasses import dataclass

from common.python_syntax import compiles, parsed
from data.checks.edits import Code, Edit
from data.checks.line_edits import edits_of_whole_lines
from data.checks.operators import edits_within_a_line

KINDS = (
    "comparison", "boundary", "boolean", "arithmetic", "operands", "operand", "constant", "arguments", "condition",
    "inverted", "loop", "return", "commented out", "assignment", "variable", "exception",
)  # fmt: skip
WHOLE_LINE_KINDS = ("condition", "loop", "assignment", "else", "wrapper", "order")


@dataclass(frozen=True)
class Mutant:
    """A function with one bug.

    kind           of KINDS, or of WHOLE_LINE_KINDS
    line           from 1 in `source`, where the two texts begin to differ
    original_line  the line as it was, and
    mutated_line   as it is; both keep their indentation. Of a whole-line mutant these are all lines that it touches,
                   "" where they were removed
    """

    kind: str
    source: str
    line: int
    original_line: str
    mutated_line: str


def mutants(function_source: str, *, whole_lines: bool = False) -> list[Mutant]:
    """Every mutant of a dedented function, in the order of the text. Signature, decorators and docstring stay.

    whole_lines  include those that remove, unwrap or reorder whole lines; the others change exactly one line
    Each compiles, has a different syntax tree, and differs from the original in one place.
    """
    code = Code(function_source)
    edits = {*edits_within_a_line(code)} | ({*edits_of_whole_lines(code)} if whole_lines else set())
    docstring = ast.get_docstring(code.function, clean=False)
    found: dict[str, Mutant] = {}
    for edit in sorted(edits):
        mutant = applied(code.data, edit)
        if mutant.source not in found and _is_function(mutant.source, docstring):
            found[mutant.source] = mutant
    return list(found.values())


def _is_function(source: str, docstring: str | None) -> bool:
    """Whether a text is still a single function with this docstring, and compiles.

    An edit may cut through a pair of parentheses or remove the binding that an inner function's `nonlocal` needs; when
    the first statement goes, a string after it becomes the docstring.
    """
    tree = parsed(source)
    if tree is None or len(tree.body) != 1 or not compiles(tree):
        return False
    return ast.get_docstring(tree.body[0], clean=False) == docstring


def applied(data: bytes, edit: Edit) -> Mutant:
    """The mutant that an edit of a function's text makes."""
    start = data.rfind(b"\n", 0, edit.start) + 1
    removes_line_end = data[edit.start : edit.end].endswith(b"\n")
    end = edit.end - 1 if removes_line_end else data.find(b"\n", edit.end)
    end = len(data) if end < 0 else end
    text = edit.text.encode()
    mutated = data[start : edit.start] + text + (b"" if removes_line_end else data[edit.end : end])
    return Mutant(
        edit.kind,
        (data[: edit.start] + text + data[edit.end :]).decode(),
        data.count(b"\n", 0, start) + 1,
        data[start:end].decode(),
        mutated.decode(),
    )
