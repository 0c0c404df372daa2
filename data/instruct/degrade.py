"""Rewrites code for the worse without changing what it does, for the task of improving it.

Every rewriting preserves behaviour by construction; functions with examples are also run.
"""

from __future__ import annotations

import ast
import copy
import string

from data.checks.edits import SCOPES

LARGE = frozenset({"any or all", "comprehension", "conditional expression", "enumerate", "guard clause", "yield from"})
SMALL = frozenset({"chained comparison", "f-string", "membership"})  # a few words of one line


def is_worth_undoing(kinds: list[str]) -> bool:
    """Whether a reviewer would notice: more than names, annotations and one small change."""
    return bool(LARGE & set(kinds)) or len(SMALL & set(kinds)) > 1


def degrade(function_source: str) -> tuple[str, list[str]]:
    """The function without docstring, comments and annotations, rewritten for the worse, and the kinds of change.

    Returns (source, kinds); kinds is empty when nothing could be made worse.
    """
    function = ast.parse(function_source).body[0]
    if ast.get_docstring(function) is not None:
        function.body = function.body[1:] or [ast.Pass()]

    before = ast.dump(function)
    function = _Unannotated().visit(function)
    kinds = ["annotations"] if ast.dump(function) != before else []

    expressions, statements = _Expressions(), _Statements(_name_counts(function))
    function.body = [statements.visit(expressions.visit(statement)) for statement in function.body]
    function.body = [one for item in function.body for one in (item if isinstance(item, list) else [item])]
    kinds += [*expressions.kinds, *statements.kinds]

    nested = _nested(function.body)
    if nested is not function.body:
        function.body = nested
        kinds.append("guard clause")
    renamed = _short_names(function)
    if renamed:
        function = _Renamed(renamed).visit(function)
        kinds.append("names")

    if not set(kinds) - {"annotations"}:
        return function_source, []
    return ast.unparse(ast.fix_missing_locations(function)), sorted(set(kinds))


class _Unannotated(ast.NodeTransformer):
    def visit_arg(self, node):
        node.annotation = None
        return node

    def visit_FunctionDef(self, node):
        node.returns = None
        return self.generic_visit(node)

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_ClassDef(self, node):
        return node  # annotations declare a class's fields

    def visit_AnnAssign(self, node):
        if node.value is None or not isinstance(node.target, ast.Name):
            return node
        return ast.Assign(targets=[node.target], value=node.value)


class _Expressions(ast.NodeTransformer):
    """f-strings become concatenations; chained comparisons and membership in a short tuple are spelled out."""

    def __init__(self):
        self.kinds: list[str] = []

    def visit_JoinedStr(self, node):
        simple = all(
            isinstance(part, ast.Constant) or (part.conversion == -1 and part.format_spec is None)
            for part in node.values
        )
        if not simple or len(node.values) < 2:
            return node
        self.kinds.append("f-string")
        parts = [part if isinstance(part, ast.Constant) else _call("str", part.value) for part in node.values]
        joined = parts[0]
        for part in parts[1:]:
            joined = ast.BinOp(joined, ast.Add(), part)
        return joined

    def visit_Compare(self, node):
        self.generic_visit(node)
        if len(node.ops) == 2 and isinstance(node.comparators[0], ast.Name | ast.Constant):
            self.kinds.append("chained comparison")
            middle, last = node.comparators
            first = ast.Compare(node.left, node.ops[:1], [middle])
            return ast.BoolOp(ast.And(), [first, ast.Compare(copy.deepcopy(middle), node.ops[1:], [last])])
        choices = node.comparators[0]
        chain = (
            len(node.ops) == 1 and isinstance(node.ops[0], ast.In | ast.NotIn) and isinstance(node.left, ast.Name)
            and isinstance(choices, ast.Tuple | ast.List | ast.Set) and 2 <= len(choices.elts) <= 5
            and all(isinstance(one, ast.Constant) and isinstance(one.value, str | int) for one in choices.elts)
        )  # fmt: skip
        if not chain:
            return node
        self.kinds.append("membership")
        compare, join = (ast.Eq, ast.Or) if isinstance(node.ops[0], ast.In) else (ast.NotEq, ast.And)
        return ast.BoolOp(join(), [ast.Compare(node.left, [compare()], [one]) for one in choices.elts])


