"""Mutation operators that remove, unwrap or reorder whole lines: SWE-smith's "remove" and "shuffle" operators."""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Iterator

from data.checks.edits import LOOPS, Code, Edit, equal, only_passes

SIMPLE = (ast.Assign, ast.AugAssign, ast.AnnAssign, ast.Expr)


def edits_of_whole_lines(code: Code) -> Iterator[Edit]:
    """Every edit of this file's operators: assignments, conditionals, loops, else branches and wrappers removed; two
    neighbouring statements in the wrong order."""
    loaded = {
        node.id for node in ast.walk(code.function) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
    }
    for block in code.blocks:
        for statement in block:
            if id(statement) in code.identities:
                yield from _removed(code, block, statement, loaded)
                yield from _without_else(code, statement)
                yield from _unwrapped(code, statement)
        for first, second in itertools.pairwise(block):
            yield from _reordered(code, first, second)


def _lines(code: Code, first: ast.stmt, last: ast.stmt) -> tuple[int, int] | None:
    """From the start of a statement's first line to the end of another's last; None when these lines contain more."""
    start, end = code.starts[first.lineno - 1], code.starts[last.end_lineno] - 1
    before = code.data[start : code.start(first)].strip()
    after = code.data[code.end(last) : end].strip()
    return None if before or (after and not after.startswith(b"#")) else (start, end)


def _removed(code: Code, block: list[ast.stmt], statement: ast.stmt, loaded: set[str]) -> Iterator[Edit]:
    """A statement removed, except where nothing would change: an assignment never read, a block that only passes."""
    lines = _lines(code, statement, statement)
    if lines is None:
        return
    if isinstance(statement, ast.If) and not only_passes([*statement.body, *statement.orelse]):
        kind = "condition"
    elif isinstance(statement, LOOPS) and not only_passes(statement.body):
        kind = "loop"
    elif isinstance(statement, ast.Assign | ast.AugAssign) and _is_read(statement, loaded):
        kind = "assignment"
    else:
        return
    start, end = lines
    if len(block) > 1:
        yield Edit(start, end + 1, kind, "")
    else:
        yield Edit(start, end, kind, " " * statement.col_offset + "pass")


def _is_read(statement: ast.Assign | ast.AugAssign, loaded: set[str]) -> bool:
    targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
    names = [node for target in targets for node in ast.walk(target)]
    kept_elsewhere = any(isinstance(node, ast.Attribute | ast.Subscript) for node in names)
    return kept_elsewhere or any(isinstance(node, ast.Name) and node.id in loaded for node in names)


def _without_else(code: Code, statement: ast.stmt) -> Iterator[Edit]:
    """The else branch of a condition or loop removed."""
    orelse = getattr(statement, "orelse", [])
    if not isinstance(statement, (ast.If, *LOOPS)) or not orelse or only_passes(orelse):
        return
    lines = _lines(code, orelse[0], orelse[-1])
    head = re.compile(rb"[ \t]*else[ \t]*:[ \t]*(#.*)?")
    for number in range(statement.body[-1].end_lineno, orelse[0].lineno - 1):  # from 0: the lines between the branches
        if lines and head.fullmatch(code.data[code.starts[number] : code.starts[number + 1] - 1]):
            yield Edit(code.starts[number], lines[1] + 1, "else", "")


def _unwrapped(code: Code, statement: ast.stmt) -> Iterator[Edit]:
    """The body of `try` or `with` alone, moved to the left."""
    if not isinstance(statement, ast.Try | ast.With) or only_passes(statement.body):
        return
    lines, body = _lines(code, statement, statement), _lines(code, statement.body[0], statement.body[-1])
    texts = (node for one in statement.body for node in ast.walk(one) if isinstance(node, ast.Constant | ast.JoinedStr))
    if lines is None or body is None or any(node.lineno < node.end_lineno for node in texts):
        return  # a multi-line string would change
    moved = statement.body[0].col_offset - statement.col_offset
    inner = code.data[body[0] : body[1]].decode().split("\n")
    yield Edit(*lines, "wrapper", "\n".join(line[moved:] if not line[:moved].strip() else line for line in inner))


def _reordered(code: Code, first: ast.stmt, second: ast.stmt) -> Iterator[Edit]:
    """Two one-line statements swapped, where the second reads a variable that the first sets."""
    if not (isinstance(first, ast.Assign | ast.AugAssign) and isinstance(second, SIMPLE)) or equal(first, second):
        return
    set_names = {node.id for node in ast.walk(first) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    read = {node.id for node in ast.walk(second) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    one, other = _lines(code, first, first), _lines(code, second, second)
    if not (set_names & read) or one is None or other is None or second.lineno != first.end_lineno + 1:
        return
    if first.lineno == first.end_lineno and second.lineno == second.end_lineno:
        text = code.data[other[0] : other[1]] + b"\n" + code.data[one[0] : one[1]]
        yield Edit(one[0], other[1], "order", text.decode())
