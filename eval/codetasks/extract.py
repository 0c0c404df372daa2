"""From an answer to code: find it among the prose and put it where it belongs.

Readings are tried in a fixed order and the first that parses is taken: none looks at whether the code is right.
"""

from __future__ import annotations

import ast
import re
import textwrap

from data.syntax import parsed

_FENCE = re.compile(
    r"^[ \t]*(?:```|~~~)[\w+.-]*[ \t]*\n(.*?)(?:^[ \t]*(?:```|~~~)[ \t]*$|\Z)", re.DOTALL | re.MULTILINE
)
_FENCE_LINE = re.compile(r"^[ \t]*(?:```|~~~)", re.MULTILINE)
_INLINE_CODE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
_STATEMENT_START = re.compile(r"^(?:import |from |@|def |async def |class )", re.MULTILINE)


def fenced_blocks(answer: str) -> list[str]:
    """The contents of the fenced code blocks, in order.

    A fence that is never closed runs to the end; one that was never opened, with code before it, ends a block.
    """
    answer = answer.replace("\r\n", "\n")
    fences = list(_FENCE_LINE.finditer(answer))
    if len(fences) == 1:
        before = parsed(textwrap.dedent(answer[: fences[0].start()]))
        if before is not None and _is_code(before):
            return [answer[: fences[0].start()]]
    return [block for block in _FENCE.findall(answer) if block.strip()]


def extract_code(answer: str, entry_point: str | None = None) -> str | None:
    """The Python in an answer: a module with its imports, helpers and decorators, or None.

    Read in this order: each fenced block, all blocks joined; without a fence the whole answer, then the answer from
    its first line that starts a definition or an import up to the last line that lets it parse. The first reading that
    parses and, if `entry_point` is given, defines a function or class of that name is taken. Prose that happens to
    parse (a lone word) is not code.
    """
    answer = answer.replace("\r\n", "\n")
    blocks = fenced_blocks(answer)
    readings = [*blocks, "\n\n".join(map(textwrap.dedent, blocks))] if blocks else [answer]
    for reading in readings:
        code = textwrap.dedent(reading).strip("\n")
        tree = parsed(code)
        if tree is not None and _is_code(tree) and (entry_point is None or defines(tree, entry_point)):
            return code + "\n"
    return None if blocks else _code_amid_prose(answer, entry_point)


def _code_amid_prose(answer: str, entry_point: str | None) -> str | None:
    start = _STATEMENT_START.search(answer)
    lines = answer[start.start() :].split("\n") if start else []
    for end in range(len(lines), 0, -1):
        code = "\n".join(lines[:end]).rstrip() + "\n"
        tree = parsed(code)
        if tree is not None and _is_code(tree):
            return code if entry_point is None or defines(tree, entry_point) else None
    return None


def _is_code(tree: ast.Module) -> bool:
    words = (ast.Name, ast.Constant, ast.Tuple)
    return any(not (isinstance(node, ast.Expr) and isinstance(node.value, words)) for node in tree.body)


def defines(tree: ast.Module, name: str) -> bool:
    """Whether the module defines a function or class of that name at its top level."""
    definitions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return any(isinstance(node, definitions) and node.name == name for node in tree.body)


def complete_function(head: str, name: str, answer: str) -> str | None:
    """The whole function from its `head` (signature, docstring) and an answer that gives its body; None if none parses.

    Readings, in this order: the answer repeats the whole function (then it is taken as it stands); it is the body,
    however far indented as a whole; it is the body with the first line's indentation lost. A body ends at the first
    line that stands further left than it, as the stop words of HumanEval cut it (Chen et al. 2021, appendix).
    """
    whole = extract_code(answer, name)
    if whole is not None:
        return whole
    blocks = fenced_blocks(answer)
    text = blocks[0] if blocks else answer.replace("\r\n", "\n")
    indent = _body_indent(head)
    for body in (textwrap.dedent(_cut_at_dedent(text)), textwrap.dedent(_mend_first_line(text))):
        if body.strip():
            source = head.rstrip() + "\n" + textwrap.indent(body.strip("\n"), indent) + "\n"
            if parsed(source) is not None:
                return source
    return None


def _body_indent(head: str) -> str:
    indents = [line[: len(line) - len(line.lstrip())] for line in head.split("\n")[1:] if line.startswith((" ", "\t"))]
    return min(indents, key=len, default="    ")


def _cut_at_dedent(text: str) -> str:
    lines = text.strip("\n").split("\n")
    margin = len(lines[0]) - len(lines[0].lstrip())
    for number, line in enumerate(lines):
        if line.strip() and len(line) - len(line.lstrip()) < margin:
            return "\n".join(lines[:number])
    return "\n".join(lines)


def _mend_first_line(text: str) -> str:
    """The first line moved to the smallest indentation below it, as when a tokenizer's strip() took it away."""
    first, *rest = text.strip("\n").split("\n")
    margins = [line[: len(line) - len(line.lstrip())] for line in rest if line.startswith((" ", "\t"))]
    return _cut_at_dedent("\n".join([min(margins, key=len, default="") + first.lstrip(), *rest]))


def correct_line(function_source: str, name: str, line: int, answer: str) -> str | None:
    """`function_source` with its line `line` (from 1) replaced by the one that the answer gives; None if none is given.

    The answer is the line (bare, fenced, or the only inline code in a sentence) or the whole corrected function.
    The replaced line's indentation is kept. The result need not parse: that is for the caller to find.
    """
    whole = extract_code(answer, name)
    if whole is not None:
        return whole
    blocks = fenced_blocks(answer)
    given = [text for text in (blocks[0] if blocks else answer).splitlines() if text.strip()]
    inline = [] if blocks else _INLINE_CODE.findall(answer)
    lines = function_source.split("\n")
    old = lines[line - 1]
    indent = old[: len(old) - len(old.lstrip())]
    readings = [
        "\n".join([*lines[: line - 1], indent + found[0].strip(), *lines[line:]])
        for found in (given, inline)  # the line first: a comment in it may hold backticks
        if len(found) == 1
    ]
    return next((one for one in readings if parsed(one) is not None), readings[-1] if readings else None)
