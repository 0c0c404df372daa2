"""The language of a file, and what its text consists of: code, comments, string literals.

Python is read by the standard library's ast and tokenize, all others by tree-sitter, an extra.
Nothing here imports torch, so that the processes that examine files start in a fraction of a second.
"""

from __future__ import annotations

import ast
import functools
import importlib
import io
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from common.python_syntax import shared_tree

NAMES = {
    "python": "Python", "javascript": "JavaScript", "typescript": "TypeScript", "bash": "Bash", "c": "C", "cpp": "C++",
    "csharp": "C#", "elixir": "Elixir", "go": "Go", "haskell": "Haskell", "java": "Java", "kotlin": "Kotlin",
    "lua": "Lua", "php": "PHP", "ruby": "Ruby", "rust": "Rust", "scala": "Scala", "swift": "Swift", "zig": "Zig",
}  # fmt: skip
TAUGHT = ("python", "javascript", "typescript")  # whose functions can be checked: data.instruct makes tasks of them
GRAMMARS = {  # language -> suffix -> grammar; <T>x is a cast in .ts and an element in .tsx
    "python": {".py": "python"},
    "javascript": dict.fromkeys((".js", ".mjs", ".cjs", ".jsx"), "javascript"),
    "typescript": {**dict.fromkeys((".ts", ".mts", ".cts"), "typescript"), ".tsx": "tsx"},
    # read by data/search/definitions.py; .h as C++, of which C is nearly a subset
    "bash": dict.fromkeys((".sh", ".bash"), "bash"),
    "c": {".c": "c"},
    "cpp": dict.fromkeys((".h", ".hh", ".hpp", ".hxx", ".cc", ".cpp", ".cxx", ".cu", ".cuh"), "cpp"),
    "csharp": {".cs": "csharp"},
    "elixir": dict.fromkeys((".ex", ".exs"), "elixir"),
    "go": {".go": "go"},
    "haskell": {".hs": "haskell"},
    "java": {".java": "java"},
    "kotlin": dict.fromkeys((".kt", ".kts"), "kotlin"),
    "lua": {".lua": "lua"},
    "php": {".php": "php"},
    "ruby": {".rb": "ruby"},
    "rust": {".rs": "rust"},
    "scala": dict.fromkeys((".scala", ".sc"), "scala"),
    "swift": {".swift": "swift"},
    "zig": {".zig": "zig"},
}
PARSERS = {  # grammar -> the package and function that provide it
    "bash": ("tree_sitter_bash", "language"),
    "c": ("tree_sitter_c", "language"),
    "cpp": ("tree_sitter_cpp", "language"),
    "csharp": ("tree_sitter_c_sharp", "language"),
    "elixir": ("tree_sitter_elixir", "language"),
    "go": ("tree_sitter_go", "language"),
    "haskell": ("tree_sitter_haskell", "language"),
    "java": ("tree_sitter_java", "language"),
    "javascript": ("tree_sitter_javascript", "language"),
    "kotlin": ("tree_sitter_kotlin", "language"),
    "lua": ("tree_sitter_lua", "language"),
    "php": ("tree_sitter_php", "language_php"),
    "ruby": ("tree_sitter_ruby", "language"),
    "rust": ("tree_sitter_rust", "language"),
    "scala": ("tree_sitter_scala", "language"),
    "swift": ("tree_sitter_swift", "language"),
    "typescript": ("tree_sitter_typescript", "language_typescript"),
    "tsx": ("tree_sitter_typescript", "language_tsx"),
    "zig": ("tree_sitter_zig", "language"),
}
COMMENTS = frozenset(
    {"comment", "line_comment", "block_comment", "multiline_comment", "html_comment", "hash_bang_line", "haddock"}
)
LITERALS = COMMENTS | {
    "string", "template_string", "regex", "jsx_text", "string_literal", "raw_string_literal", "char_literal",
    "character_literal", "rune_literal", "interpreted_string_literal", "verbatim_string_literal", "encapsed_string",
    "interpolated_string_expression", "line_string_literal", "multi_line_string_literal", "multiline_string_literal",
    "heredoc_body", "raw_string", "ansi_c_string", "char", "sigil", "charlist",
}  # fmt: skip
PYTHON_LITERALS = frozenset({"COMMENT", "STRING", "FSTRING_MIDDLE", "TSTRING_MIDDLE"})  # from 3.12, from 3.14 on
HEAD_LINES = 20
# Share of a text. The grammars lag behind the languages: they fail on `export { _null as null }` and over `out T`.
MOST_UNREAD = 0.02


@dataclass(frozen=True)
class Anatomy:
    """What the filters need to know about a text."""

    code_lines: int  # lines that are neither blank nor only comment or docstring
    comments: int  # characters on lines that are only comment; docstrings and /** */ do not count


def grammar_of(path: str, languages: tuple[str, ...] | list[str]) -> str | None:
    """The grammar that reads a file of one of these languages, by its suffix; None for other files."""
    suffix = PurePosixPath(path).suffix
    return next((GRAMMARS[language][suffix] for language in languages if suffix in GRAMMARS[language]), None)


def language_of(path: str) -> str:
    """The language of a file, by its suffix, which must be one of GRAMMARS."""
    return next(language for language, suffixes in GRAMMARS.items() if PurePosixPath(path).suffix in suffixes)


