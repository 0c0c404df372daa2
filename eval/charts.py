"""Charts as SVG, either in a page, whose style sheet defines the colours, or as a file of their own.

Sizes are in units of the view box, about a pixel each at half the width of a page; text is 12 units high.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from common.html import Safe, element, join

# A file of its own has no style sheet: these are the colours of common/page.css.
LIGHT = "--paper: #fcfcfa; --ink: #1d2126; --muted: #5f6670; --line: #dfe1e0; --before: #858f9a; --after: #1f6f78;"
DARK = "--paper: #15181b; --ink: #e4e6e7; --muted: #9aa1aa; --line: #31373d; --before: #8b95a0; --after: #5cbcc5;"
FONT = "font: 12px system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif;"

WIDTH = 440
LETTER = 7.6  # average width of a letter, at most, even on a phone, which shows them larger
MOST_POINTS = 400  # drawn of a line
MOST_STEPS = 6  # between the ticks of an axis
Interval = Sequence[float]


@dataclass(frozen=True)
class Line:
    """A curve: its name, its points (x, y) from left to right, and how it is drawn."""

    name: str
    points: list[tuple[float, float]]
    color: str  # the name of a variable in the style sheet
    faint: bool = False
    dots: bool = False


@dataclass(frozen=True)
class Scale:
    """Maps values low..high to positions start..end."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """The position of a value."""
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self) -> list[float]:
        """At most MOST_STEPS + 1 round values in the range: multiples of 1, 2 or 5 times a power of ten."""
        unit = 10.0 ** math.floor(math.log10((self.high - self.low) / MOST_STEPS))
        step = next(unit * factor for factor in (1, 2, 5, 10) if (self.high - self.low) / (unit * factor) <= MOST_STEPS)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [float(f"{i * step:.10g}") for i in range(first, last + 1)]


def _scale(values: Sequence[float], start: float, end: float, *, room: float = 0.05) -> Scale:
    """A scale for all values, with a margin of `room` times their range."""
    low, high = min(values), max(values)
    margin = room * (high - low) or abs(low) * 0.1 or 1.0
    return Scale(low - margin, high + margin, start, end)


def loss_curve(steps: list[dict], unit: str) -> Safe | None:
    """Training and validation loss over the steps of a metrics.jsonl; None if it has no loss."""
    train, validation = _column(steps, "loss"), _column(steps, "validation_loss")
    window = max(1, len(train) // 20)
    mean = [
        (train[i][0], math.fsum(y for _, y in train[i - window + 1 : i + 1]) / window)
        for i in range(window - 1, len(train))
    ]
    return curve(
        f"Loss, {unit}",
        [
            Line("training", train, "before", faint=window > 1),
            Line(f"mean of {window} steps", mean if window > 1 else [], "before"),
            Line("validation", validation, "after", dots=True),
        ],
    )


def norm_curve(steps: list[dict]) -> Safe | None:
    """The gradient norm over the steps of a metrics.jsonl; None if it has none."""
    return curve("Norm of the gradient, before clipping", [Line("norm", _column(steps, "norm"), "before")])


def _column(steps: list[dict], key: str) -> list[tuple[float, float]]:
    return [(row["step"], row[key]) for row in steps if row.get(key) is not None]


def curve(title: str, lines: list[Line]) -> Safe | None:
    """Lines over the training steps, with values that common/page.js shows at the pointer; None without a point.

    Of a line with more than MOST_POINTS points every n-th is drawn, including the last.
    """
    lines = [Line(one.name, _thinned(one.points), one.color, one.faint, one.dots) for one in lines if one.points]
    if not lines:
        return None
    height, top, bottom = 230, 8, 26
    parts, across = _plotted(lines, top, height - bottom)
    parts.append(element("line", x1="0", y1=f"{top}", x2="0", y2=f"{height - bottom}", class_="cursor"))
    values = [[[round(across(x), 1), f"{x:g}", f"{y:.4g}"] for x, y in line.points] for line in lines]
    keys = [
        element("span", _swatch(line) + f"{line.name} " + element("b", of_line[-1][2]), class_="key")
        for line, of_line in zip(lines, values, strict=True)
    ]
    last_step = max(of_line[-1][1] for of_line in values)
    legend = element("p", join([element("span", f"step {last_step}", class_="at"), *keys], " "))
    data = {"data-lines": json.dumps(values, separators=(",", ":"))}
    return _figure(title, _svg(parts, WIDTH, height, f"{title}, over steps", **data), legend, class_="chart curve")


def curve_picture(title: str, lines: list[Line]) -> str:
    """The same as an SVG file of its own, with a line of text for each line, in its colour, and its last value."""
    lines = [Line(one.name, _thinned(one.points), one.color, one.faint, one.dots) for one in lines if one.points]
    parts, _ = _plotted(lines, 28, 232)
    parts.append(text_at(title, 0, 14, color="ink"))
    for row, line in enumerate(lines):
        parts.append(text_at(f"{line.name}: {line.points[-1][1]:.4g}", 10, 276 + 18 * row, color=line.color))
    return alone(parts, WIDTH, 276 + 18 * len(lines), f"{title}, over steps")


def _plotted(lines: list[Line], top: float, bottom: float) -> tuple[list[Safe], Scale]:
    """Axes and lines between two heights, and the scale of the steps."""
    up = _scale([y for line in lines for _, y in line.points], bottom, top)
    left = max(len(f"{tick:g}") for tick in up.ticks()) * LETTER + 12
    across = _scale([x for line in lines for x, _ in line.points], left, WIDTH - 10, room=0.01)
    parts = y_axis(up, left)
    steps = [tick for tick in across.ticks() if tick == round(tick)]
    parts += [text_at(f"{tick:g}", across(tick), bottom + 18, "middle") for tick in steps]
    parts += [_drawn(line, [(across(x), up(y)) for x, y in line.points]) for line in lines]
    return parts, across


def _thinned(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Every n-th point, counted from the last, so that it is included."""
    step = max(1, math.ceil(len(points) / MOST_POINTS))
    return points[(len(points) - 1) % step :: step]


