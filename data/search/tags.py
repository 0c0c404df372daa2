"""Definitions by tree-sitter's own query language, a few lines a language: Kotlin, Swift, Scala, Elixir, Bash, Lua,
Haskell, Zig.

    (function_declaration name: (_) @name (function_body) @body) @function

A match is a function or a class (or a scope, which only names what is inside), with its name and where its body begins.
What lies inside a function belongs to it. Such queries are the usual way to tag code (tree-sitter's tags.scm).
"""

from __future__ import annotations

import functools
import importlib
from dataclasses import dataclass
from typing import Any

from data.corpus.languages import parser_of

KINDS = ("function", "class", "scope")
ELIXIR = """
(call target: (identifier) @word (arguments . [(alias) @name (call target: (identifier) @name) (identifier) @name
    (binary_operator left: [(call target: (identifier) @name) (identifier) @name])]) (do_block)? @body
    (#any-of? @word {words})) @{kind}
"""
QUERIES = {
    "kotlin": """
        (function_declaration name: (_) @name (function_body) @body) @function
        (secondary_constructor "constructor" @name (block) @body) @function
        (class_declaration name: (_) @name [(class_body) (enum_class_body)]? @body) @class
        (object_declaration name: (_) @name (class_body)? @body) @class
        (companion_object "companion" @name (class_body) @body) @scope
    """,
    "swift": """
        (function_declaration name: (simple_identifier) @name body: (_) @body) @function
        (init_declaration "init" @name body: (_) @body) @function
        (deinit_declaration "deinit" @name body: (_) @body) @function
        (subscript_declaration "subscript" @name (computed_property) @body) @function
        (class_declaration name: (_) @name body: (_) @body) @class
        (protocol_declaration name: (_) @name body: (_) @body) @class
    """,
    "scala": """
        (function_definition name: (_) @name body: (_) @body) @function
        (class_definition name: (_) @name body: (_)? @body) @class
        (object_definition name: (_) @name body: (_)? @body) @class
        (trait_definition name: (_) @name body: (_)? @body) @class
        (enum_definition name: (_) @name body: (_) @body) @class
        (given_definition name: (_) @name body: (_) @body) @class
    """,
    "elixir": ELIXIR.format(words='"def" "defp" "defmacro" "defmacrop" "defguard" "defdelegate"', kind="function")
    + ELIXIR.format(words='"defmodule" "defprotocol" "defimpl"', kind="class"),
    "bash": "(function_definition name: (_) @name body: (_) @body) @function",
    "lua": """
        (function_declaration name: (_) @name body: (_) @body) @function
        (assignment_statement (variable_list . name: (_) @name .)
            (expression_list . value: (function_definition body: (_) @body) .)) @function
        (field name: (_) @name value: (function_definition body: (_) @body)) @function
    """,
    "haskell": """
        (function name: (_) @name match: (_) @body) @function
        (bind name: (_) @name match: (_) @body) @function
        (data_type name: (_) @name) @class
        (newtype name: (_) @name) @class
        (class name: (_) @name declarations: (_)? @body) @class
        (instance name: (_) @name declarations: (_) @body) @scope
    """,
    "zig": """
        (function_declaration name: (_) @name body: (_) @body) @function
        (function_declaration name: (_) @name type: (builtin_type) @type body: (_) @body (#eq? @type "type")) @class
        (variable_declaration . (identifier) @name
            [(struct_declaration) (enum_declaration) (union_declaration) (opaque_declaration)] @body) @class
    """,
}


@dataclass(frozen=True)
class Tag:
    """A function, class or scope: tree-sitter's nodes of the whole, of its name, and of its body if that has an own."""

    kind: str
    node: Any
    name: Any
    body: Any


def tags_of(root, language: str) -> list[Tag]:
    """The tags of a tree in a language of QUERIES, in the order of the text. Of a node with several, the last one's."""
    cursor = importlib.import_module("tree_sitter").QueryCursor(_query(language))
    found: dict[int, tuple[int, Tag]] = {}  # where a node begins -> its pattern's number, and the tag
    for pattern, captures in cursor.matches(root):
        ((kind, (node,)),) = [(name, nodes) for name, nodes in captures.items() if name in KINDS]
        tag = Tag(kind, node, captures["name"][0], captures.get("body", [None])[0])
        before = found.get(node.start_byte)
        if before is None or (pattern, tag.body is not None) >= (before[0], before[1].body is not None):
            found[node.start_byte] = pattern, tag
    return [found[start][1] for start in sorted(found)]


@functools.cache
def _query(language: str):
    return importlib.import_module("tree_sitter").Query(parser_of(language).language, QUERIES[language])
