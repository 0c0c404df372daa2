"""A repository as one long text, in which what a file imports stands before it.

    # pkg/graph.py ⏎ class Graph: … ⏎ # pkg/paths.py ⏎ from .graph import Graph …

Here the files of a row are meant to see each other: each is predicted from those that it builds upon. The path stands
as a comment above its file. After DeepSeek-Coder (arXiv:2401.14196, section 2.2).

The order is the one in which Python finishes loading the files: depth first, through the import statements as they
stand. So a file comes after all that it imports, unless the two import each other in a circle. DeepSeek-Coder's own
rule, always the file with the fewest imports left, does not promise that to a file that merely imports from a circle.
"""

from __future__ import annotations

import ast

from common.python_syntax import module_name, parse


def repository_text(files: dict[str, str]) -> str:
    """The files ({path: text}) in the order of their imports, each below a comment with its path."""
    parts = [f"# {path}\n{files[path]}" for path in import_order(files)]
    return "".join(part if part.endswith("\n") else part + "\n" for part in parts)


def import_order(files: dict[str, str]) -> list[str]:
    """The paths of Python files ({path: text}, the path relative to the import root), imported ones first.

    Depends on paths and texts alone; where nothing else decides, and where a circle is entered, the first path does.
    """
    modules = {module_name(path): path for path in sorted(files)}
    imports = {path: imported_files(path, files[path], modules) for path in sorted(files)}
    entered: set[str] = set()
    order: list[str] = []
    for first in imports:
        below = [] if first in entered else [(first, iter(imports[first]))]
        entered.add(first)
        while below:  # a stack of its own: a chain of imports may be longer than Python's
            path, rest = below[-1]
            following = next((other for other in rest if other not in entered), None)
            if following is None:
                order.append(path)
                below.pop()
            else:
                entered.add(following)
                below.append((following, iter(imports[following])))
    return order


def imported_files(path: str, text: str, modules: dict[str, str]) -> list[str]:
    """The files among `modules` ({dotted name: path}) that a file imports, in the order of its statements.

    A name that is no module there stands for the nearest package above it that is: `from pkg.graph import Graph` for
    pkg/graph.py. Imports inside functions and under `if` count too; one that climbs above the root does not. Of a file
    in another language than Python none is known.
    """
    if not path.endswith(".py"):
        return []
    package = module_name(path).split(".")
    if not path.endswith("__init__.py"):
        package.pop()
    tree = parse(text)
    statements = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    found: dict[str, None] = {}
    for statement in sorted(statements, key=lambda node: (node.lineno, node.col_offset)):
        for parts in _imported_names(statement, package):
            above = (".".join(parts[:n]) for n in range(len(parts), 0, -1))
            if nearest := next((name for name in above if name in modules), None):
                found[modules[nearest]] = None
    found.pop(path, None)
    return list(found)


def _imported_names(statement: ast.Import | ast.ImportFrom, package: list[str]) -> list[list[str]]:
    """The absolute dotted names that a statement in a module of `package` imports, taken apart."""
    if isinstance(statement, ast.Import):
        return [alias.name.split(".") for alias in statement.names]
    stays = len(package) - (statement.level - 1)  # parts of the package that the dots leave
    if statement.level and stays < 0:
        return []
    base = package[:stays] if statement.level else []
    base = base + (statement.module.split(".") if statement.module else [])
    return [[*base, alias.name] for alias in statement.names]
