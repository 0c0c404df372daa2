"""The sections of a docstring as plain prose, without markup."""

from __future__ import annotations

import re

from common.markdown import without_blocks

UNDERLINE = re.compile(r"^\s*[-=~^]{3,}\s*$")
GOOGLE = re.compile(
    r"^(Args|Arguments|Parameters|Attributes|Returns?|Yields?|Raises|Examples?|Notes?|Warnings?|References|See Also):$"
)
FIELD = re.compile(r"^:(param|type|returns?|rtype|raises?|arg|keyword)\b[^:]*:")
ENDED = re.compile(r"(?<=[.!?])\s+(?=[A-Z`\"'(\[])")
ABBREVIATION = re.compile(r"\b(e\.g|i\.e|cf|vs|etc|et al|resp|Fig|Eq|[A-Z])\.$")


def sections(docstring: str) -> dict[str, str]:
    """Sections by title in order; the text before the first is under "". Reads NumPy, Google and reST layouts.

    Fenced code, as in docstrings written in Markdown, is omitted.
    """
    titled: dict[str, list[str]] = {"": []}
    title = ""
    lines = without_blocks(docstring, marks="`").split("\n")
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        if line.strip() and not line.startswith(" ") and UNDERLINE.match(following):
            title = line.strip()
        elif GOOGLE.match(line):
            title = line.rstrip(":")
        elif not UNDERLINE.match(line):
            if FIELD.match(line) and not title:
                title = "Fields"
            titled.setdefault(title, []).append(line)
        titled.setdefault(title, [])
    return {title: "\n".join(text).strip("\n") for title, text in titled.items()}


def clean(text: str) -> str:
    """Paragraphs of prose without markup. Examples, code blocks, lists, tables and directives are omitted."""
    paragraphs = []
    for paragraph in re.split(r"\n\s*\n", text):
        lines = paragraph.split("\n")
        first = lines[0].lstrip()
        indented = all(line.startswith(" ") for line in lines if line.strip())
        listed = any(re.match(r"\s*([-*+•]|\d+[.)]|\(\w\)) ", line) for line in lines)
        if not first or first.startswith((">>>", "..", "|", "+-", "==")) or indented or listed:
            continue
        words = unmarked(" ".join(" ".join(lines).split()))
        if ">>>" not in words and "\\" not in words:
            paragraphs.append(words)
    return "\n\n".join(paragraphs)


def unmarked(text: str) -> str:
    """A line of reST without its roles, quotes, links and footnote marks."""
    text = re.sub(r":[\w:+-]+:`([^`<]*?)\s*<[^`>]*>`", r"\1", text)
    text = re.sub(r":[\w:+-]+:`~(?:[\w]+\.)*(\w+)`", r"\1", text)
    text = re.sub(r":[\w:+-]+:`[~!]?([^`]*)`", r"\1", text)
    text = re.sub(r"`([^`<]+?)\s*<[^`>]*>`__?", r"\1", text)
    text = re.sub(r"\s*\[[\w, -]{1,12}\]_", "", text)
    text = re.sub(r"``?([^`]+)``?_?", r"\1", text)
    text = re.sub(r"\*\*?([^*\s](?:[^*]*[^*\s])?)\*\*?", r"\1", text)
    return re.sub(r"::$", ":", text).strip()


def sentences(prose: str) -> list[str]:
    """The sentences of a paragraph of plain prose."""
    found: list[str] = []
    for piece in ENDED.split(prose.strip()):
        if found and ABBREVIATION.search(found[-1]):
            found[-1] += " " + piece
        elif piece:
            found.append(piece)
    return found


def summary(docstring: str) -> str:
    """The first sentence of a docstring as plain prose; "" when it has none."""
    first = clean(sections(docstring)[""]).split("\n\n")[0]
    return next(iter(sentences(first)), "")


def without_examples(docstring: str) -> str:
    """The docstring up to its first section of examples or interactive line, fenced code omitted."""
    lines = without_blocks(docstring, marks="`").split("\n")
    for number, line in enumerate(lines):
        if line.strip().startswith(">>>") or re.match(r"^Examples?:?$", line):
            lines = lines[:number]
            break
    return "\n".join(lines).rstrip()
