"""A class as what is searched: what documents it, its fields and the heads of its methods.

    class Tree(Graph):                   class Tree(Graph):
        # Without cycles.                    # Without cycles.
        root = None              ──►         root = None
        def depth(self, node):               def depth(self, node):
            …

The methods' bodies are units of their own.
"""

from __future__ import annotations

import ast
import textwrap
from collections.abc import Iterator

from data.corpus import SourceFile
from data.script_functions import CLASSES, FUNCTIONS, VALUES
from data.sources.languages import grammar_of, tree_of
from data.syntax import parse

# A class: qualname, the line where its text starts (its JSDoc's), its first line, its last, its methods' bodies.
Found = tuple[str, int, int, int, list[range]]


def class_units(file: SourceFile) -> list[dict]:
    """The classes and interfaces of a file in any language: their lines without the bodies of their methods."""
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
    def below(node: ast.AST, owner: str) -> Iterator[Found]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.ClassDef):
                first = min([child.lineno, *(one.lineno for one in child.decorator_list)])
                methods = [one for one in ast.walk(child) if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)]
                bodies = [
                    range(one.body[0].lineno, one.end_lineno + 1) for one in methods if one.body[0].lineno > one.lineno
                ]
                yield owner + child.name, first, first, child.end_lineno, bodies
                yield from below(child, f"{owner}{child.name}.")
            elif isinstance(child, ast.If | ast.Try | ast.ExceptHandler | ast.With):
                yield from below(child, owner)

    return below(parse(text), "")


def _script_classes(file: SourceFile) -> Iterator[Found]:
    grammar = grammar_of(file.path, ("javascript", "typescript"))

    def below(node, owner: str) -> Iterator[Found]:
        for child in node.named_children:
            if child.type in FUNCTIONS | VALUES:
                continue
            name = child.child_by_field_name("name")
            if child.type in CLASSES | {"interface_declaration"}:
                name = name or child.parent.child_by_field_name("name")  # const Name = class {}
                qualname = owner + (name.text.decode() if name else "default")
                statement = child if child.parent.type != "export_statement" else child.parent
                above = statement.prev_named_sibling
                documented = above is not None and above.text.startswith(b"/**")
                start = (above if documented else statement).start_point[0] + 1
                yield qualname, start, statement.start_point[0] + 1, child.end_point[0] + 1, list(_script_bodies(child))
                yield from below(child.child_by_field_name("body"), f"{qualname}.")
            elif child.type in ("internal_module", "module") and name:
                yield from below(child, f"{owner}{name.text.decode()}.")
            else:
                yield from below(child, owner)

    return below(tree_of(file.text, grammar).root_node, "")


def _script_bodies(node) -> Iterator[range]:
    """The lines below a method's or function's opening brace, with the closing one."""
    for child in node.named_children:
        body = child.child_by_field_name("body") if child.type in FUNCTIONS | VALUES else None
        if body is not None:
            yield range(body.start_point[0] + 2, body.end_point[0] + 2)
        else:
            yield from _script_bodies(child)
