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

from common.python_syntax import parse
from data.corpus import SourceFile
from data.corpus.languages import grammar_of, tree_of
from data.corpus.script_functions import CLASSES, FUNCTIONS, VALUES

# A class: qualname, the line where its text starts (its JSDoc's), its first line, its last, its methods' bodies.
Found = tuple[str, int, int, int, list[range]]


def class_units(file: SourceFile) -> list[dict]:
    """The classes and interfaces of a file in any language, without the bodies of their methods."""
    lines = file.text.split("\n")
    found = _python_classes(file.text) if file.path.endswith(".py") else _script_classes(file)
    units = []
    for qualname, start, first, last, bodies in found:
        inside = {number for body in bodies for number in body}
        code = "\n".join(lines[number - 1] for number in range(start, last + 1) if number not in inside)
        source = {"path": file.path, "qualname": qualname, "lines": [first, last]}
        code = textwrap.dedent(code).rstrip()
        units.append({"id": f"{file.path}:{first}", "kind": "class", "code": code, "source": source})
    return units


def _python_classes(text: str) -> Iterator[Found]:
    waiting = [(child, "") for child in reversed(parse(text).body)]
    while waiting:
        node, owner = waiting.pop()
        if isinstance(node, ast.ClassDef):
            first = min([node.lineno, *(one.lineno for one in node.decorator_list)])
            methods = [one for one in ast.walk(node) if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)]
            bodies = [
                range(one.body[0].lineno, one.end_lineno + 1) for one in methods if one.body[0].lineno > one.lineno
            ]
            yield owner + node.name, first, first, node.end_lineno, bodies
            owner = f"{owner}{node.name}."
        elif not isinstance(node, ast.If | ast.Try | ast.ExceptHandler | ast.With):
            continue
        waiting += [(child, owner) for child in reversed(list(ast.iter_child_nodes(node)))]


def _script_classes(file: SourceFile) -> Iterator[Found]:
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
            yield qualname, start, statement.start_point[0] + 1, node.end_point[0] + 1, list(_script_bodies(node))
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
