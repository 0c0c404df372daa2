"""The figures of the page: quality against trainable parameters and against minutes, and learning curves."""

from __future__ import annotations

from eval.scatter import Point, panel, stacked


def pictures(found: dict) -> dict[str, str]:
    """SVG files of a results.json by name, those for which there are runs."""
    titles = {one["model"]: one["title"] for one in found["models"]} | {
        one["task"]: one["title"] for one in found["tasks"]
    }
    drawn = {
        "quality_parameters": _quality(found, titles, "trainable_parameters", "trainable parameters"),
        "quality_minutes": _quality(found, titles, "minutes", "minutes of training"),
        "curves": _curves(found, titles),
    }
    return {name: picture for name, picture in drawn.items() if picture}


def _quality(found: dict, titles: dict[str, str], cost: str, label: str) -> str:
    """A panel for each model and task: the first metric of each method against what it costs, untrained as lines."""
    metrics = {one["task"]: one["metric"] for one in found["tasks"]}
    classical = {one["task"]: one["classical"] for one in found["tasks"]}
    panels = []
    for model, task in dict.fromkeys((row["model"], row["task"]) for row in found["summary"] if row[cost]):
        metric, rows = metrics[task], [row for row in found["summary"] if (row["model"], row["task"]) == (model, task)]
        points = [
            Point(row["method"], row[cost], row["metrics"][metric], row["intervals"][metric])
            for row in rows
            if row[cost]
        ]
        lines = {row["method"]: row["metrics"][metric] for row in rows if not row[cost]}
        lines |= {
            row["method"]: row["metrics"][metric]
            for row in found["rows"]
            if (row.get("measured_with"), row["task"], row["method"]) == (model, task, classical[task])
        }
        panels.append((f"{titles[model]}, {titles[task]}: {metric}", panel(points, lines, label)))
    return stacked(panels, f"Quality against {label}")


def _curves(found: dict, titles: dict[str, str]) -> str:
    """A panel for each model and task: the first metric against the training rows, a line a method."""
    panels = []
    for model, task in dict.fromkeys((one["model"], one["task"]) for one in found["curves"]):
        of_panel = [one for one in found["curves"] if (one["model"], one["task"]) == (model, task)]
        points = [
            Point(one["method"], point["train_rows"], point["value"], point["interval"], color)
            for one, color in zip(of_panel, ("after", "before", "muted"), strict=False)
            for point in one["points"]
        ]
        title = f"{titles[model]}, {titles[task]}: {of_panel[0]['metric']}"
        panels.append((title, panel(points, {}, "training rows", joined=True)))
    return stacked(panels, "Learning curves")
