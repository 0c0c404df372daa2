"""Functions and classes in the languages that only search reads: Go, Rust, Java, C, C++, C#, Ruby, PHP, and more.

    // How large it is.             comments and attributes right above a definition belong to it
    double Circle::area() {         function "Circle.area": enclosing names first
      …

One traversal of tree-sitter's tree for the eight named, driven by the sets of node types below; eight more by the
queries of data/search/tags.py. A definition without a body, such as a prototype, is not a unit; its class and its file
contain it. An anonymous function is named by its context: var add = func() {}, $app->get('/tides', function () {}),
get '/tides' do … end.
"""

from __future__ import annotations

import bisect
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, replace

from data.corpus import SourceFile
from data.corpus.languages import COMMENTS, GRAMMARS, grammar_of, tree_of
from data.corpus.script_functions import ScriptFunction
from data.search.tags import QUERIES, tags_of

FUNCTIONS = frozenset(
    {"function_declaration", "function_definition", "function_item", "method_declaration", "method", "singleton_method"}
    | {"constructor_declaration", "compact_constructor_declaration", "destructor_declaration", "operator_declaration"}
)
CLASSES = frozenset(
    {"class_declaration", "interface_declaration", "enum_declaration", "record_declaration", "struct_declaration"}
    | {"annotation_type_declaration", "trait_declaration", "class", "module", "type_spec"}
    | {"struct_item", "enum_item", "union_item", "trait_item"}
    | {"class_specifier", "struct_specifier", "union_specifier", "enum_specifier"}
)
SCOPES = frozenset({"impl_item", "mod_item"})  # Rust's: they name what is inside
WRAPPERS = frozenset({"template_declaration", "type_declaration", "type_definition"})  # begin before it
BODILESS = frozenset({"type_spec", "struct_item"})  # type A int; struct Unit;
HOLDERS = frozenset(  # statements and fields that may contain an anonymous function
    {"var_spec", "expression_statement", "assignment", "call", "declaration", "field_declaration", "static_item"}
    | {"const_item", "global_statement"}
)
CLOSURES = frozenset(
    {"func_literal", "anonymous_function", "lambda_expression", "closure_expression", "lambda", "do_block"}
)
CALLED = re.compile(  # get '/tides' do, $app->get('/tides', Route::get("/tides", namespace :db do
    r"(?P<callee>[$\w][\w.:\\]*(?:(?:->|\?\.)\w+)*[?!]?)[ (]*(?P<argument>:\w+|\"[^\"\n]{,40}\"|'[^'\n]{,40}')?"
)
ASSIGNED = re.compile(r"(?:[\w<>,\[\]?]+\s+)*([$\w]+)\s*=(?!=)")  # Func<int, int> twice = …
ATTRIBUTES = frozenset({"attribute_item", "attribute_declaration", "signature"})  # on lines of their own: #[test]
BY_EQUATIONS = ("elixir", "haskell")  # f 0 = 1; f n = n * f (n - 1)
ARGUMENTS = re.compile(r"<(?:[^<>]|<[^<>]*>)*>|\s")  # of a template, in a qualified name
MARKS = re.compile(
    r"^\s*(?:/\*+|\*+/|\*|//[/!]?|#+!?|--\s?\|?|@doc\s+\"\"\"|\"\"\")|(?:\*+/|-}|\"\"\")\s*$|</?\w[^<>]*>"
)
ATTRIBUTE_LINE = re.compile(r"\s*(?:#!?\[|\[\w|@(?!doc\b)\w|\w+\s*::)")  # #[test], [Obsolete], @Override, f :: Int
LICENSE = re.compile(r"copyright|licen[sc]e|spdx", re.IGNORECASE)


@dataclass(frozen=True)
class Definition:
    """A function or class. Lines count from 1; the last is included."""

    kind: str  # "function" or "class"
    qualname: str
    above: int  # where its comments begin
    first: int
    named: int  # the line of its name: attributes may precede it
    body: int  # from this line on, its class omits it
    last: int


def definition_units(file: SourceFile) -> list[dict]:
    """The file, its classes without the bodies of their functions, and its functions, each with its comments."""
    lines = file.text.split("\n")
    grammar = _grammar(file)
    root = tree_of(file.text, grammar).root_node
    found = _found(root, grammar)
    units = [_file_unit(file, lines, root, found)]
    for one in found:
        inside = [other for other in found if other.kind == "function" and one.first <= other.first < one.last]
        hidden = {n for other in inside for n in range(other.body, other.last + 1)} if one.kind == "class" else set()
        code = "\n".join(lines[n - 1] for n in range(one.above, one.last + 1) if n not in hidden)
        source = {"path": file.path, "qualname": one.qualname, "lines": [one.first, one.last]}
        code = textwrap.dedent(code).rstrip()
        units.append({"id": f"{file.path}:{one.first}", "kind": one.kind, "code": code, "source": source})
    return units


