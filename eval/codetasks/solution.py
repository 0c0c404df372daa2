"""What of an answer solves a task: the definition asked for and all that it reaches, and where that was found."""

from __future__ import annotations

import ast
import builtins
import symtable
import textwrap
from dataclasses import dataclass

from data.syntax import parsed
from eval.codetasks.extract import complete_function, extract_code, fenced_blocks

_DYNAMIC = frozenset({"eval", "exec", "globals", "locals", "vars", "__import__"})  # names that reach by text
_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


@dataclass(frozen=True)
class Solution:
    """A module that defines the entry point, or None, and how it was found.

    route  "fence" (one block), "fences" (several, joined), "text" (the whole answer or code amid prose), "body" (the
           answer goes on where the prompt ends), or "none"
    """

    code: str | None
    route: str


def read_solution(prompt: str, entry_point: str, answer: str, *, also: frozenset[str] = frozenset()) -> Solution:
    """Find the definition of `entry_point` in an answer; nothing is run, and no reading is chosen for being right.

    prompt  prose, or the head of the function: then what stands beside it (imports, helpers) comes along
    also    names that the tests use, too: what defines them is kept
    A fenced block that defines it and all that it needs is taken before the blocks joined, these before a block that
    lacks something. Without a fence the text is read, then taken as the body.
    """
    head = parsed(prompt)
    has_head = head is not None and any(entry_point in _bound(node) for node in head.body)
    beside = [node for node in head.body if entry_point not in _bound(node)] if has_head else []
    code, route = _whole(entry_point, answer, set().union(*map(_bound, beside)))
    if code is None and has_head:
        code, route = complete_function(prompt.rstrip(), entry_point, answer), "body"
    elif code is not None and beside:
        code = "\n".join(map(ast.unparse, beside)) + "\n\n" + code
    if code is None:
        return Solution(None, "none")
    return Solution(reachable(code, entry_point, also), route)


def _whole(entry_point: str, answer: str, given: set[str]) -> tuple[str | None, str]:
    """The code of an answer that holds the whole definition, and its route."""
    blocks = [textwrap.dedent(block).strip("\n") + "\n" for block in fenced_blocks(answer)]
    blocks = [block for block in blocks if parsed(block) is not None]
    defining = [block for block in blocks if _defines(block, entry_point)]
    complete = [block for block in defining if not _lacking(block, entry_point) - given]
    if complete:
        return complete[0], "fence"
    if defining:
        joined = "\n".join(blocks)
        better = len(_lacking(joined, entry_point) - given) < len(_lacking(defining[0], entry_point) - given)
        return (joined, "fences") if better else (defining[0], "fence")
    plain = None if fenced_blocks(answer) else extract_code(answer)
    return (plain, "text") if plain is not None and _defines(plain, entry_point) else (None, "none")


def _defines(code: str, name: str) -> bool:
    return any(name in _bound(node) for node in parsed(code).body)


def _lacking(code: str, entry_point: str) -> set[str]:
    """Names that the definition reaches and that nothing in the code binds: a helper that stands elsewhere."""
    body = parsed(reachable(code, entry_point)).body
    bound = set().union(*map(_bound, body))
    return set() if "*" in bound else set().union(*map(_used, body)) - bound - set(dir(builtins)) - {"__name__"}


def reachable(code: str, entry_point: str, also: frozenset[str] = frozenset()) -> str:
    """`code` without what the definition of `entry_point` does not reach: trials, prints, tests, other functions.

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
    """Whether a statement that binds nothing shows or tests something: an assertion, a print, a bare value."""
    if not isinstance(node, ast.Expr):
        return isinstance(node, ast.Assert)
    return not isinstance(node.value, ast.Call) or bool(_used(node) & {"print", "input"})


def _lines(code: str, nodes: list[ast.stmt]) -> str:
    """The lines of these statements, imports from __future__ first."""
    lines, shown, parts = code.split("\n"), 0, []
    for node in nodes:
        first = min([node.lineno, *(decorator.lineno for decorator in getattr(node, "decorator_list", []))])
        text = lines[max(shown, first - 1) : node.end_lineno]
        parts.insert(0, text) if _is_future(node) else parts.append(text)
        shown = max(shown, node.end_lineno)
    return "\n".join(line for text in parts for line in text) + "\n"


def _tables(node: ast.stmt) -> list[symtable.SymbolTable]:
    """The symbol tables of one statement: the module's first, then those of its inner scopes."""
    try:
        tables = [symtable.symtable(ast.unparse(node), "<answer>", "exec")]
    except (SyntaxError, RecursionError):  # it parses, yet it is no program: `return` outside of a function
        return []
    for table in tables:
        tables += table.get_children()
    return tables


def _used(node: ast.stmt) -> set[str]:
    """Names of the module that a statement reads, its inner scopes too; their own variables are not among them."""
    return {
        symbol.get_name()
        for depth, table in enumerate(_tables(node))
        for symbol in table.get_symbols()
        if symbol.is_referenced() and (depth == 0 or symbol.is_global())
    }


def _bound(node: ast.stmt) -> set[str]:
    """Names of the module that a statement binds or changes: `x = …`, `x[0] = …`, and in a loop `x.append(…)`."""
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
