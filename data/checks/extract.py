"""Extracts the code of an answer from its prose and puts it where it belongs.

Readings are tried in a fixed order and the first that parses is taken, whether or not the code is correct.
"""

from __future__ import annotations

import ast
import builtins
import re
import symtable
import textwrap
from dataclasses import dataclass

from common.markdown import blocks as markdown_blocks
from common.python_syntax import parsed
from data.checks.code_blocks import code_blocks, is_code

_INLINE_CODE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
_STATEMENT_START = re.compile(r"^(?:import |from |@|def |async def |class )", re.MULTILINE)

_DYNAMIC = frozenset({"eval", "exec", "globals", "locals", "vars", "__import__"})  # names that reach others by text
_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def extract_code(answer: str, entry_point: str | None = None) -> str | None:
    """The Python in an answer: a module with its imports, helpers and decorators, or None.

    Read in this order: each fenced block, all blocks joined; without a fence the whole answer; then the text from the
    first line outside the blocks that starts a definition or an import, up to the last line that lets it parse. The
    first reading that parses and, if `entry_point` is given, defines a function or class of that name is taken. Prose
    that happens to parse (a single word) is not code.
    """
    answer = answer.replace("\r\n", "\n")
    blocks = [textwrap.dedent(block).strip("\n") for block in code_blocks(answer)]
    joined = "\n\n".join(block for block in blocks if parsed(block) is not None)
    for code in [*blocks, joined] if blocks else [textwrap.dedent(answer).strip("\n")]:
        tree = parsed(code)
        if is_code(tree) and (entry_point is None or defines(tree, entry_point)):
            return code + "\n"
    return _code_amid_prose(answer, entry_point)


def _code_amid_prose(answer: str, entry_point: str | None) -> str | None:
    fences = [range(block.start, block.stop) for block in markdown_blocks(answer)]
    starts = (match.start() for match in _STATEMENT_START.finditer(answer))
    free = (at for at in starts if not any(answer.count("\n", 0, at) in lines for lines in fences))
    start = next(free, None)
    lines = [] if start is None else answer[start:].split("\n")
    for end in range(len(lines), 0, -1):
        code = "\n".join(lines[:end]).rstrip() + "\n"
        tree = parsed(code)
        if is_code(tree):
            return code if entry_point is None or defines(tree, entry_point) else None
    return None


def defines(tree: ast.Module, name: str) -> bool:
    """Whether the module defines a function or class of that name at its top level."""
    return any(isinstance(node, _DEFINITIONS) and node.name == name for node in tree.body)


def complete_function(head: str, name: str, answer: str, also: frozenset[str] = frozenset()) -> str | None:
    """The whole function from its `head` (signature, docstring) and an answer that gives its body; None if none parses.

    Readings, in this order: the text continues exactly where the head ends (`continued`); the answer repeats the whole
    function (taken as it is); it is the body, however far indented; it is the body with the first line's indentation
    lost. In the last two a body ends at the first line that is indented less, as HumanEval's stop words cut it (Chen et
    al. 2021, appendix).
    """
    blocks = code_blocks(answer)
    text = blocks[0] if blocks else answer.replace("\r\n", "\n")
    whole = continued(head, name, answer, also) or _joined(head, name, text, also) or extract_code(answer, name)
    if whole is not None:
        return whole
    indent = _body_indent(head)
    for body in (textwrap.dedent(_cut_at_dedent(text)), textwrap.dedent(_mend_first_line(text))):
        if body.strip():
            source = head.rstrip() + "\n" + textwrap.indent(body.strip("\n"), indent) + "\n"
            if parsed(source) is not None:
                return source
    return None


def continued(head: str, name: str, answer: str, also: frozenset[str] = frozenset()) -> str | None:
    """The head and the answer, simply concatenated as HumanEval's authors do; None where that does not complete
    `name`. If the prompt opened a fence, the answer ends where it is closed.

    So a helper or a constant may follow the body, and comments or lines of a string in it may start in column 0. What
    the function does not reach is omitted, as `reachable` does.
    """
    answer = answer.replace("\r\n", "\n")
    whole = _joined(head, name, answer, also)
    if whole is not None or not (fences := markdown_blocks(answer)):
        return whole
    return _joined(head, name, "\n".join(answer.split("\n")[: fences[0].start]), also)


def _joined(head: str, name: str, text: str, also: frozenset[str]) -> str | None:
    for joint in ("", "\n"):
        source = head + joint + text
        tree = parsed(source) if text.strip() else None
        if tree is None or any(isinstance(node, ast.Return) for node in tree.body):  # a body that lost its indentation
            continue
        defining = [node for node in tree.body if name in _bound(node)]
        if defining and defining[-1].lineno <= head.rstrip().count("\n") + 1 and not _is_head(defining[-1]):
            return reachable(source, name, also)
    return None


