"""One bug at a time: edits of a function's text, found on its syntax tree, that leave every other byte as it was.

The operators are the classical ones of mutation testing (DeMillo, Lipton and Sayward 1978).
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass

COMPARISON = {
    ast.Eq: ("==", "!="), ast.NotEq: ("!=", "=="), ast.Lt: ("<", ">"), ast.LtE: ("<=", ">="), ast.Gt: (">", "<"),
    ast.GtE: (">=", "<="), ast.In: ("in", "not in"), ast.NotIn: (r"not\s+in", "in"), ast.Is: ("is", "is not"),
    ast.IsNot: (r"is\s+not", "is"),
}  # fmt: skip
BOUNDARY = {ast.Lt: ("<", "<="), ast.LtE: ("<=", "<"), ast.Gt: (">", ">="), ast.GtE: (">=", ">")}
ARITHMETIC = {
    ast.Add: (r"\+", "-"), ast.Sub: ("-", "+"), ast.Mult: (r"\*", "+"), ast.Div: ("/", "*"), ast.FloorDiv: ("//", "/"),
    ast.Mod: ("%", "//"), ast.Pow: (r"\*\*", "*"), ast.BitAnd: ("&", "|"), ast.BitOr: (r"\|", "&"),
}  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """A function with one bug. `line` counts from 1 in `source`; the two lines keep their indentation."""

    kind: str  # comparison, boundary, boolean, arithmetic, constant, arguments, condition, return, variable
    source: str
    line: int
    original_line: str
    mutated_line: str


@dataclass(frozen=True)
class _Edit:
    kind: str
    line: int  # from 1
    start: int  # byte offsets in the line, as ast counts
    end: int
    text: str


def mutants(function_source: str) -> list[Mutant]:
    """Every single-line mutant of a dedented function, in the order of the text. Signature and docstring stay.

    Each one parses and differs from the original in exactly one line.
    """
    function = ast.parse(function_source).body[0]
    lines = function_source.split("\n")
    edits = sorted(set(_edits(function, lines)), key=lambda edit: (edit.line, edit.start, edit.kind, edit.text))
    found: dict[str, Mutant] = {}
    for edit in edits:
        line = lines[edit.line - 1]
        data = line.encode()
        mutated = (data[: edit.start] + edit.text.encode() + data[edit.end :]).decode()
        source = "\n".join([*lines[: edit.line - 1], mutated, *lines[edit.line :]])
        try:
            ast.parse(source)
        except SyntaxError:  # such as `not` without the parentheses that it needs there
            continue
        if mutated != line:  # two arguments that are the same cannot be swapped
            found.setdefault(source, Mutant(edit.kind, source, edit.line, line, mutated))
    return list(found.values())


def _edits(function: ast.FunctionDef | ast.AsyncFunctionDef, lines: list[str]) -> Iterator[_Edit]:
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    names = _local_names(function)
    for statement in body:
        for node in ast.walk(statement):
            if isinstance(node, ast.Compare | ast.BoolOp | ast.BinOp | ast.AugAssign | ast.UnaryOp):
                yield from _operator_edits(node, lines)
            elif isinstance(node, ast.If | ast.While | ast.IfExp):
                yield from _condition_edits(node, lines)
            elif isinstance(node, ast.Return):
                yield from _return_edits(node)
            elif isinstance(node, ast.Call):
                yield from _argument_edits(node, lines)
            elif isinstance(node, ast.Constant):
                yield from _constant_edits(node)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in names:
                others = [name for name in names if name != node.id]
                if others:
                    yield _replace("variable", node, others[(names.index(node.id) + node.lineno) % len(others)])


def _operator_edits(node, lines: list[str]) -> Iterator[_Edit]:
    if isinstance(node, ast.Compare):
        for left, operator, right in zip([node.left, *node.comparators], node.ops, node.comparators, strict=False):
            yield from _between("comparison", left, right, COMPARISON.get(type(operator)), lines)
            yield from _between("boundary", left, right, BOUNDARY.get(type(operator)), lines)
    elif isinstance(node, ast.BoolOp):
        change = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
        for left, right in zip(node.values, node.values[1:], strict=False):
            yield from _between("boolean", left, right, change, lines)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not) and node.lineno == node.operand.end_lineno:
        yield _Edit("boolean", node.lineno, node.col_offset, node.operand.col_offset, "")
    elif isinstance(node, ast.BinOp):
        yield from _between("arithmetic", node.left, node.right, ARITHMETIC.get(type(node.op)), lines)
    elif isinstance(node, ast.AugAssign) and type(node.op) in ARITHMETIC:
        pattern, text = ARITHMETIC[type(node.op)]
        yield from _between("arithmetic", node.target, node.value, (pattern + "=", text + "="), lines)


def _condition_edits(node, lines: list[str]) -> Iterator[_Edit]:
    test = node.test
    if test.lineno == test.end_lineno:
        text = lines[test.lineno - 1].encode()[test.col_offset : test.end_col_offset].decode()
        yield _replace("condition", test, f"not ({text})" if not isinstance(test, ast.Name) else f"not {text}")
        if isinstance(node, ast.If):  # `while True` would only run into the time limit
            yield _replace("condition", test, "True")


def _return_edits(node: ast.Return) -> Iterator[_Edit]:
    value = node.value
    if value is None or value.lineno != value.end_lineno:
        return
    if isinstance(value, ast.Tuple) and value.elts:
        yield _replace("return", value.elts[-1], "None")
    elif not (isinstance(value, ast.Constant) and value.value is None):
        yield _replace("return", value, "None")


def _argument_edits(node: ast.Call, lines: list[str]) -> Iterator[_Edit]:
    for first, second in zip(node.args, node.args[1:], strict=False):
        if first.lineno == second.end_lineno and not any(isinstance(one, ast.Starred) for one in (first, second)):
            data = lines[first.lineno - 1].encode()
            left = data[first.col_offset : first.end_col_offset]
            gap = data[first.end_col_offset : second.col_offset]
            right = data[second.col_offset : second.end_col_offset]
            text = (right + gap + left).decode()
            yield _Edit("arguments", first.lineno, first.col_offset, second.end_col_offset, text)


def _constant_edits(node: ast.Constant) -> Iterator[_Edit]:
    if isinstance(node.value, bool):
        yield _replace("constant", node, str(not node.value))
    elif isinstance(node.value, int):
        yield _replace("constant", node, str(node.value + 1))
        if node.value > 0:
            yield _replace("constant", node, str(node.value - 1))


def _replace(kind: str, node: ast.expr, text: str) -> _Edit:
    return _Edit(kind, node.lineno, node.col_offset, node.end_col_offset, text)


def _between(kind: str, left: ast.expr, right: ast.expr, change: tuple[str, str] | None, lines) -> Iterator[_Edit]:
    """Replace the operator, which stands alone but for parentheses between two operands, when all is on one line."""
    if change is None or left.end_lineno != right.lineno:
        return
    gap = lines[left.end_lineno - 1].encode()[left.end_col_offset : right.col_offset]
    operator = re.search(change[0].encode(), gap)
    if operator:
        start = left.end_col_offset + operator.start()
        yield _Edit(kind, right.lineno, start, start + len(operator.group()), change[1])


def _local_names(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    """Arguments and assigned names, sorted: what one could mistake for another."""
    arguments = {argument.arg for argument in ast.walk(function.args) if isinstance(argument, ast.arg)}
    assigned = {
        node.id
        for statement in function.body
        for node in ast.walk(statement)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }
    return sorted((arguments | assigned) - {"self", "cls", "_"})
