"""JSDoc: what a comment says of the parameters and the result, and a comment written anew without the rest."""

from __future__ import annotations

import re
from dataclasses import dataclass

# a tag at the start of a line, up to the next one
_TAG = re.compile(r"^@(\w+)[ \t]*(.*?)(?=^@|\Z)", re.MULTILINE | re.DOTALL)
_TYPE = r"(\{(?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*\})?"  # in braces, which may hold others
# {type} [name=default] - text
_PARAM = re.compile(_TYPE + r"\s*(\[[^\]]*\]|[\w$.]+)\s*-?\s*(.*)", re.DOTALL)
_RESULT = re.compile(_TYPE + r"\s*(.*)", re.DOTALL)


@dataclass(frozen=True)
class Described:
    """A parameter or a result: its type in braces ("" without one), its name, and what is said of it."""

    type: str
    name: str
    text: str


@dataclass(frozen=True)
class Documentation:
    """The tags of a JSDoc comment that say how a function is called."""

    params: tuple[Described, ...]
    returns: Described | None


def read_jsdoc(comment: str) -> Documentation:
    """The parameters and the result of a comment; tags of destructured members (`options.name`) are omitted."""
    plain = comment.removeprefix("/**").removesuffix("*/")
    lines = "\n".join(re.sub(r"^\s*\* ?|^\s+(?=@)", "", line) for line in plain.split("\n"))
    params, returns = [], None
    for tag, text in _TAG.findall(lines):
        if tag in ("param", "arg", "argument") and (match := _PARAM.fullmatch(text.strip())):
            name = match[2].strip("[]").partition("=")[0].strip()
            if "." not in name:
                params.append(Described(match[1] or "", name, _line(match[3])))
        elif tag in ("returns", "return") and (match := _RESULT.fullmatch(text.strip())):
            returns = Described(match[1] or "", "", _line(match[2]))
    return Documentation(tuple(params), returns)


def write_jsdoc(description: str, documentation: Documentation) -> str:
    """A JSDoc comment with a description, the parameters and the result."""
    lines = [*description.split("\n"), ""]
    for one in documentation.params:
        lines.append(f"@param {one.type} {one.name} {one.text}")
    if documentation.returns is not None:
        lines.append(f"@returns {documentation.returns.type} {documentation.returns.text}")
    tidy = [" ".join(line.split()) for line in lines]
    while not tidy[-1]:
        tidy.pop()
    return "\n".join(["/**", *(f" * {line}".rstrip() for line in tidy), " */"])


def _line(text: str) -> str:
    """The first paragraph, on one line."""
    return " ".join(text.split("\n\n")[0].split())