class _Statements(ast.NodeTransformer):
    """Comprehensions become loops, conditional expressions become if/else, enumerate becomes a counter."""

    def __init__(self, counts: dict[str, int]):
        self.kinds: list[str] = []
        self.counts = counts  # how often each name occurs in the function: a loop must not overwrite another's variable

    def visit_scope(self, node):
        return node

    visit_FunctionDef = visit_AsyncFunctionDef = visit_Lambda = visit_ClassDef = visit_scope

    def visit_Assign(self, node):
        if len(node.targets) != 1 or not isinstance(node.targets[0], ast.Name):
            return node
        target = node.targets[0]
        if isinstance(node.value, ast.IfExp):
            self.kinds.append("conditional expression")
            return _branches(node.value, lambda value: ast.Assign(targets=[copy.deepcopy(target)], value=value))
        loop = self._loop(node.value, target.id)
        return loop if loop and _occurrences(node.value, target.id) == 0 else node

    def visit_Return(self, node):
        if isinstance(node.value, ast.IfExp):
            self.kinds.append("conditional expression")
            return _branches(node.value, ast.Return)
        if search := self._search(node.value):
            return search
        if "result" in self.counts:
            return node
        loop = self._loop(node.value, "result")
        return [*loop, ast.Return(ast.Name("result", ast.Load()))] if loop else node

    def visit_Expr(self, node):
        if not isinstance(node.value, ast.YieldFrom) or "item" in self.counts:
            return node
        self.kinds.append("yield from")
        each = ast.Expr(ast.Yield(ast.Name("item", ast.Load())))
        return ast.For(target=ast.Name("item", ast.Store()), iter=node.value.value, body=[each], orelse=[])

    def visit_For(self, node):
        self.generic_visit(node)
        call, target = node.iter, node.target
        counted = (
            isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "enumerate"
            and len(call.args) == 1 and not call.keywords and not isinstance(call.args[0], ast.Starred)
            and isinstance(target, ast.Tuple) and len(target.elts) == 2 and isinstance(target.elts[0], ast.Name)
        )  # fmt: skip
        if not counted or _occurrences(call.args[0], target.elts[0].id):
            return node
        self.kinds.append("enumerate")
        counter = target.elts[0].id
        start = ast.Assign(targets=[ast.Name(counter, ast.Store())], value=ast.UnaryOp(ast.USub(), ast.Constant(1)))
        step = ast.AugAssign(ast.Name(counter, ast.Store()), ast.Add(), ast.Constant(1))
        return [start, ast.For(target=target.elts[1], iter=call.args[0], body=[step, *node.body], orelse=node.orelse)]

    def _search(self, value) -> list[ast.stmt] | None:
        """Statements equivalent to returning any(...) or all(...) of a generator; None if a variable would clash."""
        called = value.func.id if isinstance(value, ast.Call) and isinstance(value.func, ast.Name) else None
        if called not in ("any", "all") or len(value.args) != 1 or not isinstance(value.args[0], ast.GeneratorExp):
            return None
        generator = value.args[0]
        if self.counts.get(called, 0) > _occurrences(value, called) or self._clashes(generator, ""):
            return None
        self.kinds.append("any or all")
        test = generator.elt if called == "any" else ast.UnaryOp(ast.Not(), generator.elt)
        body = _looped(generator, ast.If(test=test, body=[_returned(called == "any")], orelse=[]))
        return [body, _returned(called != "any")]

    def _clashes(self, value, name: str) -> bool:
        """Whether a comprehension cannot be written as a loop that builds `name`: its variables would leak."""
        bound = {one.id for part in value.generators for one in ast.walk(part.target) if isinstance(one, ast.Name)}
        nested = any(isinstance(one, (*SCOPES, ast.NamedExpr, ast.Await)) for one in ast.walk(value))
        if nested or any(part.is_async for part in value.generators) or name in bound:
            return True
        return any(self.counts[one] > _occurrences(value, one) for one in bound)

    def _loop(self, value, name: str) -> list[ast.stmt] | None:
        """Statements that build a list, set or dict comprehension in `name`; None when a variable would clash."""
        if not isinstance(value, ast.ListComp | ast.SetComp | ast.DictComp) or self._clashes(value, name):
            return None
        self.kinds.append("comprehension")
        target = ast.Name(name, ast.Load())
        if isinstance(value, ast.DictComp):
            empty: ast.expr = ast.Dict([], [])
            body: ast.stmt = ast.Assign(targets=[ast.Subscript(target, value.key, ast.Store())], value=value.value)
        else:
            is_list = isinstance(value, ast.ListComp)
            empty = ast.List([], ast.Load()) if is_list else _call("set")
            method = ast.Attribute(target, "append" if is_list else "add", ast.Load())
            body = ast.Expr(ast.Call(method, [value.elt], []))
        return [ast.Assign(targets=[ast.Name(name, ast.Store())], value=empty), _looped(value, body)]


