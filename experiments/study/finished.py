"""A finished run, read from its folder."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

from common.files import read_json, read_jsonl
from eval.environment import PACKAGES
from experiments.figures import figures
from experiments.study.commands import answers_of, texts_of, training_of
from experiments.study.data import train_file
from experiments.study.grid import Run
from experiments.study.schedule import record_of


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


@functools.cache  # a finished run does not change
def load(run: Run, out: Path) -> Finished:
    """What a run that is done has left in its folder."""
    texts, sweep = texts_of(run, out), training_of(run, out) / "sweep.json"
    return Finished(
        run,
        record=read_json(record_of(run, out)),
        answers=read_json(answers_of(run, out)),
        texts=read_json(texts) if texts.is_file() else None,
        training=_training(run, out) if run.is_trained else None,
        sweep=read_json(sweep) if sweep.is_file() else None,
    )


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
