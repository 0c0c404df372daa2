"""A repository as one long text in which a file's imports precede it.

    # pkg/graph.py ⏎ class Graph: … ⏎ # pkg/paths.py ⏎ from .graph import Graph …

Here the files of a row are meant to see each other: each is predicted from those it builds on. A comment with its path
precedes each file. After DeepSeek-Coder (arXiv:2401.14196, section 2.2).

The order is that in which Python finishes loading the files: depth first, in the order of the import statements. So a
file comes after everything it imports, import cycles aside. DeepSeek-Coder's own rule (next is the file with the fewest
imports left) does not guarantee this for a file that merely imports from a cycle.
"""

from __future__ import annotations

import ast

from common.python_syntax import module_name, parse


def repository_text(files: dict[str, str]) -> str:
    """The files ({path: text}) in import order, each below a comment with its path."""
    parts = [f"# {path}\n{files[path]}" for path in import_order(files)]
    return "".join(part if part.endswith("\n") else part + "\n" for part in parts)


def import_order(files: dict[str, str]) -> list[str]:
    """The paths of Python files ({path: text}, the path relative to the import root), imported ones first.

    Depends on paths and texts alone; ties, and where to enter a cycle, are decided by the alphabet.
    """
    # the graph: path -> paths of the files that it imports
    modules = {module_name(path): path for path in sorted(files)}
    imports = {path: imported_files(path, files[path], modules) for path in sorted(files)}

    # depth first, post-order: a file comes after all that it imports
    entered: set[str] = set()
    order: list[str] = []
    for first in imports:
        below = [] if first in entered else [(first, iter(imports[first]))]
        entered.add(first)
        while below:  # an explicit stack: an import chain may exceed Python's recursion limit
            path, rest = below[-1]
            following = next((other for other in rest if other not in entered), None)
            # place this file once all that it imports is placed. A file that was entered before is skipped: either it
            # is placed already, or it is part of a cycle, which is cut here
            if following is None:
                order.append(path)
                below.pop()
            else:
                entered.add(following)
                below.append((following, iter(imports[following])))
    return order


def imported_files(path: str, text: str, modules: dict[str, str]) -> list[str]:
    """The files among `modules` ({dotted name: path}) that a file imports, in the order of its statements.

    A name that is not a module stands for the nearest enclosing one: `from pkg.graph import Graph` for pkg/graph.py.
    Imports inside functions and under `if` count, too; relative ones that climb above the root do not. A file in
    another language has none.
    """
    if not path.endswith(".py"):
        return []
    # the package that relative imports start from
    package = module_name(path).split(".")
    if not path.endswith("__init__.py"):
        package.pop()

    # import statements, wherever they are in the file
    tree = parse(text)
    statements = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]

    # a.b.C: the module a.b.C, else a.b, else a
    found: dict[str, None] = {}
    for statement in sorted(statements, key=lambda node: (node.lineno, node.col_offset)):
        for parts in _imported_names(statement, package):
            above = (".".join(parts[:n]) for n in range(len(parts), 0, -1))
            if nearest := next((name for name in above if name in modules), None):
                found[modules[nearest]] = None
    found.pop(path, None)
    return list(found)


def _imported_names(statement: ast.Import | ast.ImportFrom, package: list[str]) -> list[list[str]]:
    """The absolute names that a statement in a module of `package` imports, split at the dots."""
    if isinstance(statement, ast.Import):
        return [alias.name.split(".") for alias in statement.names]
    # `from ..graph import Graph` within pkg.algorithms.dag: one level up from pkg.algorithms
    stays = len(package) - (statement.level - 1)  # parts of the package that remain after the dots
    if statement.level and stays < 0:
        return []
    base = package[:stays] if statement.level else []
    base = base + (statement.module.split(".") if statement.module else [])
    return [[*base, alias.name] for alias in statement.names]
