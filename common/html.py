"""HTML that contains only what was escaped: templates, elements, and the small part of Markdown that our files use.

What a model generates is hostile until shown otherwise. Templates are rendered with autoescape, and every function here
takes plain text and escapes it; only `Safe` markup, which these functions return, passes unchanged.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from common.highlight import pieces, pieces_of_file
from common.markdown import closes

HERE = Path(__file__).parent
SCRIPT = (HERE / "page.js").read_text(encoding="utf-8")
HASH = base64.b64encode(hashlib.sha256(f"\n{SCRIPT}".encode()).digest()).decode()
# Should an escape ever be missed, nothing would load, and no script would run except this one.
POLICY = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{HASH}'"
FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)
CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")  # not allowed in HTML or UTF-8
SHOWN = 6000  # characters of one prompt or answer

Safe = Markup


def safe(value: object) -> Safe:
    """Escaped text of any value; Safe passes unchanged. Characters that HTML does not allow become U+FFFD."""
    return value if isinstance(value, Safe) else escape(CONTROL.sub("\ufffd", str(value)))


def join(parts: Iterable[object], between: str = "\n") -> Safe:
    """The parts, each made safe, in one piece; empty ones are skipped."""
    return Safe(between.join(safe(part) for part in parts if part))


def element(name: str, content: object = "", **attributes: str) -> Safe:
    """<name ...>content</name>; the attribute `class` is given as `class_`."""
    given = "".join(f' {key.rstrip("_")}="{safe(value)}"' for key, value in attributes.items())
    return Safe(f"<{name}{given}>{safe(content)}</{name}>")


def note(text: object) -> Safe:
    """A paragraph in small grey type."""
    return element("p", text, class_="note")


def template(path: Path) -> Callable[..., Safe]:
    """Render a Jinja template: call the result with the variables that it uses. Undefined variables are an error.

    It can import common/macros.html.j2, and has the filters `markdown` and `highlighted` besides Jinja's own.
    """
    rendered = _environment(path.parent).get_template(path.name).render
    return lambda **variables: Safe(rendered(**variables))


@functools.cache
def _environment(folder: Path) -> Environment:
    environment = Environment(
        loader=FileSystemLoader([folder, HERE]),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: value if isinstance(value, Safe) else CONTROL.sub("\ufffd", str(value)),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"markdown": markdown, "highlighted": highlighted, "cut": _cut}
    return environment


def _cut(value: object) -> tuple[str, int]:
    """A text's first SHOWN characters, and the number of those that were cut off. Other values are shown as JSON."""
    text = value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False)
    return text[:SHOWN], max(0, len(text) - SHOWN)


def highlighted(text: str, file_name: str | None = None) -> Safe:
    """<code> with a <span> around each piece whose kind common/highlight.py recognises, in the language of the file."""
    found = pieces(text) if file_name is None else pieces_of_file(text, file_name)
    spans = (element("span", piece, class_=kind) if kind else safe(piece) for kind, piece in found)
    return element("code", Safe("".join(spans)))


def page(title: str, about: str, sections: Sequence[tuple[str, str, Safe]], *, style: str = "") -> str:
    """A whole page that loads nothing from outside itself.

    sections  (anchor, heading, content), in order
    style     rules added to page.css
    Its only script is page.js, the one that its content security policy allows.
    """
    render = template(HERE / "page.html.j2")
    rules = Safe((HERE / "page.css").read_text(encoding="utf-8") + style)
    return str(
        render(title=title, about=about, sections=sections, policy=Safe(POLICY), rules=rules, script=Safe(SCRIPT))
    )


def markdown(text: str, *, top: int = 3) -> Safe:
    """Headings (the first level becomes <h{top}>), tables, lists, fenced code, paragraphs, `code` and **bold**.

    YAML front matter is omitted, as hubs do. Anything else is shown as typed; links stay text, so that the page points
    nowhere.
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
            blocks.append(_macros().table(head, body, texts=width))
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


def _macros():
    """The macros of common/macros.html.j2, as functions."""
    return _environment(HERE).get_template("macros.html.j2").module


def _until(lines: list[str], ends) -> tuple[list[str], list[str]]:
    end = next((i for i, line in enumerate(lines) if ends(line)), len(lines))
    return lines[:end], lines[end:]


def _cells(row: str) -> list[str]:
    return [
        cell.replace(r"\|", "|") for cell in re.split(r"(?<!\\)\|", row.strip().removeprefix("|").removesuffix("|"))
    ]


def _list(lines: list[str], name: str) -> Safe:
    """One level of items; a line that does not start an item continues the previous one."""
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
        parts.append(Safe(re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", str(safe(pieces[i])))))
        if i + 2 < len(pieces):
            parts.append(element("code", pieces[i + 2].strip()))
    return Safe("".join(parts))
