"""The figures of the paper, drawn by matplotlib from the study's results: the same results give the same bytes.

A PDF names the version of matplotlib that drew it and, as its keyword, the SHA-256 of what is drawn: another version
draws other bytes, with the same keyword.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from common.console import need
from paper.study import Study

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, COLUMN = 6.8, 3.27  # inches: of the text, of a column
COLORS = ("#1f6f78", "#b5532a", "#5b4a9c", "#8a8d29", "#9c3d6e", "#2d6fb5", "#555b63")
MARKERS = "osD^vPX"  # as the colours, of the methods in the order of the plan
STYLE = {
    "font.family": "STIXGeneral", "mathtext.fontset": "stix", "font.size": 8, "axes.titlesize": 8,
    "axes.linewidth": 0.6, "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False,
    "legend.fontsize": 7.5, "xtick.major.width": 0.6, "ytick.major.width": 0.6,
    "pdf.fonttype": 42,  # TrueType, whole letters: Type 3 is refused by some archives
}  # fmt: skip
Points = dict[str, list[tuple[float, float, float, float]]]  # name -> x, y, low, high of each point


def cost_points(study: Study, field: str) -> dict[str, Points]:
    """Task -> method -> its quality with interval, against a cost of the run: "trainable_parameters" or "minutes"."""
    model = study.main_model
    panels: dict[str, Points] = {}
    for task in study.tasks(model):
        points = {}
        for method in study.methods:
            row = study.summary(model, task["task"], method["method"])
            if row and row[field]:
                points[study.short(method["method"])] = [(row[field], *_estimate(row, task["metric"]))]
        panels[f"{task['title']}, {task['metric']}"] = points
    return panels


def reference_lines(study: Study) -> dict[str, dict[str, float]]:
    """Task -> the quality of what needs no training: the zero-shot prompt, and the best classical baseline."""
    model, lines = study.main_model, {}
    for task in study.tasks(model):
        metric, found = task["metric"], {}
        if prompted := study.summary(model, task["task"], "zero-shot"):
            found["zero-shot"] = prompted["metrics"][metric]
        classical = study.rows("summary", model=None, task=task["task"], kind="classical")
        if known := [row["metrics"][metric] for row in classical if metric in row["metrics"]]:
            found["best classical"] = max(known)
        lines[f"{task['title']}, {metric}"] = found
    return lines


def curve_points(study: Study) -> dict[str, Points]:
    """Task -> method -> its quality with interval at each number of training rows."""
    panels: dict[str, Points] = {}
    for curve in study.rows("curves"):
        points = [(one["train_rows"], one["value"], *one["interval"]) for one in curve["points"]]
        name = f"{study.title(curve['task'])}, {curve['metric']}"
        panels.setdefault(name, {})[study.short(curve["method"])] = sorted(points)
    return panels


def _estimate(row: dict, metric: str) -> tuple[float, float, float]:
    low, high = row["intervals"][metric]
    return row["metrics"][metric], low, high


def draw_cost(study: Study) -> bytes | None:
    """Quality against trainable parameters (above) and minutes (below), by task. None without a trained model."""
    rows = [
        ("trainable parameters", cost_points(study, "trainable_parameters")),
        ("minutes", cost_points(study, "minutes")),
    ]
    lines = reference_lines(study)
    if not any(rows[0][1].values()):
        return None
    looks = _looks(study)

    def draw(figure: Figure) -> None:
        axes = figure.subplots(2, len(lines), squeeze=False)
        for place, (label, panels) in enumerate(rows):
            for axis, (name, points) in zip(axes[place], panels.items(), strict=True):
                _draw_points(axis, points, looks, joined=False)
                for style, (reference, value) in zip(("--", ":"), lines[name].items(), strict=False):
                    axis.axhline(value, color="#858f9a", linewidth=0.8, linestyle=style, label=reference)
                scale = "log" if label == "trainable parameters" else "linear"
                axis.set(xscale=scale, xlabel=label, title="" if place else name)
        _legend(figure, axes[0], columns=5)

    return _pdf(draw, (WIDTH, 3.0), [[label, panels] for label, panels in rows] + [lines])


def draw_curves(study: Study) -> bytes | None:
    """Quality against training rows, a panel a task. None before the first curve."""
    panels = curve_points(study)
    if not panels:
        return None
    looks = _looks(study)

    def draw(figure: Figure) -> None:
        (axes,) = figure.subplots(1, len(panels), squeeze=False)
        for axis, (name, points) in zip(axes, panels.items(), strict=True):
            _draw_points(axis, points, looks, joined=True)
            counts = sorted({x for of_method in points.values() for x, *_ in of_method})
            axis.set(xscale="log", xlabel="training rows", title=name)
            axis.set_xticks(counts, [f"{count:,}" for count in counts], minor=False)
            axis.minorticks_off()
        _legend(figure, axes, columns=2)

    return _pdf(draw, (COLUMN, 2.0), panels)


def _looks(study: Study) -> dict[str, tuple[str, str]]:
    """Method -> colour and marker, the same in every figure."""
    names = [study.short(one["method"]) for one in study.rows("methods")]
    looks = list(zip(COLORS, MARKERS, strict=True))
    return {name: looks[place % len(looks)] for place, name in enumerate(names)}


def _draw_points(axis: Axes, points: Points, looks: dict[str, tuple[str, str]], *, joined: bool) -> None:
    for name, of_name in points.items():
        x, y, low, high = zip(*of_name, strict=True)
        reach = [
            [max(0.0, a - b) for a, b in zip(y, low, strict=True)],
            [max(0.0, b - a) for a, b in zip(y, high, strict=True)],
        ]
        color, marker = looks[name]
        axis.errorbar(
            x, y, yerr=reach, label=name, color=color, marker=marker, markersize=3.5, linewidth=1 if joined else 0,
            elinewidth=0.8, capsize=1.5,
        )  # fmt: skip


def _legend(figure: Figure, axes: Sequence[Axes], columns: int) -> None:
    """One legend for all panels, below them."""
    found = {label: handle for axis in axes for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(list(found.values()), list(found), loc="outside lower center", ncols=columns)


def _pdf(draw: Callable[[Figure], None], size: tuple[float, float], data: object) -> bytes:
    """A figure as PDF without a date. The style of the user's matplotlibrc does not matter."""
    need("matplotlib", why="the paper's figures: each", install="matplotlib")
    import matplotlib
    import matplotlib.style
    from matplotlib.figure import Figure

    digest = hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()
    file = io.BytesIO()
    with matplotlib.style.context(["default", STYLE]):
        figure = Figure(figsize=size, layout="constrained")
        draw(figure)
        figure.savefig(file, format="pdf", metadata={"CreationDate": None, "Keywords": digest})
    return file.getvalue()
