"""results.json: everything that the page and the paper print, of the runs that are done so far."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from data.corpus import SPLITS
from experiments.study.data import tasks_of
from experiments.study.examples import causes, examples
from experiments.study.finished import Finished, is_done, load
from experiments.study.grid import FEW_SHOT, METHODS, Model, Run, Task
from experiments.study.schedule import expected_minutes
from experiments.study.tables import (
    change_rows,
    classical_rows,
    classical_summary,
    curve_rows,
    forgetting_rows,
    rate_row,
    summary_rows,
)

OF_MODEL = ("title", "family", "license", "is_instruct")
OF_TASK = (
    "title", "kind", "source", "url", "license", "max_length", "metric", "metrics", "classical", "epochs",
    "step_tokens",
)  # fmt: skip


def results(runs: Sequence[Run], out: Path, kept: Path, missing: Sequence[str], settings: dict) -> dict:
    """The content of results.json.

    runs      the plan
    out       has the rows that were asked; kept: the runs that are done
    missing   names of models whose weights are not here
    settings  of the command
    """
    done = [load(run, kept) for run in runs if is_done(run, kept)]
    cells: dict[tuple[str, str], list[Finished]] = {}
    for one in done:
        cells.setdefault((one.run.model.name, one.run.task.name), []).append(one)

    def of_cells(rows_of: Callable[[Sequence[Finished]], list[dict]]) -> list[dict]:
        return [row for of_cell in cells.values() for row in rows_of(of_cell)]

    return {
        "schema": 1,
        "settings": settings,
        "machine": done[0].record["environment"] if done else {},
        "progress": progress(runs, done, missing),
        "models": [model_row(model, done, missing) for model in dict.fromkeys(run.model for run in runs)],
        "tasks": [task_row(task) for task in tasks_of(runs)],
        "methods": method_rows(runs),
        "rows": [row for one in done for row in (*classical_rows(one), one.row())],
        "summary": [
            *(row for one in done if one.run.model == runs[0].model for row in classical_summary(one)),
            *of_cells(summary_rows),
        ],
        "changes": of_cells(change_rows),
        "forgetting": of_cells(forgetting_rows),
        "learning_rates": [rate_row(one) for one in done if one.sweep],
        "curves": of_cells(curve_rows),
        "causes": [
            one.key() | {"n": one.answers["n"], "causes": causes(out, one.run.task, one.answers)}
            for one in done
            if one.sweep or not one.run.is_trained
        ],
        "examples": {
            task: examples(out, of_cell[0].run.task, first_answers(of_cell))
            for (model, task), of_cell in cells.items()
            if model == runs[0].model.name
        },
    }


def progress(runs: Sequence[Run], done: Sequence[Finished], missing: Sequence[str]) -> dict:
    """How much of the plan is done, of the models that are here."""
    here = [run for run in runs if run.model.name not in missing]
    minutes = sum(one.record["seconds"] for one in done) / 60
    expected = sum(map(expected_minutes, here))
    return {
        "runs": len(done), "of": len(here), "minutes": round(minutes, 1), "expected_minutes": round(expected, 1),
    }  # fmt: skip


def model_row(model: Model, done: Sequence[Finished], missing: Sequence[str]) -> dict:
    """What is said of a model; "parameters" once all of them were trained."""
    trained = (one.training for one in done if one.run.model == model and one.run.method == "full" and one.training)
    parameters = next((one["trainable_parameters"] for one in trained), None)
    row = {"model": model.name} | {name: getattr(model, name) for name in OF_MODEL}
    return row | {"is_here": model.name not in missing, "parameters": parameters}


def task_row(task: Task) -> dict:
    """What is said of a task."""
    rows = dict(zip(SPLITS, (task.rows, task.validation, task.test), strict=True))
    published = dict(zip(SPLITS, task.published, strict=True))
    return {"task": task.name, "rows": rows, "rows_published": published} | {
        name: getattr(task, name) for name in OF_TASK
    }


def method_rows(runs: Sequence[Run]) -> list[dict]:
    """What is said of each method in the plan."""
    names = dict.fromkeys(run.method for run in runs if run.is_trained)
    found = [METHODS[name] for name in names]
    return [
        {"method": one.name, "rates": one.rates} | {"title": one.title, "arguments": one.arguments} for one in found
    ]


def first_answers(runs: Sequence[Finished]) -> dict[str, dict]:
    """Eval result by method: of the untrained model, and of those that chose the learning rates."""
    return {one.run.method: one.answers for one in runs if one.sweep or one.run.method not in (*METHODS, FEW_SHOT)}
