"""What of a unit is shown: its head, and the line that holds most of the query, with the query's words marked."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from data.search.bm25 import BM25, WORD, stems

MARK, PLAIN = "\033[1;31m", "\033[0m"  # bold red, as grep marks what matches
COMMON = 0.7  # rarity of a word that half of the units hold (ln 2): those tell nothing
DEFINES = re.compile(r"((export|default|abstract|async|static) )*(def|class|function\*?|interface)\b")
# What may stand above it in other languages: comments, attributes, the parameters of a template.
ABOVE = re.compile(r"\s*(?:/\*.*?\*/|(?://|#|\[|template\b|@\w)[^\n]*(?=\n))", re.DOTALL)


def telling_words(query: str, bm25: BM25) -> dict[str, float]:
    """The stems of the query's words that tell units apart, with how rare they are."""
    rarity = {stem: bm25.rarity(stem) for stem in stems(query)}
    return {stem: weight for stem, weight in rarity.items() if weight > COMMON}


def head(unit: Mapping) -> str:
    """The line that names a unit, comments and decorators above it passed over; of a file, its path."""
    code, start = unit["code"], 0
    while unit.get("kind") != "file" and (found := ABOVE.match(code, start)):
        start = found.end()
    lines = code[start:].lstrip().split("\n")
    return lines[0] if unit.get("kind") == "file" else next(filter(DEFINES.match, lines), lines[0])


def telling_line(code: str, telling: Mapping[str, float]) -> str:
    """The first line that holds most of these words by their weight; "" if none holds any."""
    weighed = [(sum(telling.get(stem, 0.0) for stem in set(stems(line))), line) for line in code.split("\n")]
    weight, line = max(weighed, key=lambda one: one[0])
    return line.strip() if weight > 0 else ""


def marked(line: str, telling: Collection[str]) -> str:
    """The line with the words of these stems marked for a terminal."""
    return WORD.sub(lambda found: f"{MARK}{found[0]}{PLAIN}" if set(stems(found[0])) & set(telling) else found[0], line)


def printable(text: str) -> str:
    """The text without what could move a terminal's cursor or colour it."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in str(text).expandtabs(4))
