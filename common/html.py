"""Text to HTML that cannot do anything: escaping, tables, and the small part of Markdown that our own files use.

What a model generates is hostile until shown otherwise. Every function here takes plain text and escapes it; only what
is already `Safe` passes as it is, and only these functions make it.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from common.highlight import pieces
from common.markdown import closes

SCRIPT = Path(__file__).with_name("page.js").read_text(encoding="utf-8")
HASH = base64.b64encode(hashlib.sha256(f"\n{SCRIPT}".encode()).digest()).decode()
# Were an escape ever missed, nothing would load, and no script would run but this one.
POLICY = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{HASH}'"
FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)
CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")  # not allowed in HTML or UTF-8
SHOWN = 6000  # characters of one prompt or answer


class Safe(str):
    """Markup that was made here. Whatever is added to it is made safe first."""

    __slots__ = ()

    def __add__(self, other: object) -> Safe:
        return Safe(f"{self}{safe(other)}")


def safe(value: object) -> Safe:
    """Escaped text of any value; Safe passes unchanged. Characters that HTML has no place for become U+FFFD."""
    return value if isinstance(value, Safe) else Safe(html.escape(CONTROL.sub("\ufffd", str(value))))


def join(parts: Iterable[object], between: str = "\n") -> Safe:
    """The parts, each made safe, in one piece."""
    return Safe(between.join(safe(part) for part in parts if part))


def element(name: str, content: object = "", **attributes: str) -> Safe:
    """<name ...>content</name>; the attribute `class` is given as `class_`."""
    given = "".join(f' {key.rstrip("_")}="{safe(value)}"' for key, value in attributes.items())
    return Safe(f"<{name}{given}>{safe(content)}</{name}>")


def note(text: object) -> Safe:
    """A paragraph in small grey."""
    return element("p", text, class_="note")


def table(head: Sequence[object], rows: Iterable[Sequence[object]], *, texts: int = 1, class_: str = "table") -> Safe:
    """A table that scrolls inside itself and sorts by its heads; an empty `head` is left out.

    The first `texts` columns are text, the others figures set to the right.
    """

    def line(cells: Sequence[object], name: str) -> Safe:
        scope = {"scope": "col"} if name == "th" else {}
        kinds = ("text" if i < texts else "figure" for i in range(len(cells)))
        shown = (element(name, c, class_=k, **scope) for c, k in zip(cells, kinds, strict=True))
        return element("tr", Safe("".join(shown)))

    body = element("tbody", join(line(row, "td") for row in rows))
    return element(
        "div",
        element("table", (element("thead", line(head, "th")) if head else Safe("")) + body),
        class_=class_,
        tabindex="0",  # a region that scrolls must be reachable by keyboard
    )


def code(text: object) -> Safe:
    """Preformatted text, its Python in colour, cut at SHOWN characters; how much was cut is said.

    What is not text is shown as JSON.
    """
    text = text if isinstance(text, str) else json.dumps(text, indent=2, ensure_ascii=False)
    rest = len(text) - SHOWN
    shown = element("pre", highlighted(text[:SHOWN]))
    return shown + note(f"… {rest:,} more characters") if rest > 0 else shown


def highlighted(text: str) -> Safe:
    """<code> with a <span> around each piece that common/highlight.py tells the kind of."""
    spans = (element("span", piece, class_=kind) if kind else safe(piece) for kind, piece in pieces(text))
    return element("code", Safe("".join(spans)))


def page(title: str, about: str, sections: Sequence[tuple[str, str, Safe]], *, style: str = "") -> str:
    """A whole page that loads nothing from outside itself.

    sections  (anchor, heading, content), in order
    style     rules added to page.css
    What moves in it is page.js, the only script that its policy lets run.
    """
    rules = Path(__file__).with_name("page.css").read_text(encoding="utf-8") + style
    links = join(element("a", name, href=f"#{key}") for key, name, _ in sections)
    parts = [element("section", element("h2", name, id=key) + content) for key, name, content in sections]
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<title>{safe(title)}</title>
<style>
{rules}</style>
</head>
<body>
<header>{element("h1", title)}{element("p", about, class_="about")}{element("nav", links)}</header>
<main>
{join(parts)}
</main>
<script>
{SCRIPT}</script>
</body>
</html>
"""


