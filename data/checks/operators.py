"""Mutation operators that change one line of an expression or a statement's head.

Each yields edits that change what the code does: mutants equivalent by construction, such as `x - 0` for `x + 0`, are
skipped where they arise.
"""

from __future__ import annotations

import ast
import builtins
import itertools
import operator
import re
from collections.abc import Iterator

from data.checks.edits import JUMPS, LOOPS, SCOPES, Code, Edit, equal, is_text, number_of, only_passes, own_nodes

COMPARISON = {
    ast.Eq: ("==", "!="), ast.NotEq: ("!=", "=="), ast.Lt: ("<", ">"), ast.LtE: ("<=", ">="), ast.Gt: (">", "<"),
    ast.GtE: (">=", "<="), ast.In: ("in", "not in"), ast.NotIn: (r"not\s+in", "in"), ast.Is: ("is", "is not"),
    ast.IsNot: (r"is\s+not", "is"),
}  # fmt: skip
BOUNDARY = {ast.Lt: ("<", "<="), ast.LtE: ("<=", "<"), ast.Gt: (">", ">="), ast.GtE: (">=", ">")}
COMPLEMENT = {**COMPARISON, ast.Lt: ("<", ">="), ast.LtE: ("<=", ">"), ast.Gt: (">", "<="), ast.GtE: (">=", "<")}
ARITHMETIC = {
    ast.Add: (r"\+", "-"), ast.Sub: ("-", "+"), ast.Mult: (r"\*", "+"), ast.Div: ("/", "*"), ast.FloorDiv: ("//", "/"),
    ast.Mod: ("%", "//"), ast.Pow: (r"\*\*", "*"), ast.BitAnd: ("&", "|"), ast.BitOr: (r"\|", "&"),
    ast.LShift: ("<<", ">>"), ast.RShift: (">>", "<<"), ast.BitXor: (r"\^", "|"),
}  # fmt: skip
CALCULATE = {
    "+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv, "//": operator.floordiv,
    "%": operator.mod, "**": operator.pow, "&": operator.and_, "|": operator.or_, "<<": operator.lshift,
    ">>": operator.rshift, "^": operator.xor,
}  # fmt: skip
ORDERED = (ast.Sub, ast.Div, ast.FloorDiv, ast.Mod, ast.Pow, ast.LShift, ast.RShift, ast.MatMult)  # not commutative
CHAINS = ((ast.Add, ast.Sub), (ast.Mult, ast.Div, ast.FloorDiv), (ast.BitAnd,), (ast.BitOr,))
SYMMETRIC = frozenset({"max", "min", "gcd", "lcm", "hypot", "isclose"})  # calls whose arguments commute
EXCEPTIONS = ("ValueError", "TypeError", "KeyError", "IndexError", "RuntimeError")


def comparison(code: Code, node: ast.Compare) -> Iterator[Edit]:
    """`<` reversed, `==` negated; and the boundary moved, unless that would only affect ties."""
    for left, op, right in zip([node.left, *node.comparators], node.ops, node.comparators, strict=False):
        yield from _between(code, "comparison", left, right, COMPARISON.get(type(op)))
        if id(node) not in code.ties:
            yield from _between(code, "boundary", left, right, BOUNDARY.get(type(op)))


def boolean(code: Code, node: ast.BoolOp) -> Iterator[Edit]:
    """`and` for `or` between two different operands; one operand omitted."""
    word, other = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
    for left, right in itertools.pairwise(node.values):
        if not equal(left, right):
            yield from _between(code, "boolean", left, right, (word, other))
    for number, dropped in enumerate(node.values):
        rest = [value for position, value in enumerate(node.values) if position != number]
        if not any(equal(dropped, value) for value in rest):
            text = f" {word} ".join(_condition(code, value) for value in rest)
            yield code.replace("condition", node, text)


def _condition(code: Code, node: ast.expr) -> str:
    loose = ast.BoolOp | ast.IfExp | ast.Lambda | ast.NamedExpr | ast.Yield | ast.YieldFrom
    return f"({code.text(node)})" if isinstance(node, loose) else code.text(node)