def packages_of(languages: tuple[str, ...] | list[str]) -> list[str]:
    """The extra packages needed to read these languages."""
    grammars = {grammar for language in languages for grammar in GRAMMARS[language].values()}
    needed = sorted({PARSERS[grammar][0] for grammar in grammars if grammar in PARSERS})
    return ["tree_sitter", *needed] if needed else []


def anatomy(text: str, grammar: str) -> Anatomy:
    """Code and comments of a text. SyntaxError, ValueError or RecursionError when it does not parse."""
    if grammar == "python":
        return _python_anatomy(text, shared_tree(text))
    lines, code, comments, documentation = text.split("\n"), set(), set(), set()
    for node in _pieces(_readable_tree(text, grammar)):
        kind = code
        if node.type in COMMENTS:
            kind = documentation if node.text.startswith(b"/**") else comments
        kind.update(range(node.start_point[0], node.end_point[0] + 1))
    return Anatomy(len(code), sum(len(lines[number]) for number in comments - code))


def head_of(text: str, grammar: str) -> list[str]:
    """The comments of the first HEAD_LINES lines, and as many of a module's docstring. Raises as `anatomy`."""
    lines = text.split("\n")[:HEAD_LINES]
    if grammar == "python":
        docstring = ast.get_docstring(shared_tree(text)) or ""
        return [line for line in lines if line.lstrip().startswith("#")] + docstring.split("\n")[:HEAD_LINES]
    comments, code = set(), set()
    for node in _pieces(_readable_tree(text, grammar)):
        if node.start_point[0] >= HEAD_LINES:
            break
        kind = comments if node.type in COMMENTS else code
        kind.update(range(node.start_point[0], node.end_point[0] + 1))
    return [line for number, line in enumerate(lines) if number in comments - code]


def literals(text: str, grammar: str) -> list[tuple[int, int]]:
    """[start, end) in characters of every comment and string literal, in order, delimiters included.

    A text that cannot be parsed counts as one literal.
    """
    if grammar != "python":
        data = text.encode()
        spans = [(node.start_byte, node.end_byte) for node in _pieces(tree_of(text, grammar)) if node.type in LITERALS]
        if len(data) == len(text):
            return spans
        return [(len(data[:start].decode()), len(data[:end].decode())) for start, end in spans]
    starts = [0]
    for line in text.split("\n"):
        starts.append(starts[-1] + len(line) + 1)
    try:
        tokens = [
            token
            for token in tokenize.generate_tokens(io.StringIO(text).readline)
            if tokenize.tok_name[token.type] in PYTHON_LITERALS
        ]
    except (SyntaxError, tokenize.TokenError):
        return [(0, len(text))]
    return [(starts[row - 1] + column, starts[end - 1] + last) for _, _, (row, column), (end, last), _ in tokens]


def _python_anatomy(text: str, tree: ast.Module) -> Anatomy:
    lines = text.split("\n")
    comments = {number for number, line in enumerate(lines, 1) if line.lstrip().startswith("#")}
    documentation: set[int] = set()
    for node in _statements(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            documentation.update(range(node.lineno, node.end_lineno + 1))
    filled = {number for number, line in enumerate(lines, 1) if line.strip()}
    count = sum(len(lines[number - 1]) for number in comments - documentation)
    return Anatomy(len(filled - comments - documentation), count)


def _statements(tree: ast.Module) -> Iterator[ast.AST]:
    """Every statement, without the expressions below it: a tenth of the nodes that ast.walk visits."""
    stack: list[ast.AST] = [tree]
    while stack:
        node = stack.pop()
        yield node
        for field in ("body", "orelse", "finalbody", "handlers", "cases"):
            stack += getattr(node, field, ())


@functools.cache
def parser_of(grammar: str):
    """tree-sitter's parser of one of PARSERS."""
    package, function = PARSERS[grammar]
    tree_sitter = importlib.import_module("tree_sitter")
    return tree_sitter.Parser(tree_sitter.Language(getattr(importlib.import_module(package), function)()))


@functools.lru_cache(maxsize=2)
def tree_of(text: str, grammar: str):
    """tree-sitter's tree of a text in a grammar of PARSERS, one for all that look at the same file in turn."""
    return parser_of(grammar).parse(text.encode())


def _readable_tree(text: str, grammar: str):
    tree = tree_of(text, grammar)
    if (unread := _unread(tree.root_node)) > MOST_UNREAD:
        raise SyntaxError(f"tree-sitter cannot read {unread:.0%} of it")
    return tree


def _unread(root) -> float:
    """The share of a text that its grammar cannot parse; 1 when something is missing, such as a bracket."""
    unread, stack = 0, [root]
    while stack:
        node = stack.pop()
        if node.is_missing:
            return 1.0
        if node.type == "ERROR":
            unread += node.end_byte - node.start_byte
        elif node.has_error:
            stack += node.children
    return unread / max(root.end_byte, 1)


def _pieces(tree) -> Iterator:
    """The leaves of a tree, with literals as single leaves, from left to right."""
    cursor = tree.walk()
    while True:
        node = cursor.node
        if node.type not in LITERALS and cursor.goto_first_child():
            continue
        yield node
        while not cursor.goto_next_sibling():
            if not cursor.goto_parent():
                return
