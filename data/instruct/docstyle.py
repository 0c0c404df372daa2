"""Reads docstrings in any of the three usual layouts and writes Google's.

    NumPy                      reST                          Google
    Parameters                 :param values: Numbers.       Args:
    ----------                 :type values: list of int         values (list of int): Numbers.
    values : list of int       :returns: The sum.
        Numbers.               :rtype: int                   Returns:
                                                                 int: The sum.
Google Python Style Guide, 3.8.3; the layouts as Sphinx's napoleon and numpydoc describe them.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from dataclasses import dataclass, field, replace
from itertools import takewhile

from common.markdown import blocks
from common.python_syntax import parsed
from data.instruct.prose import sections, unmarked

WIDTH = 88  # columns of a docstring
TITLES = {
    "Args": "Args", "Arg": "Args", "Arguments": "Args", "Argument": "Args", "Parameters": "Args",
    "Other Parameters": "Args", "Keyword Arguments": "Args", "Returns": "Returns", "Return": "Returns",
    "Yields": "Yields", "Yield": "Yields", "Raises": "Raises",
}  # fmt: skip
KINDS = ("Args", "Returns", "Yields", "Raises")
FIELD = re.compile(r"^:(\w+)\s*([^:]*):[ \t]*(.*)$")
FIELD_KINDS = {
    "param": "Args", "parameter": "Args", "arg": "Args", "argument": "Args", "key": "Args", "keyword": "Args",
    "return": "Returns", "returns": "Returns", "yield": "Yields", "yields": "Yields",
    "raise": "Raises", "raises": "Raises", "except": "Raises", "exception": "Raises",
}  # fmt: skip
NO_NAMES = {*TITLES, "Note", "Notes", "NB", "Example", "Examples", "Warning"}  # "Returns: the sum." among the arguments
NAMES = r"\*{0,2}\w+(?:\s*,\s*\*{0,2}\w+)*"
NUMPY_HEAD = re.compile(rf"^({NAMES})\s*:\s*(.*)$")
GOOGLE_HEAD = re.compile(rf"^({NAMES}|[\w.]+)\s*(?:\((.*?)\))?\s*:(?:\s+(.*))?$")  # an exception's name may have dots
GOOGLE_RESULT = re.compile(r"^([A-Za-z_][\w.\[\], |]{0,60}):\s+(.*)$")
LITERAL = re.compile(r"(\"\"\"|''')(.*?)(?:\1|\Z)", re.DOTALL)
DOCUMENTED = ast.Module | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


@dataclass(frozen=True)
class Entry:
    """One argument, result or exception. `name` is "" for a result without one; `type` and `text` may be "" too."""

    name: str
    type: str
    text: str


@dataclass(frozen=True)
class Documented:
    """A parsed docstring: its first paragraph, and the entries of "Args", "Returns", "Yields" and "Raises"."""

    summary: str
    entries: dict[str, list[Entry]] = field(default_factory=dict)


def docstring_in(text: str) -> str:
    """The docstring in an answer, dedented: that of a repeated function, a string literal, or the text itself.

    Each of the three may be fenced.
    """
    text = textwrap.dedent(text.replace("\r\n", "\n")).strip()
    if parsed(text) is None:
        text = textwrap.dedent(_unfenced(text)).strip()
    tree = parsed(text)
    for node in [tree, *tree.body] if tree else []:
        if isinstance(node, DOCUMENTED) and ast.get_docstring(node):
            return ast.get_docstring(node).strip()
    literal = LITERAL.search(text)
    return inspect.cleandoc(literal[2] if literal else text).strip()


def _unfenced(text: str) -> str:
    """The block that is the docstring; the whole text if its blocks are only the docstring's examples.

    That is the first block that contains a docstring. Fenced plain text is one if nothing, or only a line that ends
    with a colon, precedes it.
    """
    found = blocks(text)
    for block in found:
        tree = parsed(textwrap.dedent(block.text))
        if tree and any(isinstance(node, DOCUMENTED) and ast.get_docstring(node) for node in [tree, *tree.body]):
            return block.text
    if not found or parsed(textwrap.dedent(found[0].text)) is not None:
        return text
    before = "\n".join(text.split("\n")[: found[0].start]).strip()
    is_announced = not before or ("\n" not in before and before.endswith(":"))
    return found[0].text if is_announced and not found[0].text.lstrip().startswith(">>>") else text


def read_docstring(docstring: str) -> Documented:
    """Parses a dedented docstring (`inspect.cleandoc`) in NumPy's, Google's or reST's layout."""
    parts = sections(docstring)
    entries: dict[str, list[Entry]] = {}
    for title, body in parts.items():
        if title == "Fields":
            for kind, found in _fields(body).items():
                entries.setdefault(kind, []).extend(found)
        elif title in TITLES:
            is_google = bool(re.search(rf"^{re.escape(title)}:\s*$", docstring, re.MULTILINE))
            body = _indented(body) if is_google else body
            entries.setdefault(TITLES[title], []).extend(_entries(TITLES[title], body, is_google))
    summary = "\n".join(map(unmarked, parts[""].strip().split("\n\n")[0].split("\n")))
    return Documented(summary, {kind: entries[kind] for kind in KINDS if entries.get(kind)})


