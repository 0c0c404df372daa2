"""Bar charts of counts by name: as text for Markdown, as SVG for HTML."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from common.html import Safe, element

MOST = 12  # bars; the rest are merged into one
TEXT_WIDTH = 30  # of the longest bar, in characters
WIDTH, ROW, LABEL, FIGURE = 520, 20, 190, 50  # of the SVG, in its own units; the columns for labels and figures
LABEL_CHARACTERS = 30


@dataclass(frozen=True)
class Bars:
    """A distribution: a title and counts by name, in drawing order."""

    title: str
    counts: dict[str, int]

    def as_markdown(self) -> str:
        """A table with a column of bars."""
        most = max(self.counts.values())
        lines = [f"| {self.title} | n | |", "| --- | ---: | --- |"]
        for name, count in self.counts.items():
            bar = "█" * max(round(TEXT_WIDTH * count / most), count > 0)
            lines.append(f"| {name.replace('|', chr(92) + '|')} | {count:,} | {bar} |")
        return "\n".join(lines)

    def as_picture(self) -> Safe:
        """An SVG that takes its colours from the page."""
        most = max(self.counts.values())
        room = WIDTH - LABEL - FIGURE
        parts = []
        for number, (name, count) in enumerate(self.counts.items()):
            y = ROW * number + ROW - 6
            length = max(1.0 if count else 0.0, room * count / most)
            bar = {"x": f"{LABEL}", "y": f"{y - 10}", "width": f"{length:.1f}", "height": "13"}
            label = name if len(name) <= LABEL_CHARACTERS else f"…{name[1 - LABEL_CHARACTERS :]}"
            parts += [
                _text(label, x=LABEL - 6, y=y, anchor="end", color="ink"),
                element("rect", style="fill: var(--after)", **bar),
                _text(f"{count:,}", x=LABEL + length + 5, y=y, anchor="start", color="muted"),
            ]
        box = f"0 0 {WIDTH} {ROW * len(self.counts)}"
        svg = element("svg", Safe("".join(parts)), viewBox=box, role="img", **{"aria-label": self.title})
        return element("figure", element("figcaption", self.title, class_="note") + svg)


def _text(text: str, *, x: float, y: float, anchor: str, color: str) -> Safe:
    style = f"fill: var(--{color}); font-size: 11px; text-anchor: {anchor}"
    return element("text", text, x=f"{x:.1f}", y=f"{y}", style=style)


def most_common(title: str, names: Iterable[str]) -> Bars | None:
    """How often each name occurs, most frequent first; None without any."""
    counts = sorted(Counter(names).items(), key=lambda item: (-item[1], item[0]))
    shown = dict(counts[:MOST])
    if rest := counts[MOST:]:
        shown[f"{len(rest)} others"] = sum(count for _, count in rest)
    return Bars(title, shown) if shown else None


def by_size(title: str, sizes: Iterable[int]) -> Bars | None:
    """How many values fall between successive powers of two; None without any."""
    bits = Counter(size.bit_length() for size in sizes)
    if not bits:
        return None
    ranges = range(min(bits), max(bits) + 1)
    return Bars(title, {f"{1 << n >> 1:,}–{(1 << n) - 1:,}" if n else "0": bits[n] for n in ranges})
