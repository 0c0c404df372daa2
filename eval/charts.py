"""Pictures: matplotlib's SVG, made to live inside a page, or alone as a file.

The page's style sheet owns the colours, so that a picture follows light and dark: what is drawn here in a stand-in
colour is renamed to a CSS variable.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from model.console import UserError, need
from model.files import write_text
from model.markup import Safe, element, safe

INK, MUTED, GRID, BEFORE, AFTER = "#000001", "#000002", "#000003", "#000004", "#000005"
VARIABLES = {INK: "ink", MUTED: "muted", GRID: "line", BEFORE: "before", AFTER: "after"}
# A picture alone has no page to take its colours from: those of model/page.css.
LIGHT = "--paper: #fcfcfa; --ink: #1d2126; --muted: #666d76; --line: #dfe1e0; --before: #9aa3ad; --after: #1f6f78;"
DARK = "--paper: #15181b; --ink: #e4e6e7; --muted: #989fa8; --line: #31373d; --before: #77818c; --after: #5cbcc5;"
STYLE = {
    "svg.hashsalt": "tritune",  # ids, and so the page, are the same at each run
    "svg.fonttype": "none",  # text stays text: it can be read out, searched and set in the page's font
    "text.parse_math": False,  # a category may hold a $
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
}


def loss_curve(name: str, steps: list[dict], unit: str) -> Safe | None:
    """Training and validation loss over the steps of a metrics.jsonl; None if it holds no loss.

    name  unique in the page, used for ids
    unit  of the loss, for the axis
    """
    train = [(row["step"], row["loss"]) for row in steps if row.get("loss") is not None]
    validation = [(row["step"], row["validation_loss"]) for row in steps if row.get("validation_loss") is not None]
    if not train and not validation:
        return None
    with _drawing(height=2.5) as (figure, axes):
        _draw_losses(axes, train, validation, unit)
        told = f"from {train[0][1]:.3f} to {train[-1][1]:.3f}" if train else f"{validation[-1][1]:.3f} at the end"
        return _svg(figure, name, f"Loss over steps, {told}")


def _draw_losses(axes, train: list[tuple], validation: list[tuple], unit: str) -> None:
    if train:
        x, y = np.array(train, dtype=float).T
        window = max(1, len(y) // 20)
        mean = np.convolve(y, np.ones(window) / window, mode="valid")
        if window > 1:
            axes.plot(x, y, color=BEFORE, linewidth=0.8, alpha=0.6)
        label = f"training, mean of {window} steps" if window > 1 else "training"
        axes.plot(x[window - 1 :], mean, color=BEFORE, linewidth=1.6, label=label)
    if validation:
        x, y = np.array(validation, dtype=float).T
        axes.plot(x, y, color=AFTER, linewidth=1.6, marker="o", markersize=3.5, label="validation")
    axes.set_xlabel("step")
    axes.set_ylabel(unit)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(axis="y")
    axes.legend(loc="upper right")


def category_bars(name: str, before: dict[str, float], after: dict[str, float], label: str) -> Safe:
    """A pair of bars a category, rates between 0 and 1."""
    categories = list(after)
    y = np.arange(len(categories))[::-1]
    with _drawing(height=0.5 + 0.42 * len(categories)) as (figure, axes):
        for offset, values, color, when in ((0.19, before, BEFORE, "before"), (-0.19, after, AFTER, "after")):
            widths = [values.get(category, 0.0) for category in categories]
            axes.barh(y + offset, widths, height=0.34, color=color, label=when)
            for place, width in zip(y + offset, widths, strict=True):
                axes.text(width + 0.012, place, f"{width:.2f}", va="center", fontsize=7.5, color=MUTED)
        axes.set_yticks(y, categories)
        axes.tick_params(axis="y", length=0, labelcolor=INK)
        axes.set_xlim(0, 1.08)
        axes.set_xlabel(label)
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
        return _svg(figure, name, f"{label} by category, before and after")


def next_token_picture(prompts: list[dict]) -> str:
    """A file of its own: for each prompt of an eval.next_token result its likeliest next tokens, and KL by position."""
    with _figure(height=2.6 * len(prompts), width=9.0) as figure:
        for row, axes in zip(prompts, figure.subplots(len(prompts), 2, squeeze=False), strict=True):
            _draw_top(axes[0], row)
            _draw_kl(axes[1], row)
        return alone(_svg(figure, "next", "Likeliest next tokens of base and tuned, and KL by position"))


def write_picture(path: Path, draw: Callable[[], str]) -> None:
    """Write what `draw` gives and say so; without matplotlib say that there is no picture, and go on."""
    try:
        picture = draw()
    except UserError as error:
        print(f"no picture: {error}")
        return
    write_text(path, picture)
    print(f"written to {path}")


def interval_picture(changes: dict[str, dict]) -> str:
    """A file of its own: the change of each metric with its interval, {run: {metric: change}}; a panel a metric.

    What is told apart from no change is filled, the rest is hollow.
    """
    metrics = list(dict.fromkeys(metric for of_run in changes.values() for metric in of_run))
    with _figure(height=0.5 * len(metrics) + 0.32 * len(metrics) * len(changes), width=6.5) as figure:
        for metric, axes in zip(metrics, figure.subplots(len(metrics), 1, squeeze=False)[:, 0], strict=True):
            rows = [(name, of_run[metric]) for name, of_run in changes.items() if metric in of_run]
            for y, (_, change) in zip(range(len(rows))[::-1], rows, strict=True):
                axes.plot(change["interval"], [y, y], color=AFTER, linewidth=1.6)
                fill = AFTER if change["distinguishable"] else "none"
                axes.plot(change["value"], y, marker="o", markersize=5, color=AFTER, markerfacecolor=fill)
            axes.axvline(0, color=MUTED, linewidth=0.8)
            axes.set_yticks(range(len(rows))[::-1], [name for name, _ in rows])
            axes.set_ylim(-0.6, len(rows) - 0.4)
            axes.set_title(f"change of {metric}, 95 % interval", loc="left", fontsize=8)
        return alone(_svg(figure, "changes", "Changes with their intervals, " + ", ".join(metrics)))


def _draw_top(axes, row: dict) -> None:
    """The tuned model's likeliest tokens, then those of the base that are not among them: a pair of bars each."""
    probabilities = {state: {one["id"]: one["p"] for one in row[state]} for state in ("base", "tuned")}
    tokens = {one["id"]: one["token"] for one in (*row["tuned"], *row["base"])}
    y = np.arange(len(tokens))[::-1]
    for offset, state, color in ((0.2, "base", BEFORE), (-0.2, "tuned", AFTER)):
        widths = [probabilities[state].get(token, 0.0) for token in tokens]
        axes.barh(y + offset, widths, height=0.38, color=color, label=state)
    axes.set_yticks(y, [repr(text) for text in tokens.values()], fontsize=6)
    axes.set_xlabel("probability of the next token (no bar: not in that list)")
    axes.set_title(f"{row['kind']} · {row['name']}", loc="left", fontsize=8)
    axes.legend(loc="lower right")


