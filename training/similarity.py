"""Contrastive training as a picture: similarities of queries (rows) and codes (columns), before and after.

    python -m training.similarity --before all-minilm-l6-v2 --after runs/embed/model --data codes/test.jsonl --out F.svg

Query i belongs to code i: training raises the diagonal and lowers everything else. A ring marks the top-ranked code of
each query; on the diagonal it is the right one.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import numpy as np

from common.console import UserError, run_command
from common.files import read_objects, write_text
from common.html import Safe, element
from common.options import option, parse
from model import load_encoder

CELL, GAP, TOP, LEFT = 10, 40, 94, 24  # pixels: of a cell, between the matrices, above them, to their left
LEVELS = 32  # shades
INK, MUTED = "#1f2933", "#616e7c"
LIGHT, DARK = (0xF2, 0xF5, 0xF8), (0x0B, 0x4F, 0x8A)  # colours of the smallest and largest similarity shown


def similarities(encoder, pairs: list[dict]) -> np.ndarray:
    """[N, N]: cosine similarity of query i and code j."""
    queries = np.asarray(encoder.encode([pair["query"] for pair in pairs], kind="query"))
    return queries @ np.asarray(encoder.encode([pair["code"] for pair in pairs], kind="passage")).T


def picture(before: np.ndarray, after: np.ndarray) -> str:
    """Both matrices [N, N] side by side as SVG, on the same colour scale."""
    # one scale for both matrices, and the size of the picture
    least, largest = (float(edge([edge(before), edge(after)])) for edge in (np.min, np.max))
    side = CELL * len(before)
    width, height = 2 * (LEFT + side) + GAP - LEFT + 24, TOP + side + 46
    title = "Similarities of queries and codes before and after training"
    parts = [
        element("title", title),
        element("rect", width=f"{width}", height=f"{height}", rx="8", fill="#ffffff"),
        _text("Row: a query. Column: a code. The diagonal: the code that the query asks for.", LEFT, 32, INK, "600"),
    ]

    # each matrix: two lines of text, its cells, a ring per query
    for number, (name, matrix) in enumerate((("before", before), ("after", after))):
        left = LEFT + number * (side + GAP)
        first, own = matrix.argmax(axis=1), np.eye(len(matrix), dtype=bool)
        right = int((first == np.arange(len(matrix))).sum())
        means = f"own code {matrix[own].mean():.2f}, others {matrix[~own].mean():.2f} on average"
        parts.append(_text(f"{name}: {right} of {len(matrix)} find their code first", left, TOP - 32, INK, "600"))
        parts.append(_text(means, left, TOP - 13, MUTED))
        levels = ((LEVELS - 1) * (matrix - least) / max(1e-9, largest - least)).round().astype(int)
        parts += [_cells(level, levels, left) for level in np.unique(levels)]
        for i, j in enumerate(first):
            ring = "#0a7d33" if i == j else "#c2410c"
            parts.append(_ring(left + CELL * (int(j) + 0.5), TOP + CELL * (i + 0.5), ring))

    # a legend below, and the frame around it all
    legend = (
        f"pale {least:.2f} … dark {largest:.2f} cosine · ring: first for the query, green where it is the right one"
    )
    parts.append(_text(legend, LEFT, TOP + side + 26, MUTED))
    box = {"viewBox": f"0 0 {width} {height}", "width": f"{width}", "height": f"{height}"}
    font = {"font-family": "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif", "font-size": "13"}
    label = {"role": "img", "aria-label": title, "xmlns": "http://www.w3.org/2000/svg"}
    return str(element("svg", Safe("\n".join(parts)), **box, **font, **label)) + "\n"


def _cells(level: int, levels: np.ndarray, left: int) -> Safe:
    """All cells of one shade as one path."""
    share = level / (LEVELS - 1)
    red, green, blue = (round(light + share * (dark - light)) for light, dark in zip(LIGHT, DARK, strict=True))
    places = ((left + CELL * j, TOP + CELL * i) for i, j in np.argwhere(levels == level))
    squares = "".join(f"M{x} {y}h{CELL - 1}v{CELL - 1}h{1 - CELL}z" for x, y in places)
    return element("path", d=squares, fill=f"#{red:02x}{green:02x}{blue:02x}")


def _ring(x: float, y: float, color: str) -> Safe:
    place = {"cx": f"{x - 0.5:g}", "cy": f"{y - 0.5:g}", "r": f"{CELL / 2 - 2.5:g}"}
    return element("circle", fill="none", stroke=color, **place, **{"stroke-width": "2"})


def _text(text: str, x: float, y: float, color: str, weight: str = "normal") -> Safe:
    return element("text", text, x=f"{x:g}", y=f"{y:g}", fill=color, **{"font-weight": weight})


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of this command."""

    before: str = option(help="folder, hub id or embedded default", metavar="MODEL")
    after: str = option(help="the trained model, RUN/model", metavar="MODEL")
    data: str = option(help="text–code pairs that were not trained on, JSON Lines", metavar="FILE")
    out: str = option(help="picture, SVG", metavar="FILE")
    count: int = option(40, "pairs to draw, the first ones by path")


def main() -> None:
    """Command line."""
    options = parse(Options, description=__doc__)
    # the pairs, neighbours in a file beside each other: like competes with like
    pairs = read_objects(options.data)
    for number, pair in enumerate(pairs, 1):
        if not pair.get("query") or not pair.get("code"):
            raise UserError(f"{options.data}:{number}: a pair has a query and a code (this has: {', '.join(pair)})")
    pairs.sort(key=lambda pair: (pair.get("source") or {}).get("path") or "")
    pairs = pairs[: options.count]
    if len(pairs) < 2:
        raise UserError(f"{options.data}: {len(pairs)} pairs to draw; give at least two")

    # both encoders
    before, after = (similarities(load_encoder(name), pairs) for name in (options.before, options.after))
    write_text(options.out, picture(before, after))
    print(f"written to {options.out}")


if __name__ == "__main__":
    sys.exit(run_command(main))
