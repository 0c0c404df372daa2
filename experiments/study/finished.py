"""A finished run: gathered from its folder into one file, which is all that is read of it afterwards.

These files lie beside results.json and are part of the project: the study goes on wherever it is cloned, and every
figure of it can be computed anew.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

from common.files import read_json, read_jsonl, to_json, write_text
from eval.environment import PACKAGES
from experiments.figures import figures
from experiments.study.commands import answers_of, texts_of, training_of
from experiments.study.data import train_file
from experiments.study.grid import Run


@dataclass(frozen=True)
class Finished:
    """A run and what came of it.

    record   how it was carried out (experiments/study/schedule.py)
    answers  eval result of the test rows; texts: of those that forgetting is measured on, None of few-shot prompts
    training of a trained run: {"lr", "train_rows", "seconds", …}, see `_training`
    sweep    of a run that tried learning rates: {"tried", "chosen"}
    """

    run: Run
    record: dict
    answers: dict
    texts: dict | None = None
    training: dict | None = None
    sweep: dict | None = None

    def key(self) -> dict:
        """Which cell of the grid it is."""
        run, kind = self.run, "tuned" if self.run.is_trained else "prompted"
        rows = self.training["train_rows"] if self.training else None
        key = {"model": run.model.name, "task": run.task.name, "method": run.method}
        return key | {"kind": kind, "seed": run.seed, "train_rows": rows}

    def chosen_rate(self) -> float:
        """The learning rate that its trials chose."""
        assert self.sweep is not None
        return self.sweep["chosen"]

    def row(self) -> dict:
        """Its figures, what it cost, and how it was made: a row of results.json."""
        environment = self.record["environment"]
        made = {
            "command": self.record["commands"][0], "commands": self.record["commands"],
            "commit": self.record["commit"], "source_sha256": environment["source_sha256"],
            "versions": {name: environment[name] for name in ("python", *PACKAGES) if name in environment},
        }  # fmt: skip
        cost = self.training or {"seconds": {}}
        cost = cost | {"seconds": cost["seconds"] | {"run": self.record["seconds"], "cpu": self.record["cpu_seconds"]}}
        return self.key() | figures(self.answers, self.run.task.metrics) | cost | made


def file_of(run: Run, kept: Path) -> Path:
    """Where a finished run is kept, in the folder of all of them. It marks the run as done."""
    return kept / Path(run.model.name).name / f"{run.name}.json"


def is_done(run: Run, kept: Path) -> bool:
    """Whether there is nothing left to do."""
    return file_of(run, kept).is_file()


def keep(run: Run, out: Path, kept: Path, record: dict) -> None:
    """Gather what a run has left in its folder within `out`, and write its file."""
    texts, sweep = texts_of(run, out), training_of(run, out) / "sweep.json"
    found = {
        "record": record,
        "answers": _without_details(read_json(answers_of(run, out))),
        "texts": read_json(texts) if texts.is_file() else None,
        "training": _training(run, out) if run.is_trained else None,
        "sweep": read_json(sweep) if sweep.is_file() else None,
    }
    write_text(file_of(run, kept), to_json(found) + "\n")


@functools.cache  # a finished run does not change
def load(run: Run, kept: Path) -> Finished:
    """A run that is done."""
    return Finished(run, **read_json(file_of(run, kept)))


def _without_details(result: dict) -> dict:
    """An eval result; of a text task's rows what examples.py reads alone: the scores of labels are most of the file."""
    if "causes" not in result:
        return result
    rows = [{name: row.get(name) for name in ("id", "status", "answer", "cause")} for row in result["results"]]
    return result | {"results": rows}


def _training(run: Run, out: Path) -> dict:
    """Rows, learning rate, steps, parameters, bytes, memory, and seconds, apart from the trials of learning rates."""
    folder = training_of(run, out)
    metrics, options = read_json(folder / "metrics.json"), read_json(folder / "config.json")["options"]
    cost = metrics["tracks"]["sft"]["cost"]
    seconds = {"train": round(cost["steps"] * cost["seconds_per_step"], 1)}
    if run.rate_from is None:
        seconds["sweep"] = round(max(0.0, metrics["seconds"]["train"] - seconds["train"]), 1)
    kept = ("trainable_parameters", "file_bytes", "steps", "tokens", "supervised_tokens", "memory_gib")
    return {
        "train_rows": len(read_jsonl(train_file(out, run.task, run.rows))),
        "lr": options["lr"]["value"],
        "epochs": run.task.epochs,
        "seconds": seconds,
        **{name: cost[name] for name in kept},
    }