def _is_head(node: ast.stmt) -> bool:
    """Whether it is, or is a class that ends with, a function with nothing but signature and docstring."""
    while isinstance(node, ast.ClassDef):
        node = node.body[-1]
    is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    return is_function and len(node.body) == 1 and ast.get_docstring(node) is not None


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
    """The first line moved to the smallest indentation below it: strip() may have removed its own."""
    first, *rest = text.strip("\n").split("\n")
    margins = [line[: len(line) - len(line.lstrip())] for line in rest if line.startswith((" ", "\t"))]
    return _cut_at_dedent("\n".join([min(margins, key=len, default="") + first.lstrip(), *rest]))


def correct_line(function_source: str, name: str, line: int, answer: str) -> str | None:
    """`function_source` with its line `line` (from 1) replaced by the answer's; None if it gives none.

    The answer is the line (bare, fenced, or the only inline code in a sentence) or the whole corrected function.
    The replaced line's indentation is kept. The result may not parse; the caller must check.
    """
    whole = extract_code(answer, name)
    if whole is not None:
        return whole
    blocks = code_blocks(answer)
    given = [text for text in (blocks[0] if blocks else answer).splitlines() if text.strip()]
    inline = [] if blocks else _INLINE_CODE.findall(answer)
    lines = function_source.split("\n")
    old = lines[line - 1]
    indent = old[: len(old) - len(old.lstrip())]
    readings = [
        "\n".join([*lines[: line - 1], indent + found[0].strip(), *lines[line:]])
        for found in (given, inline)  # the line first: a comment in it may contain backticks
        if len(found) == 1
    ]
    return next((one for one in readings if parsed(one) is not None), readings[-1] if readings else None)


@dataclass(frozen=True)
class Solution:
    """A module that defines the entry point, or None, and how it was found.

    route  "fence" (one block), "fences" (several, joined), "text" (the whole answer or code amid prose), "body" (the
           answer continues the prompt), or "none"
    """

    code: str | None
    route: str


def read_solution(prompt: str, entry_point: str, answer: str, *, also: frozenset[str] = frozenset()) -> Solution:
    """Find the definition of `entry_point` in an answer; nothing is run, and no reading is chosen for being right.

    prompt  prose, or the head of the function, whose context (imports, helpers) is then kept
    also    further names that the tests use: their definitions are kept
    If the prompt is a head, the text is first read as its direct continuation. Of fenced blocks, one that defines
    `entry_point` and all it needs is preferred to all blocks joined, and these to a block that lacks something. Then
    comes the text outside the blocks, and last the other readings of a body.
    """
    head = parsed(prompt) or parsed(f"{prompt.rstrip()}\n    pass\n")  # the second: a head without a docstring
    has_head = head is not None and any(entry_point in _bound(node) for node in head.body)
    if has_head and (code := continued(prompt, entry_point, answer, also)):
        return Solution(code, "body")
    beside = [node for node in head.body if entry_point not in _bound(node)] if has_head else []
    code, route = _whole(entry_point, answer, set().union(*map(_bound, beside)))
    if code is None and has_head:
        code, route = complete_function(prompt, entry_point, answer, also), "body"
    elif code is not None and beside:
        code = "\n".join(map(ast.unparse, beside)) + "\n\n" + code
    if code is None:
        return Solution(None, "none")
    return Solution(reachable(code, entry_point, also), route)


def _whole(entry_point: str, answer: str, given: set[str]) -> tuple[str | None, str]:
    """The code of an answer that contains the whole definition, and its route."""
    fenced = code_blocks(answer)
    blocks = [textwrap.dedent(block).strip("\n") + "\n" for block in fenced]
    blocks = [block for block in blocks if parsed(block) is not None]
    defining = [block for block in blocks if _binds(block, entry_point)]
    complete = [block for block in defining if not _lacking(block, entry_point) - given]
    if complete:
        return complete[0], "fence"
    if defining:
        joined = "\n".join(blocks)
        better = len(_lacking(joined, entry_point) - given) < len(_lacking(defining[0], entry_point) - given)
        return (joined, "fences") if better else (defining[0], "fence")
    plain = _code_amid_prose(answer.replace("\r\n", "\n"), None) if fenced else extract_code(answer)
    return (plain, "text") if plain is not None and _binds(plain, entry_point) else (None, "none")


def _binds(code: str, name: str) -> bool:
    return any(name in _bound(node) for node in parsed(code).body)


