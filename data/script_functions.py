"""The functions of a JavaScript or TypeScript file, with what their JSDoc says of them.

    /** Adds two numbers. @param a … */           docstring       "Adds two numbers."
    export function add(a: number, b: number) {   qualname        "add"
      return a + b;                               code_without_docstring   from `export` to the last brace
    }

Functions, methods, and functions that get a name where they are bound: const f = () => {}, exports.f = function () {}.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass

from data.corpus import SourceFile
from data.sources.languages import grammar_of, tree_of
from model.fences import without_blocks

FUNCTIONS = frozenset({"function_declaration", "generator_function_declaration", "method_definition"})
SIGNATURES = frozenset({"function_signature", "method_signature"})  # of TypeScript: an overload, without a body
CLASSES = frozenset({"class_declaration", "abstract_class_declaration", "class"})
FIELDS = frozenset({"public_field_definition", "field_definition"})
VALUES = frozenset({"arrow_function", "function_expression", "generator_function"})  # what a name may be bound to
LINK = re.compile(r"\{@\w+\s+(?:[^\s|}]*[\s|]+)?([^}]*)\}")  # {@link place text}: the text, else the place
MARKUP = re.compile(r"!\[[^\]]*\]\([^)]*\)|</?(?:span|b|i|em|strong|code|p|br)\b[^>]*>")
MARKDOWN_LINK = re.compile(r"\[([^\]]*)\]\([^)]*\)")


@dataclass(frozen=True, eq=False)
class ScriptFunction:
    """A function or method, with the fields that data.functions.Function has of the same names."""

    path: str
    qualname: str  # "add", "Box.get"
    name: str
    first_line: int  # in the file, from 1, its JSDoc not included
    last_line: int  # included
    source: str  # JSDoc and code, dedented
    code_without_docstring: str
    docstring: str | None  # the JSDoc's description, without its tags
    license: str | None
    commit: str | None
    split: str

    @property
    def code_lines(self) -> int:
        """Lines of the code."""
        return self.code_without_docstring.count("\n") + 1


def script_functions_of(file: SourceFile, *, min_lines: int = 5, max_lines: int = 60) -> list[ScriptFunction]:
    """Functions of the module, its namespaces and classes whose code, JSDoc not counted, has min_lines to max_lines.

    Functions inside functions belong to the outer one; TypeScript's overloads without a body are no functions, but a
    function that says nothing itself is described by its first overload that does. A file in another language gives
    none.
    """
    grammar = grammar_of(file.path, ("javascript", "typescript"))
    if grammar is None:
        return []
    data = file.text.encode()
    found = [_function(file, data, *one) for one in _definitions(tree_of(file.text, grammar).root_node, "", {})]
    return [function for function in found if min_lines <= function.code_lines <= max_lines]


def _definitions(block, owner: str, overloads: dict[str, object]) -> Iterator[tuple]:
    """(node from where its text begins, qualname, JSDoc's node or None) of each definition in a block or class body.

    overloads: qualname -> the first JSDoc of the overloads that went before; filled as we go.
    """
    for statement in block.named_children:
        comment = _jsdoc_above(statement)
        node = statement
        if node.type == "export_statement":
            node = node.child_by_field_name("declaration") or node.child_by_field_name("value") or node
        if node.type == "expression_statement":  # namespace N {}, and what is assigned
            node = node.named_children[0]
        if node.type in ("internal_module", "module") and (body := node.child_by_field_name("body")):
            yield from _definitions(body, f"{owner}{_name(node)}.", {})
        for name, value in _named(node):
            qualname = owner + name
            if value.type in CLASSES:
                yield from _definitions(value.child_by_field_name("body"), f"{qualname}.", {})
            elif value.type in SIGNATURES:
                if comment is not None:
                    overloads.setdefault(qualname, comment)
            else:
                yield statement, qualname, comment or overloads.get(qualname)


def _named(node) -> Iterator[tuple[str, object]]:
    """(name, function or class or signature) of what a statement or a member of a class defines."""
    if node.type in FUNCTIONS | CLASSES | SIGNATURES:
        if name := _name(node):  # `export default function () {}` has none
            yield name, node
    elif node.type in FIELDS:
        value = node.child_by_field_name("value")
        if value is not None and value.type in VALUES:
            yield _text(node.child_by_field_name("name") or node.child_by_field_name("property")), value
    elif node.type in ("lexical_declaration", "variable_declaration"):
        bound = [one for one in node.named_children if one.type == "variable_declarator"]
        value = bound[0].child_by_field_name("value") if len(bound) == 1 else None  # of several none has its own text
        if value is not None and value.type in VALUES | CLASSES:
            yield _name(bound[0]), value
    elif node.type == "assignment_expression":
        value = node.child_by_field_name("right")
        if value.type in VALUES | CLASSES:
            target = _text(node.child_by_field_name("left"))
            name = re.sub(r"^(module\.)?exports\.|\.prototype\b", "", target)
            if re.fullmatch(r"[\w$.]+", name):
                yield name, value


def _function(file: SourceFile, data: bytes, node, qualname: str, comment) -> ScriptFunction:
    start = data.rfind(b"\n", 0, node.start_byte) + 1
    indent = data[start : node.start_byte]
    start = start if not indent.strip() else node.start_byte
    code = textwrap.dedent(data[start : node.end_byte].decode())
    jsdoc = textwrap.dedent(" " * comment.start_point[1] + _text(comment)) if comment is not None else None
    return ScriptFunction(
        path=file.path,
        qualname=qualname,
        name=qualname.rpartition(".")[2],
        first_line=node.start_point[0] + 1,
        last_line=node.end_point[0] + 1,
        source=f"{jsdoc}\n{code}" if jsdoc else code,
        code_without_docstring=code,
        docstring=_description(jsdoc) if jsdoc else None,
        license=file.license,
        commit=file.commit,
        split=file.split,
    )


def _jsdoc_above(node):
    """The JSDoc with a description that ends on the line above a node or on its own; decorators may stand between."""
    above = node.prev_named_sibling
    while above is not None and above.type == "decorator":
        node, above = above, above.prev_named_sibling
    if above is None or above.type != "comment" or not above.text.startswith(b"/**"):
        return None
    near = node.start_point[0] - above.end_point[0] <= 1
    return above if near and _description(_text(above)) else None


def _description(jsdoc: str) -> str | None:
    """What a JSDoc says before its first tag, as Markdown without links, pictures and code blocks."""
    lines = [re.sub(r"^\s*\*? ?", "", line) for line in jsdoc.removeprefix("/**").removesuffix("*/").split("\n")]
    said = []
    for line in lines:
        if re.match(r"\s*@(?!description\b)\w", line):
            break
        said.append(re.sub(r"^\s*@description\s*", "", line).rstrip())
    text = without_blocks("\n".join(said))
    text = MARKDOWN_LINK.sub(r"\1", MARKUP.sub("", LINK.sub(r"\1", text)))
    return text.strip() or None


def _name(node) -> str:
    name = node.child_by_field_name("name")
    return _text(name) if name is not None else ""


def _text(node) -> str:
    return node.text.decode()
