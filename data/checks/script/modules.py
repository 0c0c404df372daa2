"""A module of JavaScript or TypeScript with everything that it imports, as one program that needs no file.

    import { a as b } from './m.js'      const {"a": b} = require("./m.js");
    export function f() {}               function f() {}      and at the top of the module a getter of `f` on `exports`

Modules are CommonJS in the end. What a module exports is read through getters, so that two modules may import each
other's functions; a constant of a module that is not done yet is an error here, and the check then does not count.
"""

from __future__ import annotations

import functools
import json
import posixpath
import re
from collections.abc import Callable, Iterator

from data.corpus.languages import grammar_of, tree_of

MOST_BYTES = 24_000  # of all modules of a check: a pair carries them
# modules of node that a function may use; the sandbox decides what they can do
BUILT_IN = frozenset(
    {"assert", "buffer", "crypto", "events", "os", "path", "punycode", "querystring", "stream", "url", "util"}
)
ENDINGS = ("", ".js", ".mjs", ".cjs", ".ts", ".mts", "/index.js", "/index.mjs", "/index.ts")
_LOADER = """
const __loaded = {};
function __exportAll(exports, others) {
  for (const name of Object.keys(others))
    if (name !== "default" && !(name in exports))
      Object.defineProperty(exports, name, { enumerable: true, get: () => others[name] });
}
function __require(from) {
  return (name) => {
    const path = (__modules[from][0] || {})[name];
    if (path === undefined) return require(name);
    if (!(path in __loaded)) {
      const module = __loaded[path] = { exports: {} };
      __modules[path][1](__require(path), module, module.exports);
    }
    return __loaded[path].exports;
  };
}
"""


def imported_modules(path: str, read: Callable[[str], str | None]) -> dict[str, str] | None:
    """path -> text of a module and all that it imports, itself first.

    read  the text of a path, None if there is no such file
    None if one is missing, is of another package, or all together have more than MOST_BYTES.
    """
    found: dict[str, str] = {}
    waiting = [path]
    while waiting:
        one = waiting.pop()
        if one in found:
            continue
        text = read(one)
        if text is None or sum(map(len, found.values())) + len(text) > MOST_BYTES:
            return None
        found[one] = text
        for name in _names(text, _grammar(one) or "javascript"):
            if name.removeprefix("node:") in BUILT_IN:
                continue
            target = resolve(one, name, read)
            if target is None:
                return None
            waiting.append(target)
    return found


def resolve(path: str, name: str, read: Callable[[str], str | None]) -> str | None:
    """The path that `name` in the module at `path` stands for; None for another package and for a missing file."""
    if not name.startswith("."):
        return None
    stem = posixpath.normpath(posixpath.join(posixpath.dirname(path), name))
    stems = [stem, re.sub(r"\.([cm]?)js$", r".\1ts", stem)]  # TypeScript names what it is compiled to
    places = [one + ending for one in dict.fromkeys(stems) for ending in ENDINGS]
    return next((place for place in places if _grammar(place) and read(place) is not None), None)


def _grammar(path: str) -> str | None:
    return grammar_of(path, ("javascript", "typescript"))


def program_of(modules: dict[str, str], main: str, name: str, alias: str) -> str:
    """The program that runs the module at `main`, and binds its function `name` to the global `alias`.

    name  a variable of the module, or "default": what it exports as such
    """
    parts = []
    for path, text in modules.items():
        grammar = _grammar(path) or "javascript"
        places = {one: resolve(path, one, modules.get) for one in _names(text, grammar)}
        known = json.dumps({one: place for one, place in places.items() if place})
        body = as_commonjs(text, grammar)
        if path == main:
            value = "exports.default" if name == "default" else name
            body += f"\nglobalThis.{alias} = {value};"
        parts.append(f"{json.dumps(path)}: [{known}, function (require, module, exports) {{\n{body}\n}}],\n")
    own = json.dumps({"main": main})  # the program's own place, from which the module is loaded
    start = f"__modules[''] = [{own}];\n__require('')('main');\n"
    return f"const __modules = {{\n{''.join(parts)}}};\n{_LOADER}{start}"


@functools.lru_cache(maxsize=512)
def as_commonjs(text: str, grammar: str) -> str:
    """A module without `import` and `export`: `require`, and getters on `exports` at its top."""
    data = text.encode()
    edits: list[tuple[int, int, str]] = []
    getters: list[str] = []
    for statement in tree_of(text, grammar).root_node.named_children:
        if statement.type == "import_statement":
            edits.append((statement.start_byte, statement.end_byte, _required(statement)))
        elif statement.type == "export_statement":
            made, new = _exported(statement)
            edits += made
            getters += new
    for start, end, new_text in sorted(edits, reverse=True):
        data = data[:start] + new_text.encode() + data[end:]
    return "".join(f"{getter}\n" for getter in getters) + data.decode()


