"""The distributions in a data card, as bar charts: a table of text bars for Markdown, an SVG for HTML."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from common.html import Safe, template
from data.card.material import Material, all_pairs, check_of

MOST = 12  # bars; the rest are merged into one
TEXT_WIDTH = 30  # of the longest bar, in characters
SVG = template(Path(__file__).parent / "bars.html.j2")


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

    def as_html(self) -> Safe:
        """A figure with an SVG."""
        return SVG(title=self.title, counts=self.counts)


def distributions(material: Material) -> list[Bars | None]:
    """Category, length, kind of bug and module, of the pairs or else of the files."""
    found: list[Bars | None] = []
    if material.corpus:
        files = material.corpus.files
        found += [
            by_size("lines of a file", (file.text.count("\n") for file in files)),
            by_folder("files by folder", (file.path for file in files)),
        ]
    if material.instruct:
        pairs = all_pairs(material.instruct)
        bugs = (check_of(pair)["bug"] for pair in pairs if check_of(pair).get("bug"))
        found += [
            most_common("instruction pairs by category", (pair.get("category", "none") for pair in pairs)),
            by_size("characters of an answer", (len(pair.get("output") or "") for pair in pairs)),
            most_common("injected bugs by kind", bugs),
            by_folder("instruction pairs by folder", _paths(pairs)),
        ]
    if material.pairs:
        pairs = [*material.pairs.train, *material.pairs.test]
        origins = (pair.get("origin", pair["kind"]) for pair in pairs)
        found += [
            most_common("text–code pairs by what the query is from", origins),
            by_size("characters of a code", (len(row["code"]) for row in material.pairs.candidates)),
            by_folder("text–code pairs by folder", _paths(pairs)),
        ]
    return found


def _paths(pairs: list[dict]) -> list[str]:
    sources = [pair.get("source") or {} for pair in pairs]
    return [source["path"] for source in sources if source.get("path")]


def most_common(title: str, names: Iterable[str]) -> Bars | None:
    """How often each name occurs, most frequent first; None without any."""
    counts = sorted(Counter(names).items(), key=lambda item: (-item[1], item[0]))
    shown = dict(counts[:MOST])
    if rest := counts[MOST:]:
        shown[f"{len(rest)} others"] = sum(count for _, count in rest)
    return Bars(title, shown) if shown else None


def by_folder(title: str, paths: Iterable[str]) -> Bars | None:
    """How many paths each folder holds."""
    return most_common(title, (str(PurePosixPath(path).parent) for path in paths))


def by_size(title: str, sizes: Iterable[int]) -> Bars | None:
    """How many values fall between successive powers of two; None without any."""
    bits = Counter(size.bit_length() for size in sizes)
    if not bits:
        return None
    ranges = range(min(bits), max(bits) + 1)
    return Bars(title, {f"{1 << n >> 1:,}–{(1 << n) - 1:,}" if n else "0": bits[n] for n in ranges})