def negation(code: Code, node: ast.UnaryOp) -> Iterator[Edit]:
    """`not` or a minus sign omitted."""
    if isinstance(node.op, ast.Not):
        yield code.replace("boolean", node, _condition(code, node.operand))
    elif isinstance(node.op, ast.USub) and not isinstance(node.operand, ast.Constant):
        yield code.replace("arithmetic", node, code.operand(node.operand))


def arithmetic(code: Code, node: ast.BinOp) -> Iterator[Edit]:
    """Another operator, operands swapped, a chain `a + b + c` shortened. Strings are only swapped."""
    left, right, kind = node.left, node.right, type(node.op)
    has_text = is_text(left) or is_text(right)
    if kind in ARITHMETIC and not has_text and not _same_result(kind, left, right):
        yield from _between(code, "arithmetic", left, right, ARITHMETIC[kind])
    sequence = has_text or isinstance(left, ast.List | ast.Tuple) or isinstance(right, ast.List | ast.Tuple)
    formats = kind is ast.Mod and is_text(left)
    if not formats and (kind in ORDERED or (kind is ast.Add and sequence)) and not _symmetric(kind, left, right):
        gap = code.data[code.end(left) : code.start(right)].decode().replace("(", "").replace(")", "")
        yield code.replace("operands", node, f"{code.operand(right)}{gap}{code.operand(left)}")
    chain = next((chain for chain in CHAINS if kind in chain), ())
    if isinstance(left, ast.BinOp) and type(left.op) in chain and not _neutral(kind, right):
        if kind in (ast.BitAnd, ast.BitOr) and (equal(right, left.right) or equal(right, left.left)):
            return
        yield Edit(code.end(left), code.end(node), "operand", "")


def _symmetric(kind: type, left: ast.expr, right: ast.expr) -> bool:
    """Whether two operands commute: they are the same, or constants for which the order does not matter."""
    if equal(left, right):
        return True
    first, second = number_of(left), number_of(right)
    if first is None or second is None or kind not in ARITHMETIC:
        return False
    return _calculate(_symbol(kind), first, second) == _calculate(_symbol(kind), second, first)


def _symbol(kind: type) -> str:
    return ARITHMETIC[kind][0].replace("\\", "")


def _calculate(symbol: str, left, right):
    try:
        return CALCULATE[symbol](left, right)
    except (ArithmeticError, TypeError, ValueError) as error:
        return type(error)


def _same_result(kind: type, left: ast.expr | None, right: ast.expr) -> bool:
    """Whether the replaced operator gives the same result for these operands; left is None if unknown."""
    first, second = left and number_of(left), number_of(right)
    if first is not None and second is not None:
        symbol, other = _symbol(kind), ARITHMETIC[kind][1]
        return _calculate(symbol, first, second) == _calculate(other, first, second)
    if kind in (ast.BitAnd, ast.BitOr):
        return left is not None and equal(left, right)
    if kind in (ast.Add, ast.Sub, ast.LShift, ast.RShift, ast.BitXor):
        return second == 0 or (first == 0 and kind in (ast.LShift, ast.RShift, ast.BitXor))
    if kind in (ast.Div, ast.FloorDiv):
        return second in (1, -1) or first == 0
    return (kind is ast.Pow and (second == 1 or first == 0)) or (kind is ast.Mod and first == 0)


def _neutral(kind: type, right: ast.expr) -> bool:
    """Whether the operand after the operator changes nothing."""
    value = number_of(right)
    return value == 0 if kind in (ast.Add, ast.Sub, ast.BitOr) else value == 1


def augmented(code: Code, node: ast.AugAssign) -> Iterator[Edit]:
    """`x += y` with another operator, and as `x = y`, unless x is the neutral constant then."""
    kind = type(node.op)
    if kind not in ARITHMETIC or is_text(node.value):
        return
    pattern, other = ARITHMETIC[kind]
    if not _same_result(kind, None, node.value):
        yield from _between(code, "arithmetic", node.target, node.value, (pattern + "=", other + "="))
    absorbs = kind in (ast.Mult, ast.BitAnd) and number_of(node.value) == 0
    first_time = id(node) not in code.looped and isinstance(node.target, ast.Name)
    if not absorbs and not first_time:
        yield from _between(code, "assignment", node.target, node.value, (pattern + "=", "="))


