"""A function of JavaScript or TypeScript, split where an answer meets what was given.

export function add(a: number, b = 0) {     header      up to and including the brace
  return a + b;                             body        what stands between the braces
}                                           footer      the brace, and whatever closes a call around it
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from data.corpus.languages import tree_of
from data.corpus.script_functions import FUNCTIONS, VALUES

LANGUAGES = ("javascript", "typescript")


@dataclass(frozen=True)
class Parts:
    """Texts of a function; header + body + footer is its code. The nodes are tree-sitter's."""

    code: str
    name: str  # that the code binds it to: of a declaration, variable or assignment; "default" if it has none
    header: str
    body: str
    footer: str
    arguments: tuple[str, ...]  # names in order; of a destructured one none
    block: Any  # the node of the body, braces included
    root: Any

    @property
    def returns(self) -> bool:
        """Whether it gives a value back."""
        return any(node.type == "return_statement" and node.named_children for node in own_nodes(self.block))


def is_script(pair: dict) -> bool:
    """Whether a pair, by its check, is about a function in one of LANGUAGES."""
    return pair.get("check", {}).get("language") in LANGUAGES


def parts_of(code: str, language: str) -> Parts | None:
    """The parts of the first function with a block in a code; None if it has none, or does not parse."""
    root = tree_of(code, language).root_node
    function = next((node for node in _nodes(root) if _has_block(node)), None)
    if root.has_error or function is None:
        return None
    block = function.child_by_field_name("body")
    data = code.encode()
    return Parts(
        code=code,
        name=_bound_name(function),
        header=data[: block.start_byte + 1].decode(),
        body=data[block.start_byte + 1 : block.end_byte - 1].decode(),
        footer=data[block.end_byte - 1 :].decode(),
        arguments=tuple(_arguments(function)),
        block=block,
        root=root,
    )


def _has_block(node) -> bool:
    body = node.child_by_field_name("body") if node.type in FUNCTIONS | VALUES else None
    return body is not None and body.type == "statement_block"


def _nodes(node) -> Iterator:
    """A node and all below it, in the order of the text."""
    yield node
    for child in node.children:
        yield from _nodes(child)


def own_nodes(block) -> Iterator:
    """The nodes of a function's body without those of functions and classes inside it."""
    for child in block.children:
        if child.type not in FUNCTIONS | VALUES | {"class_declaration", "class"}:
            yield child
            yield from own_nodes(child)


def _bound_name(function) -> str:
    """The name of the statement's variable, assignment or declaration that holds the function."""
    node, names = function, []
    while node is not None:
        name = node.child_by_field_name("name" if node.type != "assignment_expression" else "left")
        if name is not None and node.type in FUNCTIONS | VALUES | {"variable_declarator", "assignment_expression"}:
            names.append(name.text.decode().removeprefix("module.").removeprefix("exports."))
        node = node.parent
    return names[-1] if names else "default"


def _arguments(function) -> Iterator[str]:
    single = function.child_by_field_name("parameter")  # of an arrow function: x => {}
    listed = function.child_by_field_name("parameters")
    for parameter in [single] if single is not None else listed.named_children if listed is not None else []:
        while parameter.type not in ("identifier", "object_pattern", "array_pattern") and parameter.named_children:
            parameter = parameter.named_children[0]  # a default, a type or three dots around the name
        if parameter.type == "identifier" and parameter.text != b"this":
            yield parameter.text.decode()
