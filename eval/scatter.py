"""Scatter plots over a logarithmic axis, as SVG: what a result costs against how good it is, or learning curves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from common.html import Safe, element, join
from eval.charts import LETTER, WIDTH, Scale, alone, dot_at, line_across, line_down, moved, text_at, y_axis

HEIGHT, TOP, BOTTOM, LEFT = 210, 8, 34, 48
LINE = 12  # height of a text
MOST_TICKS = 6


@dataclass(frozen=True)
class Point:
    """A measured value: what it is called, where it is, its interval."""

    name: str
    x: float
    y: float
    interval: Sequence[float]
    color: str = "after"


def stacked(panels: Sequence[tuple[str, Safe]], alternative: str) -> str:
    """One below the other, as a file; "" without any."""
    step = HEIGHT + 46
    parts = [
        text_at(title, 6, step * number + 14, color="ink") + moved(panel, 0, step * number + 22)
        for number, (title, panel) in enumerate(panels)
    ]
    return alone(parts, WIDTH, step * len(panels), alternative) if panels else ""


def panel(points: Sequence[Point], lines: Mapping[str, float], label: str, *, joined: bool = False) -> Safe:
    """Points with their intervals over a logarithmic axis, and horizontal lines, with their names and values below.

    joined  connect the points of the same name, and write the name at the last of them alone
    """
    # axes: room for every interval, powers of ten (or 1, 2 and 5 times them) below
    ends = [end for point in points for end in (*point.interval, point.y)] + [*lines.values()]
    margin = 0.05 * (max(ends) - min(ends) or 1)
    up = Scale(min(ends) - margin, max(ends) + margin, HEIGHT - BOTTOM, TOP)
    logs = [math.log10(point.x) for point in points]
    reach = max(logs) - min(logs) or 1.0
    across = Scale(min(logs) - 0.08 * reach, max(logs) + 0.2 * reach, LEFT, WIDTH - 10)
    parts = y_axis(up, LEFT)
    for tick in log_ticks(across.low, across.high):
        x = across(math.log10(tick))
        parts += [line_down(x, TOP, HEIGHT - BOTTOM), text_at(short(tick), x, HEIGHT - BOTTOM + 14, "middle")]
    parts.append(text_at(label, WIDTH - 10, HEIGHT - 4, "end"))

    # what is not trained, named below; then the methods
    parts += [line_across(up(value), LEFT, WIDTH - 10, color="before") for value in lines.values()]
    named_lines = ", ".join(f"{name} {value:.2f}" for name, value in sorted(lines.items(), key=lambda one: one[1]))
    parts.append(text_at(named_lines, WIDTH - 10, HEIGHT + LINE, "end", color="before"))
    places = [(across(math.log10(point.x)), up(point.y)) for point in points]
    for point, (x, y) in zip(points, places, strict=True):
        low, high = point.interval
        title = element("title", f"{point.name} {point.y:.4g} [{low:.4g}, {high:.4g}] at {point.x:,.4g}")
        drawn = line_down(x, up(low), up(high), color=point.color) + dot_at(x, y, point.color)
        parts.append(element("g", title + drawn))
    last = {point.name: number for number, point in enumerate(points)}
    if joined:
        parts += [_joined(name, points, places) for name in last]
    named = [number for number, point in enumerate(points) if not joined or last[point.name] == number]
    names = [(points[number].name, *places[number]) for number in named]
    parts += [text_at(name, x, y, color="ink") for name, x, y in apart(names)]
    return join(parts, "")


def _joined(name: str, points: Sequence[Point], places: Sequence[tuple[float, float]]) -> Safe:
    chosen = [number for number, point in enumerate(points) if point.name == name]
    path = " ".join(f"{places[number][0]:.1f},{places[number][1]:.1f}" for number in chosen)
    style = f"fill: none; stroke: var(--{points[chosen[0]].color}); stroke-width: 1.6"
    return element("polyline", points=path, style=style)


def apart(names: Sequence[tuple[str, float, float]]) -> list[tuple[str, float, float]]:
    """Names beside their points, (name, x, y) each, moved down where they would cover one another."""
    placed: list[tuple[str, float, float]] = []
    for name, at, y in sorted(names, key=lambda one: one[2]):
        width = LETTER * len(name)
        x = at + 7 if at + 7 + width < WIDTH else at - 7 - width
        for other, other_x, other_y in placed:
            covers = x < other_x + LETTER * len(other) and other_x < x + width
            if covers and abs(y + 4 - other_y) < LINE:
                y = other_y + LINE - 4
        placed.append((name, x, y + 4))
    return placed


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten between two logarithms; with fewer than three of them also 2 and 5 times, or tenths of them."""
    powers = range(math.floor(low), math.ceil(high) + 1)
    for factors in ((1,), (1, 2, 5), tuple(tenth / 10 for tenth in range(10, 100))):
        ticks = [factor * 10.0**power for power in powers for factor in factors]
        ticks = [tick for tick in ticks if low <= math.log10(tick) <= high]
        if len(ticks) >= 3:
            break
    return ticks[:: math.ceil(len(ticks) / MOST_TICKS)]


def short(value: float) -> str:
    """10 k, 1 M; 0.5."""
    for unit, name in ((1e6, " M"), (1e3, " k")):
        if value >= unit:
            return f"{value / unit:g}{name}"
    return f"{value:.3g}"
