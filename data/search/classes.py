"""A class as a search unit: its documentation, its fields and the heads of its methods.

    class Tree(Graph):                   class Tree(Graph):
        # Without cycles.                    # Without cycles.
        root = None              ──►         root = None
        def depth(self, node):               def depth(self, node):
            …

The methods are units of their own.
"""

from __future__ import annotations

import ast
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass

from common.python_syntax import shared_tree
from data.corpus import SourceFile
from data.corpus.languages import grammar_of, tree_of
from data.corpus.script_functions import CLASSES, FUNCTIONS, VALUES


@dataclass(frozen=True)
class FoundClass:
    """A class. Lines count from 1; the last is included."""

    qualname: str
    start: int  # where its text begins: the line of its JSDoc, if it has one
    first: int
    last: int
    bodies: list[range]  # the lines of its methods' bodies


def class_units(file: SourceFile) -> list[dict]:
    """The classes and interfaces of a file in any language, without the bodies of their methods."""
    lines = file.text.split("\n")
    found = _python_classes(file.text) if file.path.endswith(".py") else _script_classes(file)
    units = []
    for one in found:
        hidden = {number for body in one.bodies for number in body}
        code = "\n".join(lines[number - 1] for number in range(one.start, one.last + 1) if number not in hidden)
        source = {"path": file.path, "qualname": one.qualname, "lines": [one.first, one.last]}
        code = textwrap.dedent(code).rstrip()
        units.append({"id": f"{file.path}:{one.first}", "kind": "class", "code": code, "source": source})
    return units


def _python_classes(text: str) -> Iterator[FoundClass]:
    waiting = [(child, "") for child in reversed(shared_tree(text).body)]
    while waiting:
        node, owner = waiting.pop()
        if isinstance(node, ast.ClassDef):
            first = min([node.lineno, *(one.lineno for one in node.decorator_list)])
            methods = [one for one in ast.walk(node) if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)]
            bodies = [
                range(one.body[0].lineno, one.end_lineno + 1) for one in methods if one.body[0].lineno > one.lineno
            ]
            yield FoundClass(owner + node.name, start=first, first=first, last=node.end_lineno, bodies=bodies)
            owner = f"{owner}{node.name}."
        elif not isinstance(node, ast.If | ast.Try | ast.ExceptHandler | ast.With):
            continue
        waiting += [(child, owner) for child in reversed(list(ast.iter_child_nodes(node)))]


def _script_classes(file: SourceFile) -> Iterator[FoundClass]:
    grammar = grammar_of(file.path, ("javascript", "typescript"))
    waiting = [(tree_of(file.text, grammar).root_node, "")]
    while waiting:
        node, owner = waiting.pop()
        if node.type in FUNCTIONS | VALUES:
            continue
        name = node.child_by_field_name("name")
        if node.type in CLASSES | {"interface_declaration"}:
            name = name or node.parent.child_by_field_name("name")  # const Name = class {}
            qualname = owner + (name.text.decode() if name else "default")
            statement = node if node.parent.type != "export_statement" else node.parent
            above = statement.prev_named_sibling
            documented = above is not None and above.text.startswith(b"/**")
            start = (above if documented else statement).start_point[0] + 1
            yield FoundClass(
                qualname, start=start, first=statement.start_point[0] + 1, last=node.end_point[0] + 1,
                bodies=list(_script_bodies(node)),
            )  # fmt: skip
            node, owner = node.child_by_field_name("body"), f"{qualname}."
        elif node.type in ("internal_module", "module") and name:
            owner = f"{owner}{name.text.decode()}."
        waiting += [(child, owner) for child in reversed(node.named_children)]


def _script_bodies(node) -> Iterator[range]:
    """The lines after a method's or function's opening brace, through the closing one."""
    waiting = [node]
    while waiting:
        for child in waiting.pop().named_children:
            body = child.child_by_field_name("body") if child.type in FUNCTIONS | VALUES else None
            if body is not None:
                yield range(body.start_point[0] + 2, body.end_point[0] + 2)
            else:
                waiting.append(child)
