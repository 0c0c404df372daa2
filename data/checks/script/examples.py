"""The examples in a JSDoc comment that can be run: calls with literals, and the literal that each gives.

_.chunk(['a', 'b', 'c'], 2)          {"arguments": "[['a', 'b', 'c'], 2]", "want": "[['a', 'b'], ['c']]"}
// => [['a', 'b'], ['c']]

R.add(2, 3);       //=>  5           the same on one line
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from data.corpus.languages import tree_of

MOST_CALLS = 12
_RESULT = re.compile(r"//\s*(?:=>|->|→)\s*(.+)$")
_COMMENT_LINE = re.compile(r"^\s*\*? ?")
_CONSTANTS = {"true": True, "false": False, "null": None, "undefined": None}
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "0": "\0", "b": "\b", "f": "\f", "v": "\v"}


class NotLiteral(ValueError):
    """The node is no literal that crosses into Python unchanged."""


def calls_of_examples(jsdoc: str, name: str) -> list[dict]:
    """The calls of `name` in a JSDoc comment, bare or of a namespace (`R.add`): {"arguments", "want", "raises": None}.

    Both are Python literals, as text: what is neither null, undefined, a truth value, a number, a text nor an array or
    object of these is no example here.
    """
    text = "\n".join(_COMMENT_LINE.sub("", line) for line in jsdoc.removeprefix("/**").removesuffix("*/").split("\n"))
    found = []
    for call, result in _commented_calls(text):
        try:
            arguments, want = called_with(call, name), value_of(_expression(result))
        except NotLiteral:
            continue
        found.append({"arguments": repr(arguments), "want": f"{want!r}\n", "raises": None})
    return found[:MOST_CALLS]


def _commented_calls(text: str) -> Iterator[tuple[str, str]]:
    """(expression, result) of each `expression // => result`, the comment on its line or the next one."""
    lines = text.split("\n")
    for number, line in enumerate(lines):
        if not (result := _RESULT.search(line)):
            continue
        before = line[: result.start()].strip()
        if not before and number:
            before = lines[number - 1].strip()
        if before and not before.startswith("//"):
            yield re.sub(r"^(?:const|let|var)\s+\w+\s*=\s*", "", before).rstrip("; "), result[1].strip().rstrip(";")


def _expression(text: str):
    """tree-sitter's node of a text that is one expression."""
    root = tree_of(f"({text})", "javascript").root_node
    statements = root.named_children
    if root.has_error or len(statements) != 1 or statements[0].type != "expression_statement":
        raise NotLiteral(text)
    return statements[0].named_children[0].named_children[0]


def called_with(text: str, name: str) -> list:
    """The arguments of a call of `name`, bare or of a namespace of one letter or sign (`R.add`, `_.chunk`)."""
    call = _expression(text)
    if call.type != "call_expression" or call.child_by_field_name("arguments").type != "arguments":
        raise NotLiteral(text)
    called = call.child_by_field_name("function").text.decode()
    if called != name and not re.fullmatch(rf"[\w$]+\.{re.escape(name)}", called):
        raise NotLiteral(text)
    given = call.child_by_field_name("arguments").named_children
    if any(_holds_null(one) for one in given):  # None crosses as undefined, which the function may tell from null
        raise NotLiteral(text)
    return [value_of(one) for one in given]


def _holds_null(node) -> bool:
    return node.type == "null" or any(map(_holds_null, node.children))


def value_of(node):
    """The Python value of a literal of JavaScript. Raises NotLiteral for anything else."""
    text = node.text.decode()
    if node.type in ("true", "false", "null", "undefined") or text == "undefined":
        return _CONSTANTS[text]
    if node.type == "number":
        return _number(text)
    if node.type == "unary_expression" and text.startswith("-") and node.named_children[0].type == "number":
        value = _number(text[1:].strip())
        if value == 0:  # JavaScript tells -0 from 0, and JSON does not
            raise NotLiteral(text)
        return -value
    if node.type == "string":
        return "".join(_piece(child) for child in node.named_children)
    if node.type == "array":
        return [value_of(one) for one in node.named_children]
    if node.type == "object":
        return dict(map(_entry, node.named_children))
    if node.type == "parenthesized_expression" and len(node.named_children) == 1:
        return value_of(node.named_children[0])
    raise NotLiteral(text)


def _number(text: str) -> int | float:
    try:
        value = ast.literal_eval(text.replace("n", ""))
    except (ValueError, SyntaxError):
        raise NotLiteral(text) from None
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 1 << 53 else value


def _piece(node) -> str:
    """A piece of a string: plain, or one escape."""
    text = node.text.decode()
    if node.type != "escape_sequence":
        return text
    if text[1] in "ux":
        return chr(int(text[2:].strip("{}"), 16))
    return _ESCAPES.get(text[1], text[1])


def _entry(node) -> tuple[str, object]:
    if node.type != "pair":
        raise NotLiteral(node.text.decode())
    key = node.child_by_field_name("key")
    name = value_of(key) if key.type in ("string", "number") else key.text.decode()
    if key.type == "computed_property_name":
        raise NotLiteral(node.text.decode())
    return str(name), value_of(node.child_by_field_name("value"))