def _lacking(code: str, entry_point: str) -> set[str]:
    """Names that the definition reaches but nothing in the code binds: a helper defined elsewhere."""
    body = parsed(reachable(code, entry_point)).body
    bound = set().union(*map(_bound, body))
    return set() if "*" in bound else set().union(*map(_used, body)) - bound - set(dir(builtins)) - {"__name__"}


def reachable(code: str, entry_point: str, also: frozenset[str] = frozenset()) -> str:
    """`code` without what the definition of `entry_point` does not reach: demos, prints, tests, other functions.

    A statement is kept if it binds or changes a name that is reached. One that binds nothing, as
    `sys.setrecursionlimit(…)` does, is kept unless it uses the entry point, asserts, prints or reads input. A
    definition brings its decorators along.
    """
    tree = parsed(code)
    body = [node for node in tree.body if not _is_main_guard(node)]
    uses, binds = [_used(node) for node in body], [_bound(node) for node in body]
    keeps_all = any(names & _DYNAMIC for names in uses)

    def closure(names: set[str]) -> set[int]:
        found: set[int] = set()
        while True:
            new = {i for i, bound in enumerate(binds) if i not in found and bound & names}
            if not new:
                return found
            found |= new
            names = names.union(*(uses[i] for i in new))

    kept = closure({entry_point, "*", *also}) | {i for i, node in enumerate(body) if _is_future(node)}
    for i, node in enumerate(body):
        if binds[i]:
            if keeps_all and not isinstance(node, ast.Assert):
                kept.add(i)
        elif not _is_trial(node) and not any(entry_point in binds[j] for j in closure(uses[i])):
            kept |= {i} | closure(uses[i])
    return _lines(code, [body[i] for i in sorted(kept)])


def _is_main_guard(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and any(isinstance(n, ast.Name) and n.id == "__name__" for n in ast.walk(node.test))


def _is_future(node: ast.stmt) -> bool:
    return isinstance(node, ast.ImportFrom) and node.module == "__future__"


def _is_trial(node: ast.stmt) -> bool:
    """Whether a statement that binds nothing only shows or tests: an assertion, a print, a bare value or note."""
    if not isinstance(node, ast.Expr):
        return isinstance(node, ast.Assert | ast.AnnAssign)  # "Note: x", which annotates a variable
    return not isinstance(node.value, ast.Call) or bool(_used(node) & {"print", "input"})


def _lines(code: str, nodes: list[ast.stmt]) -> str:
    """The lines of these statements, imports from __future__ first."""
    lines, shown = code.split("\n"), 0
    future: list[str] = []
    others: list[str] = []
    for node in nodes:
        first = min([node.lineno, *(decorator.lineno for decorator in getattr(node, "decorator_list", []))])
        (future if _is_future(node) else others).extend(lines[max(shown, first - 1) : node.end_lineno])
        shown = max(shown, node.end_lineno)
    return "\n".join(future + others) + "\n"


def _tables(node: ast.stmt) -> list[symtable.SymbolTable]:
    """The symbol tables of one statement: the module's first, then those of its inner scopes."""
    try:
        tables = [symtable.symtable(ast.unparse(node), "<answer>", "exec")]
    except (SyntaxError, RecursionError):  # it parses but does not compile: `return` outside a function
        return []
    for table in tables:
        tables += table.get_children()
    return tables


def _used(node: ast.stmt) -> set[str]:
    """Module-level names that a statement and its inner scopes read, without the scopes' own variables."""
    return {
        symbol.get_name()
        for depth, table in enumerate(_tables(node))
        for symbol in table.get_symbols()
        if symbol.is_referenced() and (depth == 0 or symbol.is_global())
    }


def _bound(node: ast.stmt) -> set[str]:
    """Module-level names that a statement binds or changes: `x = …`, `x[0] = …`, and in a loop `x.append(…)`."""
    names = {
        symbol.get_name()
        for depth, table in enumerate(_tables(node))
        for symbol in table.get_symbols()
        if (symbol.is_assigned() or symbol.is_imported()) and (depth == 0 or symbol.is_declared_global())
    }
    if isinstance(node, ast.ImportFrom) and node.names[0].name == "*":
        names.add("*")
    if isinstance(node, (*_DEFINITIONS, ast.Expr)):
        return names
    for one in ast.walk(node):
        if isinstance(one, (ast.Subscript, ast.Attribute)) and not isinstance(one.ctx, ast.Load):
            names |= _base(one)
        elif isinstance(one, ast.Call) and isinstance(one.func, ast.Attribute):
            names |= _base(one.func)
    return names


def _base(node: ast.expr) -> set[str]:
    """The variable at the root of `x.a[0].b`."""
    while isinstance(node, (ast.Subscript, ast.Attribute)):
        node = node.value
    return {node.id} if isinstance(node, ast.Name) else set()
