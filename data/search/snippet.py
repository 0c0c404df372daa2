"""What search results show of a unit: its head and its best-matching line, with the query's words highlighted."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from data.search.bm25 import BM25, WORD, stems

MARK, PLAIN = "\033[1;31m", "\033[0m"  # bold red, as in grep
COMMON = 0.7  # rarity of a word in half of the units (ln 2); such words are not distinctive
DEFINES = re.compile(r"((export|default|abstract|async|static) )*(def|class|function\*?|interface)\b")
# What may precede it in other languages: comments, attributes, template parameters.
ABOVE = re.compile(r"\s*(?:/\*.*?\*/|@\w+ \"\"\".*?\"\"\"|(?://|--|#|\[|template\b|@\w|\w+ ::)[^\n]*(?=\n))", re.DOTALL)


def distinctive_words(query: str, bm25: BM25) -> dict[str, float]:
    """The stems of the query's distinctive words, with their rarity."""
    rarity = {stem: bm25.rarity(stem) for stem in stems(query)}
    return {stem: weight for stem, weight in rarity.items() if weight > COMMON}


def head(unit: Mapping) -> str:
    """The line that names a unit, below its comments and decorators; for a file, its path."""
    code, start = unit["code"], 0
    while unit.get("kind") != "file" and (found := ABOVE.match(code, start)):
        start = found.end()
    lines = code[start:].lstrip().split("\n")
    return lines[0] if unit.get("kind") == "file" else next(filter(DEFINES.match, lines), lines[0])


def matching_line(code: str, weights: Mapping[str, float]) -> str:
    """The first line with the largest total weight of these stems; "" if none occurs."""
    weighed = [(sum(weights.get(stem, 0.0) for stem in set(stems(line))), line) for line in code.split("\n")]
    weight, line = max(weighed, key=lambda one: one[0])
    return line.strip() if weight > 0 else ""


def marked(line: str, marked_stems: Collection[str]) -> str:
    """The line with the words of these stems highlighted for a terminal."""

    def mark(word: re.Match) -> str:
        return f"{MARK}{word[0]}{PLAIN}" if set(stems(word[0])) & set(marked_stems) else word[0]

    return WORD.sub(mark, line)


def printable(text: str) -> str:
    """The text without what could move a terminal's cursor or colour it."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in str(text).expandtabs(4))