def _draw_kl(axes, row: dict) -> None:
    kl = [position["kl"] for position in row["positions"]]
    axes.bar(np.arange(1, len(kl) + 1), kl, width=1.0, color=AFTER)
    axes.set_xlabel("tokens read")
    axes.set_ylabel("KL(tuned ‖ base), nats")
    axes.grid(axis="y")


def alone(svg: Safe) -> str:
    """A picture of the page as a file of its own: with its colours, light and dark, and SVG's namespaces."""
    style = f"svg {{ {LIGHT} background: var(--paper); }} @media (prefers-color-scheme: dark) {{ svg {{ {DARK} }} }}"
    start = svg.index("<svg ")
    picture = svg[start : svg.index("</svg>") + len("</svg>")]
    names = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
    return re.sub(r"^<svg ([^>]*)>", rf"<svg {names}\1><style>{style}</style>", picture) + "\n"


@contextmanager
def _drawing(height: float) -> Iterator[tuple]:
    """A figure and its axes, of a width (inches) whose text is still read on a phone."""
    with _figure(height, width=5.2) as figure:
        yield figure, figure.add_subplot()


@contextmanager
def _figure(height: float, width: float) -> Iterator:
    """A figure in our style, sizes in inches. Opens no window."""
    matplotlib = need("matplotlib", why="drawing pictures")
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        yield Figure(figsize=(width, height), layout="constrained")


def _svg(figure, name: str, alternative: str) -> Safe:
    written = io.StringIO()
    figure.savefig(written, format="svg", metadata={"Date": None})
    svg = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", written.getvalue(), flags=re.DOTALL)
    start = re.search(r"<svg[^>]*>", svg)
    box = re.search(r'viewBox="[^"]*"', start[0])[0]
    # HTML knows SVG without its namespaces, and the page decides the size.
    svg = f'<svg {box} role="img" aria-label="{safe(alternative)}">{svg[start.end() :]}'
    for color, variable in VARIABLES.items():
        svg = svg.replace(color, f"var(--{variable})")
    svg = re.sub(r'(\sid="|url\(#|href="#)', rf"\g<1>{name}-", svg)  # ids must be unique in the page
    return element("figure", Safe(svg))
