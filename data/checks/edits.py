"""A source text beside its syntax tree: positions of nodes, which of them matter, and edits."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

JUMPS = (ast.Return, ast.Raise, ast.Break, ast.Continue)
LOOPS = (ast.For, ast.AsyncFor, ast.While)
SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
# annotations never run, messages are not compared, positions within f-strings are wrong up to Python 3.11
UNSEEN = frozenset({
    ("AnnAssign", "annotation"), ("arg", "annotation"), ("FunctionDef", "returns"), ("AsyncFunctionDef", "returns"),
    ("Raise", "exc"), ("Raise", "cause"), ("Assert", "msg"), ("JoinedStr", "values"),
})  # fmt: skip
NOISE = frozenset({"warn", "debug", "info", "warning", "error", "exception", "critical", "log"})  # and logging


@dataclass(frozen=True, order=True)
class Edit:
    """Bytes `start` to `end` of a text, replaced; `kind` names the bug."""

    start: int
    end: int
    kind: str
    text: str


class Code:
    """One function: its text, and its tree without signature, decorators and docstring."""

    def __init__(self, source: str):
        self.data = source.encode()
        self.function = ast.parse(source).body[0]
        has_docstring = ast.get_docstring(self.function, clean=False) is not None
        self.body: list[ast.stmt] = self.function.body[has_docstring:]
        self.starts = [0]
        for line in self.data.split(b"\n"):
            self.starts.append(self.starts[-1] + len(line) + 1)

    def start(self, node: ast.AST) -> int:
        """Offset of a node's first byte."""
        return self.starts[node.lineno - 1] + node.col_offset

    def end(self, node: ast.AST) -> int:
        """Offset after a node's last byte."""
        return self.starts[node.end_lineno - 1] + node.end_col_offset

    def text(self, node: ast.AST) -> str:
        """A node as written, without parentheses around it."""
        return self.data[self.start(node) : self.end(node)].decode()

    def operand(self, node: ast.expr) -> str:
        """A node as written, in parentheses where a neighbouring operator could split it."""
        closed = ast.Name | ast.Attribute | ast.Call | ast.Constant | ast.Subscript | ast.List | ast.Tuple | ast.Dict
        text = self.text(node)
        return text if isinstance(node, closed) else f"({text})"

    def replace(self, kind: str, node: ast.AST, text: str) -> Edit:
        """The edit that replaces a node by `text`."""
        return Edit(self.start(node), self.end(node), kind, text)

    @cached_property
    def nodes(self) -> list[ast.AST]:
        """The nodes that run and have a visible effect, in tree order."""
        return [node for statement in reachable(self.body) for node in _live(statement)]

    @cached_property
    def identities(self) -> set[int]:
        """Identities of those nodes."""
        return {id(node) for node in self.nodes}

    @cached_property
    def blocks(self) -> list[list[ast.stmt]]:
        """Every list of statements that runs."""
        found = [self.body]
        for node in self.nodes:
            for _, value in ast.iter_fields(node):
                if isinstance(value, list) and value and isinstance(value[0], ast.stmt):
                    found.append(value)
        return [list(reachable(block)) for block in found]

    @cached_property
    def looped(self) -> set[int]:
        """Identities of the nodes inside a loop of the function."""
        return {id(inner) for node in self.nodes if isinstance(node, LOOPS) for inner in ast.walk(node)}

    @cached_property
    def bound(self) -> dict[str, int]:
        """Candidates for a wrong variable: arguments and the function's own variables, with their first line."""
        arguments = [node.arg for node in ast.walk(self.function.args) if isinstance(node, ast.arg)]
        lines = dict.fromkeys(arguments, 0)
        for node in own_nodes(self.body):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                lines[node.id] = min(node.lineno, lines.get(node.id, node.lineno))
        return {name: line for name, line in sorted(lines.items()) if name not in ("self", "cls", "_")}

    @cached_property
    def ties(self) -> set[int]:
        """Identities of comparisons that choose the larger or smaller of two values: `a if a > b else b`."""
        return {id(node.test) for node in self.nodes if isinstance(node, ast.If | ast.IfExp) and _chooses_side(node)}

    @cached_property
    def ends_of_generators(self) -> set[int]:
        """Identities of returns whose value nobody sees: the function yields."""
        functions = [self.function, *(one for one in self.nodes if isinstance(one, SCOPES[:2]))]
        own = [list(own_nodes(function.body, but=SCOPES)) for function in functions]
        generators = [nodes for nodes in own if any(isinstance(one, ast.Yield | ast.YieldFrom) for one in nodes)]
        return {id(node) for nodes in generators for node in nodes}

    @cached_property
    def conditions(self) -> set[int]:
        """Identities of nodes of which only the truth value counts."""
        return {id(node.test) for node in self.nodes if isinstance(node, ast.If | ast.While | ast.IfExp | ast.Assert)}


