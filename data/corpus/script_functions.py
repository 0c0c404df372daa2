"""The functions of a JavaScript or TypeScript file, with their JSDoc.

    /** Adds two numbers. @param a … */           docstring       "Adds two numbers."
    export function add(a: number, b: number) {   qualname        "add"
      return a + b;                               code_without_docstring   from `export` to the last brace
    }

Functions, methods, and functions named by what they are bound or passed to:

    const f = () => {}, exports.f = function () {}    f          export default function () {}     default
    const api = { get() {}, put: () => {} }           api.get    const View = memo((props) => {})  View
    app.get('/tides', (request, response) => {})      app.get('/tides')
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from common.markdown import without_blocks
from data.corpus.build import SourceFile
from data.corpus.languages import grammar_of, tree_of

FUNCTIONS = frozenset({"function_declaration", "generator_function_declaration", "method_definition"})
SIGNATURES = frozenset({"function_signature", "method_signature"})  # TypeScript's overloads, without a body
CLASSES = frozenset({"class_declaration", "abstract_class_declaration", "class"})
FIELDS = frozenset({"public_field_definition", "field_definition"})
VALUES = frozenset({"arrow_function", "function_expression", "generator_function"})  # may be bound to a name
CALLS = frozenset({"call_expression", "new_expression"})
WRAPPERS = frozenset({"parenthesized_expression", "as_expression", "satisfies_expression", "await_expression"})
DEEPEST = 20  # levels of nested objects; deeper ones are data
LONGEST_ARGUMENT = 40  # characters, in a name
LINK = re.compile(r"\{@\w+\s+(?:[^\s|}]*[\s|]+)?([^}]*)\}")  # {@link place text}: keeps the text, else the place
MARKUP = re.compile(r"!\[[^\]]*\]\([^)]*\)|</?(?:span|b|i|em|strong|code|p|br)\b[^>]*>")
MARKDOWN_LINK = re.compile(r"\[([^\]]*)\]\([^)]*\)")


@dataclass(frozen=True, eq=False)
class ScriptFunction:
    """A function or method; fields as in data.corpus.functions.Function."""

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
    package: str = ""  # the SOURCE of its file

    @property
    def module(self) -> str:
        """Its file: modules have no other name."""
        return self.path

    @property
    def jsdoc(self) -> str:
        """The JSDoc comment as written; "" without one."""
        return self.source.removesuffix(self.code_without_docstring).rstrip("\n")

    @property
    def examples(self) -> bool:
        """Whether its JSDoc shows what a call gives."""
        return "// =>" in self.jsdoc or "//=>" in self.jsdoc

    @property
    def code_lines(self) -> int:
        """Lines of the code."""
        return self.code_without_docstring.count("\n") + 1


def script_functions_of(file: SourceFile, *, min_lines: int = 5, max_lines: int = 60) -> list[ScriptFunction]:
    """Functions of the module, its namespaces and classes whose code, JSDoc not counted, has min_lines to max_lines.

    Functions inside functions belong to the outer one; TypeScript's overloads without a body do not count, but a
    function without JSDoc takes that of its first overload that has one. A file in another language has none.
    """
    grammar = grammar_of(file.path, ("javascript", "typescript"))
    if grammar is None:
        return []
    data = file.text.encode()
    found = [_function(file, data, one) for one in _definitions(tree_of(file.text, grammar).root_node, "")]
    return [function for function in found if min_lines <= function.code_lines <= max_lines]


class _Definition(NamedTuple):
    node: Any  # tree-sitter's node where its text begins
    qualname: str
    jsdoc: Any  # the node of its JSDoc, or None


def _definitions(block, owner: str, depth: int = 0) -> Iterator[_Definition]:
    """Each definition in a block, a class body or an object; `owner` is the path of their names, with its dot."""
    if depth > DEEPEST:
        return
    jsdoc_of_overload: dict[str, Any] = {}  # by qualname: the first
    for statement in block.named_children:
        comment = _jsdoc_above(statement)
        node = statement
        if node.type == "export_statement":
            node = node.child_by_field_name("declaration") or node.child_by_field_name("value") or node
        if node.type == "expression_statement":  # namespace N {}, what is assigned, what is called
            node = node.named_children[0]
        if node.type in ("internal_module", "module") and (body := node.child_by_field_name("body")):
            yield from _definitions(body, f"{owner}{_name(node)}.", depth + 1)
        for name, value in _named(node):
            qualname = owner + name
            inside = _inside(value)
            if inside is not None:
                below = owner if name in ("", "exports", "module.exports") else f"{qualname}."
                yield from _definitions(inside, below, depth + 1)
            elif value.type in SIGNATURES:
                if comment is not None:
                    jsdoc_of_overload.setdefault(qualname, comment)
            else:
                yield _Definition(statement, qualname, comment or jsdoc_of_overload.get(qualname))


def _named(node) -> Iterator[tuple[str, Any]]:
    """(name, value) of what a statement or a member of a class or object defines.

    The value is a function, class, signature or object, or the call that a function is passed to.
    """
    if node.parent.type == "export_statement" and node.parent.child_by_field_name("declaration") != node:
        if (value := _bound(node)) is not None:
            yield "default", value
    elif node.type in FUNCTIONS | CLASSES | SIGNATURES:
        if name := _name(node):
            yield name, node
    elif node.type in FIELDS | {"pair"}:
        value = _bound(node.child_by_field_name("value"))
        if value is not None:
            keys = (node.child_by_field_name(field) for field in ("name", "property", "key"))
            yield next(_text(key).strip("'\"") for key in keys if key is not None), value
    elif node.type in ("lexical_declaration", "variable_declaration"):
        bound = [one for one in node.named_children if one.type == "variable_declarator"]
        value = bound[0].child_by_field_name("value") if len(bound) == 1 else None  # several share one text
        if (value := _bound(value)) is not None:
            yield _name(bound[0]), value
    elif node.type == "assignment_expression":
        value = node.child_by_field_name("right")
        while value.type == "assignment_expression":  # module.exports = exports.f = function () {}: by the first
            value = value.child_by_field_name("right")
        value = _bound(value)
        target = _text(node.child_by_field_name("left"))
        name = re.sub(r"^(module\.)?exports\.|\.prototype\b", "", target)
        if value is not None and re.fullmatch(r"[\w$.]+", name):
            yield name, value
    elif (value := _bound(node)) is not None and (value.type in CALLS or node.type in CALLS | WRAPPERS):
        yield "" if _invoked(value) is not None else _called(_unwrapped(node)), value


def _bound(node):
    """The function, class or object in a value, or the call that it is passed to; None for anything else."""
    node = _unwrapped(node)
    if node is None or node.type in VALUES | CLASSES | {"object"}:
        return node
    if node.type not in CALLS:
        return None
    if _invoked(node) is not None or any(_takes_function(call) for call in _chain(node)):
        return node
    given = [one for one in _arguments(node) if one.type == "object"]
    return given[-1] if given else None


def _inside(value):
    """The body whose members are definitions: of a class, an object, or an immediately invoked function."""
    if value.type in CLASSES:
        return value.child_by_field_name("body")
    return value if value.type == "object" else _invoked(value)


def _invoked(node):
    """The body of (function () { … })(), whose contents belong to the module."""
    function = _unwrapped(node.child_by_field_name("function")) if node.type == "call_expression" else None
    body = function.child_by_field_name("body") if function is not None and function.type in VALUES else None
    return body if body is not None and body.type == "statement_block" else None


def _chain(call) -> Iterator:
    """The calls of fetch(x).then(f).catch(g), the last one first."""
    while call is not None:
        if call.type in CALLS:
            yield call
            call = call.child_by_field_name("function")
        elif call.type == "member_expression":
            call = call.child_by_field_name("object")
        else:
            return


def _takes_function(call) -> bool:
    """Whether an argument is a function with statements; an expression such as (one) => one.name is not."""
    bodies = [one.child_by_field_name("body") for one in _arguments(call) if one.type in VALUES]
    return any(body is not None and body.type == "statement_block" for body in bodies)


def _called(node) -> str:
    """How a call is named: app.get('/tides'), fetch().then()."""
    pieces: list[str] = []
    while node is not None:
        if node.type in CALLS:
            first = next(iter(_arguments(node)), None)
            argument = _text(first) if first is not None and first.type == "string" else ""
            if len(argument) > LONGEST_ARGUMENT:
                argument = argument[: LONGEST_ARGUMENT - 1] + "…"
            pieces.append(f"({argument})")
            node = node.child_by_field_name("function") or node.child_by_field_name("constructor")
        elif node.type == "member_expression":
            pieces.append(f".{_text(node.child_by_field_name('property'))}")
            node = node.child_by_field_name("object")
        else:
            pieces.append(_text(node) if node.type in ("identifier", "this", "super") else "")
            node = None
    return "".join(reversed(pieces))


def _arguments(call) -> list:
    given = call.child_by_field_name("arguments")
    return given.named_children if given is not None else []


def _unwrapped(node):
    while node is not None and node.type in WRAPPERS | {"unary_expression"} and node.named_children:
        node = node.named_children[0]
    return node


def _function(file: SourceFile, data: bytes, definition: _Definition) -> ScriptFunction:
    node, qualname, comment = definition
    start = data.rfind(b"\n", 0, node.start_byte) + 1
    if data[start : node.start_byte].strip():  # it begins in the middle of a line
        start = node.start_byte
    code = textwrap.dedent(data[start : node.end_byte].decode())
    jsdoc = textwrap.dedent(" " * comment.start_point[1] + _text(comment)) if comment is not None else None
    return ScriptFunction(
        path=file.path,
        qualname=qualname,
        name=re.search(r"(?:\(.*\)|[^.(])*$", qualname)[0],  # get('/v1.0'), of app.get('/v1.0')
        first_line=node.start_point[0] + 1,
        last_line=node.end_point[0] + 1,
        source=f"{jsdoc}\n{code}" if jsdoc else code,
        code_without_docstring=code,
        docstring=_description(jsdoc) if jsdoc else None,
        license=file.license,
        commit=file.commit,
        split=file.split,
        package=file.source,
    )


def _jsdoc_above(node):
    """The JSDoc with a description that ends on a node's line or the one above; decorators may come between."""
    above = node.prev_named_sibling
    while above is not None and above.type == "decorator":
        node, above = above, above.prev_named_sibling
    if above is None or above.type != "comment" or not above.text.startswith(b"/**"):
        return None
    near = node.start_point[0] - above.end_point[0] <= 1
    return above if near and _description(_text(above)) else None


def _description(jsdoc: str) -> str | None:
    """A JSDoc's text before its first tag, as Markdown without links, images and code blocks."""
    lines = [re.sub(r"^\s*\*? ?", "", line) for line in jsdoc.removeprefix("/**").removesuffix("*/").split("\n")]
    description = []
    for line in lines:
        if re.match(r"\s*@(?!description\b)\w", line):
            break
        description.append(re.sub(r"^\s*@description\s*", "", line).rstrip())
    text = without_blocks("\n".join(description))
    text = MARKDOWN_LINK.sub(r"\1", MARKUP.sub("", LINK.sub(r"\1", text)))
    return text.strip() or None


def _name(node) -> str:
    name = node.child_by_field_name("name")
    return _text(name) if name is not None else ""


def _text(node) -> str:
    return node.text.decode()
