"""Renames the identifiers that code defines, so that search finds it by what it does, not by its words.

    def count_edges(graph, kind=None):        ->     def func_1(arg_1, arg_2=None):
        edges = list(graph.edges)             ->         var_1 = list(arg_1.edges)
        return len(edges)                     ->         return len(var_1)

After AdvTest of CodeXGLUE (arXiv:2102.04664), which renames functions and variables of its test codes. Builtins,
imports and attributes stay, as they mean something outside; strings stay too. Comments go with the layout.
"""

from __future__ import annotations

import ast
import builtins
import itertools
from collections.abc import Collection

from common.python_syntax import parse

KEPT = frozenset(dir(builtins)) | {"self", "cls", "_"}
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
CAPTURES = {ast.ExceptHandler: "name", ast.MatchAs: "name", ast.MatchStar: "name", ast.MatchMapping: "rest"}


def rename_identifiers(code: str, *, defined: Collection[str] = (), imported: Collection[str] = ()) -> str:
    """The same code with the names that it binds replaced by func_1, class_1, arg_1, var_1, each the same everywhere.

    defined   names that the rest of the file defines; those used here become name_1, name_2
    imported  names that the file imports; they stay, also where the code binds them anew
    What the code does stays the same, unless it looks its own names up (`locals`, `eval`): fields and methods of its
    classes keep their names, and keywords in calls of its functions follow the parameters. Raises SyntaxError for code
    that does not parse.
    """
    tree = parse(code)
    names = _Names()
    names.visit(tree)
    bound = {name: kind for name, kind in names.bound.items() if name not in names.fields}
    for name in names.used:
        if name in defined and name not in names.fields:
            bound.setdefault(name, "name")
    # A function that calls itself by an attribute (self.walk, nx.diameter) keeps its name.
    stays = KEPT | set(imported) | names.imported | names.attributes_of(bound)
    renamed: dict[str, str] = {}
    taken = {*stays, *names.used, *names.fields, *names.bound}
    for name, kind in bound.items():
        if name in stays or name.startswith("__"):
            continue
        renamed[name] = next(new for n in itertools.count(1) if (new := f"{kind}_{n}") not in taken)
        taken.add(renamed[name])
    return ast.unparse(_Renamed(renamed, names.parameters).visit(tree))


def names_of_file(text: str) -> tuple[set[str], set[str]]:
    """(defined, imported): names that the top level of a file binds itself, and those imported anywhere in it."""
    tree = parse(text)
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    imported = {_bound_name(alias) for node in imports for alias in node.names}
    defined = set()
    for node in tree.body:
        if isinstance(node, (*FUNCTIONS, ast.ClassDef)):
            defined.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign):
            defined |= {
                one.id for one in ast.walk(node) if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Store)
            }
    return defined - imported, imported


def _bound_name(alias: ast.alias) -> str:
    return alias.asname or alias.name.split(".")[0]


class _Names(ast.NodeVisitor):
    """The names that code binds, uses and imports; its classes' fields, with their methods' parameters; attributes."""

    def __init__(self) -> None:
        self.bound: dict[str, str] = {}  # name -> kind, in the order of the text
        self.used: dict[str, None] = {}  # in the order of the text
        self.fields: set[str] = set()
        self.imported: set[str] = set()
        self.attributes: set[str] = set()
        self.parameters: dict[str, set[str]] = {}  # of each function
        self.in_class = False

    def attributes_of(self, bound: dict[str, str]) -> set[str]:
        """Names of functions that also occur after a dot."""
        return {name for name, kind in bound.items() if kind == "func" and name in self.attributes}

    def _bind(self, name: str, kind: str) -> None:
        if self.in_class:
            self.fields.add(name)
        else:
            self.bound.setdefault(name, kind)

    def _visit_function(self, node) -> None:
        self._bind(node.name, "func")
        given = [one.arg for one in ast.walk(node.args) if isinstance(one, ast.arg)]
        self.parameters.setdefault(node.name, set()).update(given)
        self.visit(node.args)  # a method's parameters may be keywords after a dot: they keep their names as fields do
        outer, self.in_class = self.in_class, False
        for part in [*node.decorator_list, *node.body, *([node.returns] if node.returns else [])]:
            self.visit(part)
        self.in_class = outer

    visit_FunctionDef = visit_AsyncFunctionDef = _visit_function

    def visit_Lambda(self, node) -> None:
        outer, self.in_class = self.in_class, False
        self.generic_visit(node)
        self.in_class = outer

    def visit_ClassDef(self, node) -> None:
        self._bind(node.name, "class")
        for part in [*node.bases, *node.keywords, *node.decorator_list]:
            self.visit(part)
        outer, self.in_class = self.in_class, True
        for part in node.body:
            self.visit(part)
        self.in_class = outer

    def visit_arg(self, node) -> None:
        self._bind(node.arg, "arg")
        self.generic_visit(node)

    def visit_Name(self, node) -> None:
        self.used[node.id] = None
        if not isinstance(node.ctx, ast.Load):
            self._bind(node.id, "var")

    def visit_Attribute(self, node) -> None:
        self.attributes.add(node.attr)
        self.generic_visit(node)

    def visit_alias(self, node) -> None:
        self.imported.add(_bound_name(node))

    def generic_visit(self, node) -> None:
        if (field := CAPTURES.get(type(node))) and getattr(node, field):
            self._bind(getattr(node, field), "var")
        super().generic_visit(node)


class _Renamed(ast.NodeTransformer):
    def __init__(self, renamed: dict[str, str], parameters: dict[str, set[str]]) -> None:
        self.renamed = renamed
        self.parameters = parameters

    def _new(self, name: str) -> str:
        return self.renamed.get(name, name)

    def visit(self, node):
        """Names of every kind of node, then what is below it."""
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            taken = self.parameters.get(node.func.id, ())
            for keyword in node.keywords:
                if keyword.arg in taken:
                    keyword.arg = self._new(keyword.arg)
        if isinstance(node, ast.Name):
            node.id = self._new(node.id)
        elif isinstance(node, ast.arg):
            node.arg = self._new(node.arg)
        elif isinstance(node, (*FUNCTIONS, ast.ClassDef)):
            node.name = self._new(node.name)
        elif isinstance(node, ast.Global | ast.Nonlocal):
            node.names = [self._new(name) for name in node.names]
        elif (field := CAPTURES.get(type(node))) and getattr(node, field):
            setattr(node, field, self._new(getattr(node, field)))
        return self.generic_visit(node)