def write_google(documented: Documented) -> str:
    """The docstring's text, without quotes, in Google's layout."""
    parts = [documented.summary]
    for kind, entries in documented.entries.items():
        parts.append(f"{kind}:\n" + "\n".join(_line(entry) for entry in entries))
    return "\n\n".join(parts)


def quoted(text: str) -> str:
    """The text as a string literal in triple quotes, a raw one if it contains a backslash."""
    prefix = "r" if "\\" in text else ""
    return f'{prefix}"""{text}"""'


def _line(entry: Entry) -> str:
    head = f"{entry.name} ({entry.type})" if entry.name and entry.type else entry.name or entry.type
    text = f"{head}: {entry.text}" if head and entry.text else f"{head}:" if entry.name else head or entry.text
    return textwrap.fill(
        text, WIDTH, initial_indent="    ", subsequent_indent="        ", break_long_words=False, break_on_hyphens=False
    )


def _indented(body: str) -> str:
    """The indented part of a Google section; all of it where nothing is indented."""
    lines = body.split("\n")
    if not lines[0].startswith(" "):
        return body
    return "\n".join(takewhile(lambda line: not line.strip() or line.startswith(" "), lines))


def _entries(kind: str, body: str, is_google: bool) -> list[Entry]:
    """Entries of a section: an unindented head each, with the indented text below it."""
    blocks: list[list[str]] = []
    for line in textwrap.dedent(body).split("\n"):
        if line and not line[0].isspace():
            blocks.append([line])
        elif blocks:
            blocks[-1].append(line)
    is_listed = any(_paragraph(block[1:]) for block in blocks)
    is_listed = is_listed or (not is_google and all(NUMPY_HEAD.match(block[0]) for block in blocks))
    if kind in ("Returns", "Yields") and blocks and not is_listed:
        blocks = [["\n".join(line for block in blocks for line in block)]]  # plain prose over several lines
    read = _google_entry if is_google else _numpy_entry
    return [entry for block in blocks if block[0].strip() for entry in read(kind, block[0], _paragraph(block[1:]))]


def _numpy_entry(kind: str, head: str, text: str) -> list[Entry]:
    found = NUMPY_HEAD.match(" ".join(head.split()))
    if kind == "Raises" or (kind != "Args" and not found):
        return [_result(kind, " ".join(head.split()), text)]
    if not found:
        found = re.match(rf"^({NAMES})()$", head.strip())
    if not found:
        return []  # prose between the arguments
    names = [name.strip() for name in found[1].split(",")]
    return [Entry(name, unmarked(found[2]).rstrip("."), text) for name in names]


def _google_entry(kind: str, head: str, text: str) -> list[Entry]:
    head = " ".join(head.split())
    if kind in ("Returns", "Yields"):
        found = GOOGLE_RESULT.match(head)
        first = unmarked(found[2] if found else head)
        return [Entry("", found[1] if found else "", f"{first} {text}".strip())]
    found = GOOGLE_HEAD.match(head)
    if not found or found[1] in NO_NAMES:
        return []
    text = f"{unmarked(found[3] or '')} {text}".strip()
    return [Entry(name.strip(), unmarked(found[2] or ""), text) for name in found[1].split(",")]


def _result(kind: str, head: str, text: str) -> Entry:
    """A result or an exception in NumPy's layout: a type with its text below, or only a sentence."""
    head = unmarked(head)
    if kind == "Raises":  # some write `Error : exception`, some the condition after the colon
        name, _, condition = head.partition(":")
        return Entry(name.strip(), "", text or condition.strip())
    if text:
        return Entry("", head, text)
    is_sentence = len(head.split()) > 3 or head.endswith(".")
    return Entry("", "", head) if is_sentence else Entry("", head, "")


def _fields(body: str) -> dict[str, list[Entry]]:
    """reST's field list. `:type:` and `:rtype:` are merged into the entries that they describe."""
    fields: list[list[str]] = []
    for line in body.split("\n"):
        found = FIELD.match(line)
        if found:
            fields.append([found[1], found[2].strip(), found[3]])
        elif fields:
            fields[-1][2] += " " + line.strip()
    types = {name: text.strip() for tag, name, text in fields if tag == "type"}
    result_type = next((text.strip() for tag, _, text in fields if tag == "rtype"), "")
    entries: dict[str, list[Entry]] = {}
    for tag, name, text in fields:
        kind = FIELD_KINDS.get(tag)
        if kind is None:
            continue
        text = unmarked(" ".join(text.split()))
        *typed, name = name.split() or [""]
        entry = Entry(name, " ".join(typed), text)
        if kind == "Args":
            entry = replace(entry, type=unmarked(entry.type or types.get(name, "")))
        elif kind != "Raises":
            entry = Entry("", unmarked(result_type), text)
        entries.setdefault(kind, []).append(entry)
    if result_type and not {"Returns", "Yields"} & entries.keys():
        entries["Returns"] = [Entry("", unmarked(result_type), "")]
    return entries


def _paragraph(lines: list[str]) -> str:
    """The first paragraph of an indented text, as one line without markup."""
    first = textwrap.dedent("\n".join(lines)).strip("\n").split("\n\n")[0]
    return unmarked(" ".join(first.split()))