def _drawn(line: Line, places: list[tuple[float, float]]) -> Safe:
    width = 1 if line.faint else 1.8
    style = f"fill: none; stroke: var(--{line.color}); stroke-width: {width}; stroke-linejoin: round"
    style += "; opacity: 0.55" if line.faint else ""
    drawn = element("polyline", points=" ".join(f"{x:.1f},{y:.1f}" for x, y in places), style=style)
    return join([drawn, *(dot_at(x, y, line.color) for x, y in places if line.dots or len(places) == 1)], "")


def _swatch(line: Line) -> Safe:
    style = f"background: var(--{line.color})" + ("; opacity: 0.55; height: 1px" if line.faint else "")
    return element("i", style=style)


@dataclass(frozen=True)
class Dot:
    """A value of one series in a row of `dots`, with its interval if it has one."""

    series: str
    color: str
    value: float
    interval: Interval | None = None
    filled: bool = True


def dots(title: str, rows: Mapping[str, Sequence[Dot]]) -> Safe:
    """One row of dots with intervals per name, on a common scale: rates before and after, by category."""
    series = {dot.series: dot for row in rows.values() for dot in row}
    drawn, height = _dot_rows(rows)
    keys = [
        element("span", element("i", style=f"background: var(--{dot.color})", class_="dot") + name, class_="key")
        for name, dot in series.items()
    ]
    legend = element("p", join(keys, " ")) if len(keys) > 1 else Safe("")
    return _figure(title, _svg([drawn], WIDTH, height, f"{title}: {', '.join(series)}"), legend)


def dots_picture(title: str, rows: Mapping[str, Sequence[Dot]]) -> str:
    """The same as an SVG file of its own, with a line of text for each series, in its colour."""
    series = {dot.series: dot for row in rows.values() for dot in row}
    drawn, height = _dot_rows(rows)
    parts = [text_at(title, 6, 14, color="ink"), moved(drawn, 0, 24)]
    for line, (name, dot) in enumerate(series.items()):
        parts.append(text_at(f"● {name}", 10, height + 42 + 18 * line, color=dot.color))
    return alone(parts, WIDTH, height + 36 + 18 * len(series), f"{title}: {', '.join(series)}")


