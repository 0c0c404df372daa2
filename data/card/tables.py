"""The Markdown of a card: tables, counts, excerpts."""

from __future__ import annotations

import statistics
from collections import Counter

from common.markdown import fenced

SHOWN = 600  # characters of a text shown in an example


def table(head: list[str], rows: list[list]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def counted(counts: Counter) -> str:
    """Names with their counts, most frequent first; "none" without any."""
    return ", ".join(f"{name} {count}" for name, count in counts.most_common()) or "none"


def median(values: list[int]) -> int:
    """The median, 0 without values; the upper one of two."""
    return statistics.median_high(values) if values else 0


def excerpt(text: str) -> str:
    """A text as a fenced block, cut after SHOWN characters."""
    text = text if len(text) <= SHOWN else text[:SHOWN].rstrip() + "\n… (cut here)"
    return fenced(text)