def _getter(name: str, value: str) -> str:
    return f"Object.defineProperty(exports, {json.dumps(name)}, {{ enumerable: true, get: () => {value} }});"


def _required(statement) -> str:
    """An import as `const … = require(…)`, one line for each kind of name; nothing for types."""
    source = statement.child_by_field_name("source")
    clause = next((child for child in statement.named_children if child.type == "import_clause"), None)
    if any(child.type == "type" for child in statement.children):
        return ""
    if clause is None:
        return f"require({_text(source)});" if source is not None else _text(statement)
    lines = []
    for part in clause.named_children:
        if part.type == "identifier":
            lines.append(f"const {{default: {_text(part)}}}")
        elif part.type == "namespace_import":
            lines.append(f"const {_text(part.named_children[0])}")
        else:
            pairs = [_specifier(one) for one in part.named_children if one.type == "import_specifier"]
            lines.append("const {" + ", ".join(f"{json.dumps(name)}: {alias}" for name, alias in pairs if alias) + "}")
    return " ".join(f"{line} = require({_text(source)});" for line in lines)


def _specifier(node) -> tuple[str, str | None]:
    """(name in the other module, name here) of `a as b`; no name here for a type."""
    if any(child.type == "type" for child in node.children):
        return "", None
    name, alias = node.child_by_field_name("name"), node.child_by_field_name("alias")
    return _text(name).strip("'\""), _text(alias if alias is not None else name).strip("'\"")


def _exported(statement) -> tuple[list[tuple[int, int, str]], list[str]]:
    """The edits that remove an export's keywords, and the getters of what it exports."""
    whole = (statement.start_byte, statement.end_byte)
    source = statement.child_by_field_name("source")
    declaration = statement.child_by_field_name("declaration")
    value = statement.child_by_field_name("value")
    kinds = {child.type for child in statement.children}
    if declaration is not None:
        names = _declared(declaration)
        if "default" in kinds and not names:  # export default function () {}
            return [(statement.start_byte, declaration.start_byte, "exports.default = ")], []
        getters = [_getter("default" if "default" in kinds else name, name) for name in names]
        return [(statement.start_byte, declaration.start_byte, "")], getters
    if value is not None:
        return [(statement.start_byte, value.start_byte, "exports.default = ")], []
    clause = next((child for child in statement.named_children if child.type == "export_clause"), None)
    if clause is not None and "type" not in kinds:
        pairs = [_specifier(one) for one in clause.named_children if one.type == "export_specifier"]
        prefix = f"require({_text(source)})" if source is not None else None
        return [(*whole, "")], [
            _getter(alias, f"{prefix}[{json.dumps(name)}]" if prefix else name) for name, alias in pairs if alias
        ]
    star = next((child for child in statement.named_children if child.type == "namespace_export"), None)
    if star is not None:
        return [(*whole, "")], [_getter(_text(star.named_children[0]), f"require({_text(source)})")]
    return [(*whole, f"__exportAll(exports, require({_text(source)}));" if "*" in kinds else "")], []


def _declared(declaration) -> list[str]:
    """The names that a declaration binds when the code runs."""
    if declaration.type in ("lexical_declaration", "variable_declaration"):
        bound = [
            one.child_by_field_name("name") for one in declaration.named_children if one.type == "variable_declarator"
        ]
        return [_text(one) for one in bound if one.type == "identifier"]
    if declaration.type in ("interface_declaration", "type_alias_declaration", "ambient_declaration"):
        return []
    name = declaration.child_by_field_name("name")
    return [_text(name)] if name is not None else []


def _names(text: str, grammar: str) -> list[str]:
    """The modules that a text imports, exports from or requires, by the names that it uses."""
    return list(dict.fromkeys(_sources(tree_of(text, grammar).root_node)))


def _sources(node) -> Iterator[str]:
    source = node.child_by_field_name("source") if node.type in ("import_statement", "export_statement") else None
    if source is not None and "type" not in {child.type for child in node.children}:
        yield _text(source)[1:-1]
    if node.type == "call_expression" and node.child_by_field_name("function").text in (b"require", b"import"):
        given = node.child_by_field_name("arguments").named_children
        if given and given[0].type == "string":
            yield _text(given[0])[1:-1]
    for child in node.children:
        yield from _sources(child)


def _text(node) -> str:
    return node.text.decode()