def definition_functions(file: SourceFile, *, min_lines: int = 5, max_lines: int = 60) -> list[ScriptFunction]:
    """The functions whose code, without the comments above it, has min_lines to max_lines. Their docstring: these."""
    lines = file.text.split("\n")
    grammar = _grammar(file)
    found = [one for one in _found(tree_of(file.text, grammar).root_node, grammar) if one.kind == "function"]
    functions = []
    for one in found:
        above, code = lines[one.above - 1 : one.first - 1], lines[one.first - 1 : one.last]
        own = textwrap.dedent("\n".join(code)).rstrip()
        if min_lines <= len(code) <= max_lines:
            functions.append(
                ScriptFunction(
                    path=file.path, qualname=one.qualname, name=one.qualname.rpartition(".")[2], first_line=one.first,
                    last_line=one.last, source=textwrap.dedent("\n".join([*above, *code])).rstrip(),
                    code_without_docstring=own, docstring=prose(above) or None, license=file.license,
                    commit=file.commit, split=file.split, package=file.source,
                )
            )  # fmt: skip
    return functions


def prose(comment: list[str]) -> str:
    """What the lines of a comment say, without its marks and without attributes."""
    bare = (MARKS.sub("", line).strip() for line in comment if not ATTRIBUTE_LINE.match(line))
    return "\n".join(bare).strip()


def _grammar(file: SourceFile) -> str:
    grammar = grammar_of(file.path, tuple(GRAMMARS))
    assert grammar is not None  # a corpus and an index hold files in known languages alone
    return grammar


def _found(root, grammar: str) -> list[Definition]:
    return _tagged_definitions(root, grammar) if grammar in QUERIES else list(_definitions(root))


def _file_unit(file: SourceFile, lines: list[str], root, found: list[Definition]) -> dict:
    """A file as its path, its header comment, and the first line of each definition."""
    ends = min((one.above for one in found), default=len(lines) + 1)
    comments = [node for node in root.named_children if node.type in COMMENTS and node.start_point[0] + 1 < ends]
    header = [text.rstrip() for node in comments if not LICENSE.search(text := node.text.decode())]
    heads = [lines[one.named - 1].strip() for one in found]
    source = {"path": file.path, "qualname": None, "lines": [1, file.text.rstrip("\n").count("\n") + 1]}
    code = "\n".join([f"# {file.path}", *header, *heads])
    return {"id": file.path, "kind": "file", "code": code, "source": source}


def _definitions(root) -> Iterator[Definition]:
    """Definitions from top to bottom, at most one per line; those inside a function belong to it."""
    waiting, begun = [(root, "")], set()
    closures, definitions = _starts(root)
    while waiting:
        node, owner = waiting.pop()
        is_function, is_class = node.type in FUNCTIONS, node.type in CLASSES
        name = _name(node) if is_function or is_class or node.type in SCOPES else None
        qualname = owner + (_receiver(node) + name.text.decode() if name else "")
        qualname = ARGUMENTS.sub("", qualname).replace("::", ".")
        is_whole = node.type in BODILESS or node.child_by_field_name("body") is not None
        if name and is_whole and (is_function or is_class):
            found = _definition("function" if is_function else "class", qualname, node, name)
            if found.first not in begun:
                begun.add(found.first)
                yield found
        if not name and (holder := _holder(node, closures, definitions)):
            held = _definition("function", owner + holder.replace("::", "."), node, node)
            if held.first not in begun:
                begun.add(held.first)
                yield held
        elif not is_function:
            below = f"{qualname}." if name else owner
            waiting += [(child, below) for child in reversed(node.named_children)]


def _tagged_definitions(root, grammar: str) -> list[Definition]:
    """The same by the queries of data/search/tags.py. Several equations of one function are one definition."""
    around: list[tuple[int, str, bool]] = []  # what encloses: the byte where it ends, its name, whether a function
    found: list[Definition] = []
    is_next = False  # whether nothing lies between the last definition and this tag
    for tag in tags_of(root, grammar):
        while around and around[-1][0] <= tag.node.start_byte:
            around.pop()
        if around and around[-1][2]:
            continue
        owner = f"{around[-1][1]}." if around else ""
        qualname = owner + ARGUMENTS.sub("", tag.name.text.decode()).replace(":", ".")
        around.append((tag.node.end_byte, qualname, tag.kind == "function"))
        if tag.kind == "scope":
            is_next = False
            continue
        one = _definition(tag.kind, qualname, tag.node, tag.name, tag.body)
        if is_next and grammar in BY_EQUATIONS and (found[-1].kind, found[-1].qualname) == ("function", qualname):
            found[-1] = replace(found[-1], last=one.last)
        elif not found or found[-1].first < one.first:  # at most one a line
            found.append(one)
        is_next = True
    return found