def details(summary: object, content: object) -> Safe:
    """A part that opens on a click."""
    return element("details", element("summary", summary) + safe(content))


def markdown(text: str, *, top: int = 3) -> Safe:
    """Headings (the first level becomes <h{top}>), tables, lists, fenced code, paragraphs, `code` and **bold**.

    YAML front matter is left out, as hubs do. Anything else is shown as it was typed; links stay text, so that the page
    points nowhere.
    """
    blocks: list[Safe] = []
    text = FRONT_MATTER.sub("", text)
    lines = text.replace("\r\n", "\n").split("\n")
    while lines:
        line = lines[0]
        if fence := re.match(r"\s*(`{3,}(?!.*`)|~{3,})", line):
            content, lines = _until(lines[1:], lambda other, mark=fence[1]: closes(other, mark))
            is_python = line.strip().lstrip("`~").strip() in ("", "py", "python")
            fenced = "\n".join(content)
            blocks.append(element("pre", highlighted(fenced) if is_python else element("code", fenced)))
            lines = lines[1:]
        elif heading := re.match(r"(#{1,6})\s+(.*)", line):
            blocks.append(element(f"h{min(6, len(heading[1]) + top - 1)}", _inline(heading[2].rstrip("# "))))
            lines = lines[1:]
        elif len(lines) > 1 and "|" in line and re.fullmatch(r"[\s|:-]*-[\s|:-]*", lines[1]):
            rows, lines = _until(lines, lambda other: "|" not in other)
            cells = [[_inline(cell.strip()) for cell in _cells(row)] for row in (rows[0], *rows[2:])]
            width = max(map(len, cells))
            head, *body = [row + [Safe("")] * (width - len(row)) for row in cells]
            blocks.append(table(head, body, texts=width))
        elif item := re.match(r"\s*([-*+]|\d+[.)])\s+", line):
            items, lines = _until(lines, lambda other: not other.strip())
            blocks.append(_list(items, "ol" if item[1][0].isdigit() else "ul"))
        elif line.strip():
            paragraph, lines = _until(
                lines, lambda other: not other.strip() or re.match(r"#{1,6}\s|\s*(```|~~~)", other)
            )
            blocks.append(element("p", _inline(" ".join(paragraph))))
        else:
            lines = lines[1:]
    return join(blocks)


def _until(lines: list[str], ends) -> tuple[list[str], list[str]]:
    end = next((i for i, line in enumerate(lines) if ends(line)), len(lines))
    return lines[:end], lines[end:]


def _cells(row: str) -> list[str]:
    return [
        cell.replace(r"\|", "|") for cell in re.split(r"(?<!\\)\|", row.strip().removeprefix("|").removesuffix("|"))
    ]


def _list(lines: list[str], name: str) -> Safe:
    """One level; a line that starts no item goes on with the one before."""
    items: list[str] = []
    for line in lines:
        start = re.match(r"\s*([-*+]|\d+[.)])\s+", line)
        if start or not items:
            items.append(line[start.end() :] if start else line)
        else:
            items[-1] += " " + line.strip()
    return element(name, join(element("li", _inline(item)) for item in items))


def _inline(text: str) -> Safe:
    """`code` first, so that ** inside it stays."""
    pieces = re.split(r"(`+)(.+?)\1", text)  # text, mark, code, text, mark, code, ..., text
    parts = []
    for i in range(0, len(pieces), 3):
        parts.append(Safe(re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", safe(pieces[i]))))
        if i + 2 < len(pieces):
            parts.append(element("code", pieces[i + 2].strip()))
    return Safe("".join(parts))
