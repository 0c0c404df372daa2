"""Mutants of a function in JavaScript or TypeScript: one bug each, an edit of one line found on its syntax tree.

| kind | bug | kind | bug |
|---|---|---|---|
| comparison | `<` as `>`, `===` as `!==` | condition | inverted |
| boundary | `<` as `<=` | return | null returned |
| boolean | `&&` as `\\|\\|`, `!` omitted | assignment | `+=` as `-=` |
| arithmetic | `+` as `-`, `++` as `--` | variable | another parameter |
| constant | number one off, truth value flipped | arguments | neighbours exchanged |
| loop | break as continue | | |

The operators of data/checks/mutate.py that do not depend on Python, without those for whole lines.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from data.checks.edits import Edit
from data.checks.mutate import Mutant, applied
from data.checks.script.parts import Parts, own_nodes, parts_of

COMPARISON = {"<": ">", ">": "<", "<=": ">=", ">=": "<=", "===": "!==", "!==": "===", "==": "!=", "!=": "=="}
BOUNDARY = {"<": "<=", "<=": "<", ">": ">=", ">=": ">"}
BOOLEAN = {"&&": "||", "||": "&&"}
ARITHMETIC = {"+": "-", "-": "+", "*": "/", "/": "*", "%": "*", "**": "*"}
ASSIGNMENT = {"+=": "-=", "-=": "+=", "*=": "/=", "/=": "*="}
TEXTS = ("string", "template_string")
TYPES = ("type_annotation", "type_arguments", "type_parameters", "literal_type")
BINARY = (("comparison", COMPARISON), ("boundary", BOUNDARY), ("boolean", BOOLEAN), ("arithmetic", ARITHMETIC))


def script_mutants(code: str, language: str) -> list[Mutant]:
    """Every mutant of a function's code, in the order of the text. Each parses, and differs in one line of its body.

    None for a code without a function that parses.
    """
    parts = parts_of(code, language)
    if parts is None:
        return []
    found: dict[str, Mutant] = {}
    for edit in sorted(_edits(parts)):
        mutant = applied(code.encode(), edit)
        if mutant.source not in found and mutant.source != code and parts_of(mutant.source, language):
            found[mutant.source] = mutant
    return list(found.values())


def _edits(parts: Parts) -> Iterator[Edit]:
    live = [node for node in own_nodes(parts.block) if not _is_type(node)]
    for node in live:
        if node.start_point[0] == node.end_point[0]:
            yield from _edits_of(node, parts)
    yield from _wrong_variables(live, parts)


def _is_type(node) -> bool:
    """Whether a node is part of a type, which does nothing when the code runs."""
    while node is not None and node.type not in TYPES:
        node = node.parent
    return node is not None


def _edits_of(node, parts: Parts) -> Iterator[Edit]:
    """The edits of one node: of its operator, its value, or its place."""
    operator = node.child_by_field_name("operator")
    if node.type == "binary_expression":
        is_text = any(child.type in TEXTS for child in node.named_children)
        for kind, others in BINARY:
            sign = operator.text.decode()
            if sign in others and not (kind == "arithmetic" and is_text):
                yield _replaced(kind, operator, others[sign])
    elif node.type == "augmented_assignment_expression" and operator.text.decode() in ASSIGNMENT:
        yield _replaced("assignment", operator, ASSIGNMENT[operator.text.decode()])
    elif node.type == "update_expression":
        yield _replaced("arithmetic", operator, "--" if operator.text == b"++" else "++")
    elif node.type == "unary_expression" and operator.text == b"!":
        yield _replaced("boolean", node, node.child_by_field_name("argument").text.decode())
    elif node.type == "number" and node.text.isdigit():
        yield _replaced("constant", node, str(int(node.text) + 1))
    elif node.type in ("true", "false"):
        yield _replaced("constant", node, "false" if node.type == "true" else "true")
    elif node.type == "if_statement":
        condition = node.child_by_field_name("condition")
        yield _replaced("condition", condition, f"(!{condition.text.decode()})")
    elif node.type == "return_statement" and node.named_children and node.named_children[0].type != "null":
        yield _replaced("return", node.named_children[0], "null")
    elif node.type == "break_statement" and node.text.rstrip(b";") == b"break":
        yield _replaced("loop", node, "continue;")
    elif node.type == "arguments":
        yield from _exchanged(node)


def _replaced(kind: str, node, text: str) -> Edit:
    return Edit(node.start_byte, node.end_byte, kind, text)


def _exchanged(arguments) -> Iterator[Edit]:
    given = [one for one in arguments.named_children if one.type != "comment"]
    for first, second in itertools.pairwise(given):
        if first.text != second.text and "spread_element" not in (first.type, second.type):
            between = arguments.text[first.end_byte - arguments.start_byte : second.start_byte - arguments.start_byte]
            text = second.text + between + first.text
            yield Edit(first.start_byte, second.end_byte, "arguments", text.decode())


def _wrong_variables(live: list, parts: Parts) -> Iterator[Edit]:
    """Each use of a parameter as the next parameter; what is assigned to stays."""
    for node in live:
        name = node.text.decode() if node.type == "identifier" else ""
        if name in parts.arguments and len(parts.arguments) > 1 and not _is_target(node):
            other = parts.arguments[(parts.arguments.index(name) + 1) % len(parts.arguments)]
            yield _replaced("variable", node, other)


def _is_target(node) -> bool:
    parent = node.parent
    return parent.type in ("assignment_expression", "augmented_assignment_expression", "variable_declarator") and (
        node in (parent.child_by_field_name("left"), parent.child_by_field_name("name"))
    )