def _chooses_side(node: ast.If | ast.IfExp) -> bool:
    """Whether a branch on `a > b` does nothing but choose or assign one of the two: `if a > b: b = a`."""
    if not isinstance(node.test, ast.Compare) or len(node.test.ops) > 1:
        return False
    chosen: list[ast.expr] = []
    if isinstance(node, ast.IfExp):
        chosen = [node.body, node.orelse]
    elif len(node.body) == 1 and not node.orelse:
        assigned = node.body[0]
        if isinstance(assigned, ast.Assign) and len(assigned.targets) == 1:
            chosen = [assigned.targets[0], assigned.value]
    sides = {ast.dump(node.test.left), ast.dump(node.test.comparators[0])}
    return sides == {ast.dump(one).replace("Store()", "Load()") for one in chosen}


def _live(node: ast.AST) -> Iterator[ast.AST]:
    if isinstance(node, ast.Expr) and (isinstance(node.value, ast.Constant) or _is_noise(node.value)):
        return
    yield node
    for name, value in ast.iter_fields(node):
        if (type(node).__name__, name) in UNSEEN or (name == "body" and isinstance(node, ast.If) and never(node.test)):
            continue
        children = value if isinstance(value, list) else [value]
        for child in reachable(children):
            if isinstance(child, ast.AST):
                yield from _live(child)


def _is_noise(node: ast.expr) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in NOISE


def reachable(statements: list) -> Iterator:
    """The statements of a block up to its first jump."""
    for statement in statements:
        yield statement
        if isinstance(statement, JUMPS):
            return


def own_nodes(statements: list[ast.stmt], *, but: tuple[type, ...] = (*SCOPES, *COMPREHENSIONS)) -> Iterator[ast.AST]:
    """All nodes of a block except those inside another scope (or inside nodes of the types `but`)."""
    for statement in statements:
        yield statement
        if not isinstance(statement, but):
            yield from own_nodes(list(ast.iter_child_nodes(statement)), but=but)


def never(test: ast.expr) -> bool:
    """Whether a condition never holds at run time."""
    if isinstance(test, ast.Constant):
        return not test.value
    return getattr(test, "id", getattr(test, "attr", None)) == "TYPE_CHECKING"


def number_of(node: ast.expr):
    """The value of a numeric constant, possibly negated, else None."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        inner = number_of(node.operand)
        return None if inner is None else -inner
    is_number = isinstance(node, ast.Constant) and type(node.value) in (int, float)
    return node.value if is_number else None


def equal(first: ast.AST, second: ast.AST) -> bool:
    """Whether two nodes are the same code."""
    return ast.dump(first) == ast.dump(second)


def is_text(node: ast.expr) -> bool:
    """Whether a node is a string literal."""
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str | bytes))


def only_passes(statements: list[ast.stmt]) -> bool:
    """Whether a block does nothing."""
    return all(
        isinstance(one, ast.Pass) or (isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant))
        for one in statements
    )
