"""What a run is expected to take, and how it is carried out and recorded."""

from __future__ import annotations

import math
import resource
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from common.console import UserError
from common.files import read_json
from experiments.stages import ROOT, in_dtype, run_stages
from experiments.study.commands import answers_of, stages_of, texts_of, training_of
from experiments.study.finished import is_done, keep, load
from experiments.study.grid import FEW_SHOT, METHODS, SHOTS, TRIED, Run
from training.sweep import trial_steps

# SmolLM2-135M in bf16 on two cores
TRAINED_TOKENS = 500  # a second, forward and backward
READ_TOKENS = 1000  # a second, forward
TEXTS = 12  # seconds to read the texts that forgetting is measured on
START = 7  # seconds until a command has loaded its model
ALL_ROWS = 4897  # of TREC's training rows, where a run takes all


def expected_minutes(run: Run) -> float:
    """Minutes on two cores, from tokens and rows; a larger model takes `size` times as long."""
    task = run.task
    seconds = task.test * task.answer_seconds
    if run.method == FEW_SHOT:  # each prompt is read with its shots, for labels a second time
        seconds += task.test * SHOTS * task.row_tokens * (2 if "accuracy" in task.metrics else 1) / READ_TOKENS
    else:
        seconds += TEXTS
    if run.is_trained:
        tokens = (run.rows or ALL_ROWS) * task.epochs * task.row_tokens
        if run.rate_from is None:
            steps = math.ceil(tokens / task.step_tokens)
            tokens += len(TRIED) * trial_steps(steps) * task.step_tokens
            seconds += len(TRIED) * task.validation * task.row_tokens / READ_TOKENS
        seconds += tokens / TRAINED_TOKENS
    return (run.model.size * seconds + START * len(commands_of(run))) / 60


def commands_of(run: Run) -> Sequence[str]:
    """What a run consists of, in words."""
    trained = ["train"] if run.is_trained else []
    return [*trained, "answer", *(["read texts"] if run.method != FEW_SHOT else [])]


def carry_out(run: Run, out: Path, kept: Path, dtype: str) -> None:
    """Run the commands that are not done, keep what they found, and remove trained weights of a whole model.

    seconds      of a run that was interrupted: since it was resumed
    cpu_seconds  of all its commands, on all cores: what other work on the machine does not change much
    """
    started, used = time.monotonic(), processor_seconds()
    rate = load(run.rate_from, kept).chosen_rate() if run.rate_from else None
    stages = in_dtype(stages_of(run, out, rate), dtype)
    run_stages(stages)
    environment = read_json(answers_of(run, out))["environment"]
    if texts_of(run, out).is_file():  # which names the device as well
        environment |= read_json(texts_of(run, out))["environment"]
    record = {
        "seconds": round(time.monotonic() - started, 1),
        "cpu_seconds": round(processor_seconds() - used, 1),
        "commit": commit(),
        "commands": [one.shown() for one in stages],
        "environment": environment,
    }
    keep(run, out, kept, record)
    if run.method == "full":  # half a gigabyte, measured and no longer needed
        shutil.rmtree(training_of(run, out) / "model", ignore_errors=True)


def carry_out_all(
    runs: Sequence[Run],
    out: Path,
    kept: Path,
    *,
    dtype: str,
    max_minutes: float | None,
    after_each: Callable[[], None],
) -> dict[str, str]:
    """Carry out the runs that are not done, in order. One that fails does not keep the others from running.

    max_minutes  start no run after this time. One in progress is not cut off
    after_each   called after each run and once at the end: writes what there is
    Returns the names of the runs that failed, and why; those that take their learning rate were left out.
    """
    started = time.monotonic()
    failed: dict[str, str] = {}
    for number, run in enumerate(runs, 1):
        without_rate = run.rate_from is not None and not is_done(run.rate_from, kept)
        if is_done(run, kept) or without_rate:
            continue
        minutes = (time.monotonic() - started) / 60
        if max_minutes is not None and minutes >= max_minutes:
            print(f"stopped  before run {number} of {len(runs)}: time limit reached; rerun to resume")
            break
        expected = f"about {expected_minutes(run):.1f} minutes"
        print(
            f"\n[{minutes:.0f} min] run {number} of {len(runs)}: {run.model.title} {run.name}, {expected}", flush=True
        )
        try:
            carry_out(run, out, kept, dtype)
        except UserError as error:
            failed[f"{run.model.title} {run.name}"] = str(error)
            print(f"failed   {run.name}: {error}")
        after_each()
    after_each()
    return failed


def processor_seconds() -> float:
    """Seconds that the commands so far have kept cores busy."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def commit() -> str | None:
    """The commit of this project, with "-dirty" after it where files differ; None outside a repository."""
    command = ["git", "describe", "--always", "--dirty", "--exclude=*", "--abbrev=40"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


def plan_table(runs: Sequence[Run], kept: Path, missing: Sequence[str]) -> str:
    """The plan for people: a line a run, with what it is expected to take and what it took."""
    rows = [("run", "model", "task, method, rows, seed", "lr", "minutes", "state")]
    for number, run in enumerate(runs, 1):
        rates = "tries " + " ".join(f"{rate:g}" for rate in METHODS[run.method].rates) if run.is_trained else ""
        rate = "as chosen" if run.rate_from else rates
        state = "weights are not here" if run.model.name in missing else "to do"
        if is_done(run, kept):
            state = f"done in {load(run, kept).record['seconds'] / 60:.1f}"
        rows.append((str(number), run.model.title, run.name, rate, f"{expected_minutes(run):.1f}", state))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(f"{cell:{w}}" for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    here = [run for run in runs if run.model.name not in missing]
    whole = sum(map(expected_minutes, here))
    left = sum(expected_minutes(run) for run in here if not is_done(run, kept))
    lines.append(
        f"{len(here)} runs, about {whole / 60:.1f} hours of two cores, {left / 60:.1f} of them to do"
        + (f"; {len(runs) - len(here)} more where the weights of {', '.join(missing)} are" if missing else "")
    )
    return "\n".join(lines)