def unpacking(code: Code, node: ast.Assign) -> Iterator[Edit]:
    """Two neighbouring values of `a, b = x, y` swapped."""
    if isinstance(node.value, ast.Tuple) and isinstance(node.targets[0], ast.Tuple | ast.List):
        yield from _swapped(code, "assignment", node.value.elts)


def condition(code: Code, node: ast.If | ast.While | ast.IfExp) -> Iterator[Edit]:
    """A condition inverted (kind "inverted" with an else, whose branches are thereby swapped) or always true."""
    test = node.test
    if isinstance(test, ast.Constant) or (isinstance(node, ast.If) and only_passes([*node.body, *node.orelse])):
        return
    kind = "inverted" if node.orelse else "condition"
    if isinstance(test, ast.Compare) and len(test.ops) == 1:
        yield from _between(code, kind, test.left, test.comparators[0], COMPLEMENT.get(type(test.ops[0])))
    elif not (isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not)):
        yield code.replace(kind, test, f"not {code.operand(test)}")
    if isinstance(node, ast.If):  # `while True` would only hit the time limit
        yield code.replace("condition", test, "True")


def comprehension(code: Code, node: ast.comprehension) -> Iterator[Edit]:
    """A comprehension without one of its conditions."""
    for before, test in zip([node.iter, *node.ifs], node.ifs, strict=False):
        yield Edit(code.end(before), code.end(test), "condition", "")


def loop(code: Code, node: ast.For | ast.AsyncFor | ast.While) -> Iterator[Edit]:
    """`break` and `continue` exchanged; a `while` that runs at most once."""
    own = own_nodes(node.body, but=(*SCOPES, *LOOPS))
    jumps = [one for one in own if isinstance(one, ast.Break | ast.Continue) and id(one) in code.identities]
    endless = isinstance(node, ast.While) and isinstance(node.test, ast.Constant)
    for jump in jumps:
        if isinstance(jump, ast.Continue):
            yield code.replace("loop", jump, "break")
        elif not endless:  # else it would only hit the time limit
            yield code.replace("loop", jump, "continue")
    if isinstance(node, ast.While) and not jumps and not node.orelse and not isinstance(node.body[-1], JUMPS):
        yield Edit(code.start(node), code.start(node) + len("while"), "loop", "if")


def leave(code: Code, node: ast.Return | ast.Yield) -> Iterator[Edit]:
    """None for a returned or yielded value, or for a tuple's last item; a return commented out.

    Truth values are flipped elsewhere.
    """
    value = node.value
    if isinstance(node, ast.Return) and id(node) in code.ends_of_generators:
        return
    if isinstance(node, ast.Return) and value is not None and not _is_none(value):
        yield from _commented_out(code, node)
    if value is None or (isinstance(value, ast.Constant) and (value.value is None or isinstance(value.value, bool))):
        return
    last = value.elts[-1] if isinstance(value, ast.Tuple) and value.elts else value
    if not _is_none(last):
        yield code.replace("return", last, "None")


def _commented_out(code: Code, node: ast.Return) -> Iterator[Edit]:
    """A return on a line of its own commented out; `pass` takes its place where the block holds nothing else."""
    is_only = any(block[0] is node for block in code.blocks if len(block) == 1)
    starts_line = not code.data[code.starts[node.lineno - 1] : code.start(node)].strip()
    if starts_line and node.lineno == node.end_lineno:
        yield Edit(code.start(node), code.start(node), "commented out", "pass  # " if is_only else "# ")


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def call(code: Code, node: ast.Call) -> Iterator[Edit]:
    """Neighbouring arguments swapped; a bound of `range` moved by one."""
    name = getattr(node.func, "id", getattr(node.func, "attr", ""))
    if name not in SYMMETRIC:
        yield from _swapped(code, "arguments", node.args)
    if name != "range" or node.keywords:
        return
    bounds = [one for one in node.args[:2] if not isinstance(one, ast.Starred)]
    for position, bound in enumerate(bounds):
        if isinstance(bound, ast.Name | ast.Call | ast.Attribute | ast.Subscript):  # numbers are moved as constants
            is_stop = position == len(bounds) - 1
            yield code.replace("loop", bound, f"{code.text(bound)} {'-' if is_stop else '+'} 1")
            if len(node.args) == 1:
                yield code.replace("loop", bound, f"1, {code.text(bound)}")


