"""Syntax highlighting: a text split into pieces, each with its kind.

Python by the standard library's tokenizer, other languages by Pygments where that is installed. Models write code that
is cut off, and prompts often start in English: whatever is not code, or cannot be tokenized, stays plain, and no
character is lost.
"""

from __future__ import annotations

import io
import keyword
import re
import tokenize
from collections.abc import Iterator

FENCE = re.compile(r"^ *(`{3,}|~{3,})", re.MULTILINE)
# Beginnings of a line that Python has and English does not.
STATEMENT = re.compile(
    r"^[ \t]*(?:@\w|#|>>> |[rbfuRBFU]{0,2}(?:\"\"\"|''')|(?:async )?def \w+\(|class \w+[:(]|import \w+(?:\.|$|,| as )"
    r"|from [\w.]+ import |(?:if|elif|for|while|with|else|try|except|finally)\b.*:[ \t]*$|return(?: \S+)?$"
    r"|return [\w.]*[\[({]|(?:raise|assert|yield) |(?:pass|break|continue)$|[\w.]+\(.*\)$"
    r"|[\w.\[\], ]+ ?[-+*/|&^%]?= ?\S)",
    re.MULTILINE,
)
IN_STRING = re.compile(r"[rbfuRBFU]{0,2}(\"\"\"|''')")
# The end of a docstring, alone on its line, after text that opens none: the text starts within the docstring.
CUT_ABOVE = re.compile(r"\A(?:(?!\"\"\"|''').)*[^\s:][ \t]*\n\s*(?:\"\"\"|''')[ \t]*\n", re.DOTALL)
STRINGS = ("STRING", "FSTRING_START", "FSTRING_MIDDLE", "FSTRING_END")  # the last three from Python 3.12 on
# Parts of the names of Pygments' tokens: of Token.Literal.String.Doc, for example.
KINDS = (
    ("Comment", "comment"), ("String", "string"), ("Number", "number"), ("Keyword", "keyword"),
    ("Name.Function", "defined"), ("Name.Class", "defined"),
)  # fmt: skip
Piece = tuple[str, str]


def pieces(text: str) -> list[Piece]:
    """The text as (kind, piece), in order.

    kind: keyword, string, comment, number, defined (the name after def or class), or "" for anything else. Code is the
    text between fences; without any, everything from the first line that begins like Python.
    """
    parts = FENCE.split(text)  # text, mark, text, mark, ...: what follows every second mark is code
    if len(parts) > 1:
        found: list[Piece] = [("", parts[0])]
        for number, (mark, part) in enumerate(zip(parts[1::2], parts[2::2], strict=True)):
            line, end, rest = part.partition("\n")
            found += [("", mark + line + end), *(_code(rest) if number % 2 == 0 else [("", rest)])]
    elif inside := CUT_ABOVE.match(text):
        found = [("string", inside[0]), *_code(text[inside.end() :])]
    else:
        first = STATEMENT.search(text)
        start = first.start() if first else len(text)
        found = [("", text[:start]), *_code(text[start:])]
    return [piece for piece in found if piece[1]]


def pieces_of_file(text: str, name: str) -> list[Piece]:
    """Code in the language that a file's name tells, as `pieces`; plain if Pygments is missing or does not know it."""
    if name.endswith((".py", ".pyi")):
        return pieces(text)
    try:
        from pygments.lexers import get_lexer_for_filename
        from pygments.util import ClassNotFound
    except ImportError:
        return [("", text)]
    try:
        lexer = get_lexer_for_filename(name, stripnl=False, ensurenl=False)
    except ClassNotFound:
        return [("", text)]
    return [
        (next((kind for mark, kind in KINDS if mark in str(token)), ""), part) for token, part in lexer.get_tokens(text)
    ]


def _code(text: str) -> Iterator[Piece]:
    """The pieces of code. If the tokenizer fails, one line stays plain and it restarts after that line."""
    while text:
        starts = [0]
        for line in text.split("\n"):
            starts.append(starts[-1] + len(line) + 1)
        done, before = 0, ""
        try:
            for token in tokenize.generate_tokens(io.StringIO(text, newline="\n").readline):
                start, end = (starts[row - 1] + column for row, column in (token.start, token.end))
                kind = _kind(token, before)
                if kind and start >= done:
                    yield "", text[done:start]
                    yield kind, text[start:end]
                    done = end
                before = token.string
            yield "", text[done:]
            return
        except (tokenize.TokenError, SyntaxError) as error:  # the message differs between versions of Python
            rest = text[done:]
            opened = IN_STRING.search(rest) if "string" in str(error) else None
            if opened:
                yield "", rest[: opened.start()]
                yield "string", rest[opened.start() :]
                return
            line = rest.find("\n", len(rest) - len(rest.lstrip())) + 1 or len(rest)
            yield "", rest[:line]
            text = rest[line:]


def _kind(token: tokenize.TokenInfo, before: str) -> str:
    name = tokenize.tok_name[token.type]
    if name in STRINGS:
        return "string"
    if name == "NAME":
        if keyword.iskeyword(token.string):
            return "keyword"
        return "defined" if before in ("def", "class") else ""
    return name.lower() if name in ("COMMENT", "NUMBER") else ""