def _dot_rows(rows: Mapping[str, Sequence[Dot]], *, zero: bool = False) -> tuple[Safe, float]:
    """The rows and their height. zero: include 0 in the scale and mark it with a line."""
    ends = [end for row in rows.values() for dot in row for end in (*(dot.interval or ()), dot.value)]
    left = min(170.0, max(map(len, rows)) * LETTER + 10)
    across = _scale([*ends, 0.0] if zero else ends, left + 6, WIDTH - 14)
    tops, y = [], 4.0
    for row in rows.values():
        tops.append(y)
        y += 12 + 9 * len(row)
    parts = [
        line_down(across(tick), 2, y) + text_at(f"{tick:g}", across(tick), y + 15, "middle") for tick in across.ticks()
    ]
    if zero:
        parts.append(line_down(across(0), 2, y, color="muted"))
    for top, (name, row) in zip(tops, rows.items(), strict=True):
        middle = top + 6 + 4.5 * len(row)
        parts.append(text_at(shortened(name, int((left - 8) / LETTER)), left - 6, middle + 4, "end", color="ink"))
        parts += [_dot_with_interval(dot, across, top + 10.5 + 9 * i, name) for i, dot in enumerate(row)]
    return join(parts, ""), y + 20


def _dot_with_interval(dot: Dot, across: Scale, y: float, name: str) -> Safe:
    label = f"{name}, {dot.series} {dot.value:.4g}"
    parts = []
    if dot.interval:
        low, high = dot.interval
        label += f" [{low:.4g}, {high:.4g}]"
        parts.append(line_across(y, across(low), across(high), color=dot.color, width=1.8))
    parts.append(dot_at(across(dot.value), y, dot.color, filled=dot.filled))
    return element("g", element("title", label) + join(parts, ""))


def bars_picture(title: str, counts: Mapping[str, int]) -> str:
    """An SVG file with a bar and its number for each name."""
    left = min(200.0, max(map(len, counts)) * LETTER + 10)
    across = Scale(0, max(counts.values()), left, WIDTH - 50)
    parts = [text_at(title, 6, 14, color="ink")]
    for row, (name, count) in enumerate(counts.items()):
        y = 40 + 20 * row
        parts.append(text_at(shortened(name, int((left - 8) / LETTER)), left - 6, y, "end", color="ink"))
        parts.append(line_across(y - 4, left, max(across(count), left + 1), color="after", width=11))
        parts.append(text_at(f"{count:,}", across(count) + 6, y))
    return alone(parts, WIDTH, 44 + 20 * len(counts), title)


def interval_strip(change: dict, *, lower_is_better: bool, color: str) -> Safe:
    """A change with its interval, as wide as a table cell, on its own scale: right of the line is better."""
    sign = -1 if lower_is_better else 1
    low, high = sorted(sign * end for end in change["interval"])
    reach = max(abs(low), abs(high), abs(change["value"])) or 1.0
    across = Scale(-reach, reach, 5, 115)
    parts = [
        line_down(60, 0, 16, color="muted"),
        line_across(8, across(low), across(high), color=color, width=2.4),
        dot_at(across(sign * change["value"]), 8, color, radius=4),
    ]
    return _svg(parts, 120, 16, "the interval, drawn; right of the line is better", class_="strip")


def interval_picture(changes: dict[str, dict]) -> str:
    """An SVG file of {run: {metric: change}}: one panel per metric, with the change of each run and its interval.

    Distinguishable changes are filled, the others hollow.
    """
    parts, y = [], 0.0
    for metric in dict.fromkeys(metric for of_run in changes.values() for metric in of_run):
        rows = {
            name or "change": [
                Dot("change", "after", one["value"], one["interval"], filled=one["distinguishable"])
                for one in (of_run[metric],)
            ]
            for name, of_run in changes.items()
            if metric in of_run
        }
        drawn, height = _dot_rows(rows, zero=True)
        parts.append(text_at(f"change of {metric}, 95 % interval", 6, y + 14, color="ink") + moved(drawn, 0, y + 20))
        y += height + 34
    return alone(parts, WIDTH, y, "Changes with their intervals")