def _swapped(code: Code, kind: str, items: list[ast.expr]) -> Iterator[Edit]:
    for first, second in itertools.pairwise(items):
        if not equal(first, second) and not any(isinstance(one, ast.Starred) for one in (first, second)):
            gap = code.data[code.end(first) : code.start(second)].decode()
            yield Edit(code.start(first), code.end(second), kind, code.text(second) + gap + code.text(first))


def constant(code: Code, node: ast.Constant) -> Iterator[Edit]:
    """A number off by one, a truth value flipped."""
    if isinstance(node.value, bool):
        yield code.replace("constant", node, str(not node.value))
    elif isinstance(node.value, int):
        for value in [node.value + 1, node.value - 1][: 1 + (node.value > 0)]:
            if value == 0 or id(node) not in code.conditions:  # `while 2` is `while 1`
                yield code.replace("constant", node, str(value))
    elif isinstance(node.value, float) and node.value + 1 != node.value:
        yield code.replace("constant", node, repr(node.value + 1))


def variable(code: Code, node: ast.Name) -> Iterator[Edit]:
    """Another variable that is already bound."""
    names = list(code.bound)
    if node.id in names and isinstance(node.ctx, ast.Load):
        others = [name for name in names if name != node.id and code.bound[name] < node.lineno]
        if others:
            yield code.replace("variable", node, others[(names.index(node.id) + node.lineno) % len(others)])


def raised(code: Code, node: ast.Raise) -> Iterator[Edit]:
    """An exception unrelated to the right one raised."""
    kind = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
    name = getattr(kind, "attr", getattr(kind, "id", ""))
    if name[:1].isupper():  # else a variable that holds an exception
        yield code.replace("exception", kind, _unrelated(name) or "RuntimeError")


def caught(code: Code, node: ast.ExceptHandler) -> Iterator[Edit]:
    """An unrelated exception caught; only for built-in ones is that known."""
    other = _unrelated(node.type.id) if isinstance(node.type, ast.Name) else None
    if other:
        yield code.replace("exception", node.type, other)


def _unrelated(name: str) -> str | None:
    """A built-in exception that is neither base nor subclass of the named one; None if that is not built in."""
    kind = getattr(builtins, name, None)
    if not (isinstance(kind, type) and issubclass(kind, BaseException)):
        return None
    pairs = ((other, getattr(builtins, other)) for other in EXCEPTIONS)
    return next((other for other, one in pairs if not (issubclass(one, kind) or issubclass(kind, one))), None)


def _between(code: Code, kind: str, left: ast.expr, right: ast.expr, change: tuple[str, str] | None) -> Iterator[Edit]:
    """Replace the operator between two operands, from which only parentheses may separate it, if all is on one line."""
    if change is None or left.end_lineno != right.lineno:
        return
    start = code.end(left)
    found = re.search(change[0].encode(), code.data[start : code.start(right)])
    if found:
        yield Edit(start + found.start(), start + found.end(), kind, change[1])


OPERATORS = {
    ast.Compare: comparison, ast.BoolOp: boolean, ast.UnaryOp: negation, ast.BinOp: arithmetic,
    ast.AugAssign: augmented, ast.Assign: unpacking, ast.If: condition, ast.While: condition, ast.IfExp: condition,
    ast.comprehension: comprehension, ast.Return: leave, ast.Yield: leave, ast.Call: call, ast.Constant: constant,
    ast.Name: variable, ast.Raise: raised, ast.ExceptHandler: caught,
}  # fmt: skip


def edits_within_a_line(code: Code) -> Iterator[Edit]:
    """Every edit of this file's operators that stays on one line."""
    for node in code.nodes:
        found = [*OPERATORS[type(node)](code, node)] if type(node) in OPERATORS else []
        found += [*loop(code, node)] if isinstance(node, LOOPS) else []
        yield from (edit for edit in found if b"\n" not in code.data[edit.start : edit.end])