class _Renamed(ast.NodeTransformer):
    def __init__(self, names: dict[str, str]):
        self.names = names

    def visit_Name(self, node):
        node.id = self.names.get(node.id, node.id)
        return node


def _short_names(function) -> dict[str, str]:
    """An unused single letter for each long local name; none where a nested scope or an import could see it."""
    inner = [node for statement in function.body for node in ast.walk(statement)]
    if any(isinstance(node, (*SCOPES, ast.Global, ast.Nonlocal, ast.Import, ast.ImportFrom)) for node in inner):
        return {}
    calls = {node.func.id for node in inner if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    if calls & {"locals", "eval", "exec", "vars", "globals"}:
        return {}
    taken = {node.id for node in inner if isinstance(node, ast.Name)}
    arguments = {node.arg for node in ast.walk(function.args) if isinstance(node, ast.arg)}
    taken |= arguments | {node.name for node in inner if isinstance(node, ast.ExceptHandler | ast.MatchAs)}
    stored = {node.id for node in inner if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    handled = {node.name for node in inner if isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar)}
    long = sorted(name for name in stored - arguments - handled if len(name) > 2)
    letters = [letter for letter in string.ascii_lowercase if letter not in taken]
    return dict(zip(long, letters, strict=False))


def _name_counts(function) -> dict[str, int]:
    counts: dict[str, int] = {}
    for node in ast.walk(function):
        name = node.id if isinstance(node, ast.Name) else node.arg if isinstance(node, ast.arg) else None
        if name:
            counts[name] = counts.get(name, 0) + 1
    return counts


def _occurrences(node: ast.AST, name: str) -> int:
    return sum(isinstance(one, ast.Name) and one.id == name for one in ast.walk(node))


def _looped(comprehension, body: ast.stmt) -> ast.stmt:
    """A statement nested in the loops and conditions of a comprehension."""
    for part in reversed(comprehension.generators):
        for condition in reversed(part.ifs):
            body = ast.If(test=condition, body=[body], orelse=[])
        body = ast.For(target=part.target, iter=part.iter, body=[body], orelse=[])
    return body


def _returned(value: bool) -> ast.Return:
    return ast.Return(ast.Constant(value))


def _nested(body: list[ast.stmt]) -> list[ast.stmt]:
    """The body with the code after a guard clause moved into its else; unchanged if there is none."""
    for number, statement in enumerate(body[:-1]):
        if isinstance(statement, ast.If) and not statement.orelse and isinstance(statement.body[-1], ast.Return):
            rest = ast.If(test=statement.test, body=statement.body, orelse=_nested(body[number + 1 :]))
            return [*body[:number], rest]
    return body


def _branches(value: ast.IfExp, statement) -> ast.If:
    return ast.If(test=value.test, body=[statement(value.body)], orelse=[statement(value.orelse)])


def _call(name: str, *arguments: ast.expr) -> ast.Call:
    return ast.Call(ast.Name(name, ast.Load()), list(arguments), [])