def alone(parts: Sequence[Safe], width: float, height: float, alternative: str) -> str:
    """An SVG file of its own, light or dark as the reader has it."""
    style = (
        f"svg {{ {LIGHT} background: var(--paper); {FONT} }} @media (prefers-color-scheme: dark) {{ svg {{ {DARK} }} }}"
    )
    return (
        _svg([element("style", Safe(style)), *parts], width, height, alternative, xmlns="http://www.w3.org/2000/svg")
        + "\n"
    )


def _figure(title: str, svg: Safe, legend: Safe, *, class_: str = "chart") -> Safe:
    return element("figure", element("figcaption", title) + svg + legend, class_=class_)


def _svg(parts: Sequence[Safe], width: float, height: float, alternative: str, **attributes: str) -> Safe:
    box = {"viewBox": f"0 0 {width:g} {height:g}", "role": "img", "aria-label": alternative}
    return element("svg", join(parts, ""), **box, **attributes)


def y_axis(up: Scale, left: float) -> list[Safe]:
    """Lines across at the ticks of a scale, with their values on the left."""
    ticks = up.ticks()
    return [line_across(up(y), left, WIDTH - 10) + text_at(f"{y:g}", left - 6, up(y) + 4, "end") for y in ticks]


def x_axis(across: Scale, top: float, bottom: float) -> list[Safe]:
    """Lines down at the ticks of a scale, with their values below."""
    ticks = across.ticks()
    return [line_down(across(x), top, bottom) + text_at(f"{x:g}", across(x), bottom + 15, "middle") for x in ticks]


def moved(part: Safe, x: float, y: float) -> Safe:
    """A part of a chart, with its origin at a point."""
    return element("g", part, transform=f"translate({x:g} {y:g})")


def text_at(text: str, x: float, y: float, anchor: str = "start", *, color: str = "muted") -> Safe:
    """A text, by the start, middle or end of its baseline."""
    return element("text", text, x=f"{x:.1f}", y=f"{y:.1f}", style=f"fill: var(--{color}); text-anchor: {anchor}")


def line_across(y: float, x1: float, x2: float, *, color: str = "line", width: float = 1) -> Safe:
    """A horizontal line."""
    style = f"stroke: var(--{color}); stroke-width: {width}"
    return element("line", x1=f"{x1:.1f}", y1=f"{y:.1f}", x2=f"{x2:.1f}", y2=f"{y:.1f}", style=style)


def line_down(x: float, y1: float, y2: float, *, color: str = "line") -> Safe:
    """A vertical line."""
    return element(
        "line", x1=f"{x:.1f}", y1=f"{y1:.1f}", x2=f"{x:.1f}", y2=f"{y2:.1f}", style=f"stroke: var(--{color})"
    )


def dot_at(x: float, y: float, color: str, *, filled: bool = True, radius: float = 3.6) -> Safe:
    """A point, hollow unless it is filled."""
    style = f"fill: var(--{color if filled else 'paper'}); stroke: var(--{color}); stroke-width: 1.4"
    return element("circle", cx=f"{x:.1f}", cy=f"{y:.1f}", r=f"{radius}", style=style)


def bar(x: float, y: float, width: float, height: float, color: str) -> Safe:
    """A filled rectangle."""
    box = {"x": f"{x:.1f}", "y": f"{y:.1f}", "width": f"{max(0.0, width):.1f}", "height": f"{height:.1f}"}
    return element("rect", style=f"fill: var(--{color})", **box)


def shortened(text: str, most: int) -> str:
    """The end of a text that is too long, since paths differ there."""
    return text if len(text) <= most else f"…{text[1 - most :]}"