def _definition(kind: str, qualname: str, node, name, body=None) -> Definition:
    whole = node
    while whole.parent is not None and whole.parent.type in WRAPPERS and len(whole.parent.named_children) <= 2:
        whole = whole.parent
    # in Ruby the comments of a body's first statement precede the body
    above, top = whole.prev_named_sibling or whole.parent.prev_named_sibling, whole.start_point[0]
    while above is not None and _belongs_below(above) and top - _last_row(above) <= 1:
        before = above.prev_named_sibling
        if before is not None and _last_row(before) == above.start_point[0]:
            break  # it follows something else on its line
        top, above = above.start_point[0], before
    body, last = body or node.child_by_field_name("body"), whole.end_point[0]
    opening = last if body is None else body.start_point[0] - _begins_its_line(body)  # the line of the brace, or above
    return Definition(  # tree-sitter counts lines from 0
        kind, qualname, above=top + 1, first=whole.start_point[0] + 1, named=name.start_point[0] + 1,
        body=opening + 2, last=last + 1,
    )  # fmt: skip


def _belongs_below(node) -> bool:
    """Whether it is about the definition below it: a comment, an attribute, a type signature, Elixir's @doc."""
    return node.type in COMMENTS | ATTRIBUTES or node.text.startswith((b"@doc", b"@spec", b"@impl"))


def _starts(root) -> tuple[list[int], list[int]]:
    """The byte offsets where anonymous functions begin, and where definitions do, in order."""
    closures, definitions, waiting = [], [], [root]
    while waiting:
        node = waiting.pop()
        if node.type in CLOSURES:
            closures.append(node.start_byte)
        elif node.type in FUNCTIONS or (node.type in CLASSES and node.is_named):
            definitions.append(node.start_byte)
        waiting += node.named_children
    return sorted(closures), sorted(definitions)


def _holder(node, closures: list[int], definitions: list[int]) -> str | None:
    """The name of a statement or field that defines nothing but an anonymous function; else None."""
    if node.type not in HOLDERS or not _any_in(node, closures) or _any_in(node, definitions):
        return None
    for field in ("name", "left", "declarator"):
        found = node.child_by_field_name(field)
        while found is not None:
            inner = found.child_by_field_name("name") or found.child_by_field_name("declarator")
            if inner is None:
                return found.text.decode()
            found = inner
    text = node.text.decode()
    if assigned := ASSIGNED.match(text):
        return assigned[1]
    called = CALLED.match(text)
    return f"{called['callee']}({called['argument'] or ''})" if called else None


def _any_in(node, starts: list[int]) -> bool:
    at = bisect.bisect_left(starts, node.start_byte)
    return at < len(starts) and starts[at] < node.end_byte


def _last_row(node) -> int:
    """Its last line; a Rust line comment ends at the start of the next line."""
    row, column = node.end_point
    return row if column else row - 1


def _begins_its_line(node) -> bool:
    text, start = node.parent.text, node.start_byte - node.parent.start_byte
    line = text.rfind(b"\n", 0, start) + 1
    return line > 0 and not text[line:start].strip()


def _name(node):
    """The node that names a definition, or None; C and C++ nest it in the declarator: `int *f(int x)`."""
    name = node.child_by_field_name("name")
    if node.type == "impl_item":
        name = node.child_by_field_name("type")
        while name is not None and name.type in ("reference_type", "generic_type"):
            name = name.child_by_field_name("type")
    elif name is None and node.type in CLASSES and node.parent.type == "type_definition":
        node = node.parent  # typedef struct { … } name;
    declared = node.child_by_field_name("declarator")
    while declared is not None:
        name = declared
        inner = declared.named_children[-1:] if declared.type == "reference_declarator" else []
        declared = declared.child_by_field_name("declarator") or next(iter(inner), None)
    return name


def _receiver(node) -> str:
    """The receiver type of a Go method: func (s *Stack[T]) Push(item T)."""
    receiver = node.child_by_field_name("receiver")
    found = re.search(r"(\w+)\s*(?:\[[^]]*\])?\s*,?\s*\)$", receiver.text.decode()) if receiver is not None else None
    return f"{found[1]}." if found else ""
