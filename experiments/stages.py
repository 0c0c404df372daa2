"""An experiment as a list of stages: each is a command with the file that it leaves, and is skipped once that is there.

A stopped experiment therefore resumes at the stage it was in, and the commands themselves resume within it. --plan
lists the stages with the minutes that each is expected to take.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from common.console import UserError
from common.options import option
from model.device import DTYPES, choose_device, choose_dtype

ROOT = Path(__file__).resolve().parents[1]
WITH_DTYPE = (
    "train_cpt.py", "train_sft.py", "train_embed.py", "self_improve.py", "eval.code", "eval.instruct",
    "eval.perplexity", "eval.text", "eval.what_pays",
)  # fmt: skip
# of two slow CPU cores with a model of half a billion parameters, for the expected minutes; larger models take longer
TRAINED_PER_SECOND, ANSWERED_PER_SECOND = 140, 130  # tokens


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Options of an experiment that say how much of it is run."""

    plan: bool = option(False, "list the stages with the minutes that they will take, and run nothing")
    smoke: bool = option(False, "a few rows, tasks and tokens of everything: shows that it works, measures nothing")
    max_minutes: float | None = option(None, "start nothing new after this time", metavar="M")


@dataclass(frozen=True, kw_only=True)
class DtypeOptions:
    """The dtype that all runs of an experiment are computed in; part of the settings that are kept with its results."""

    dtype: str = option(
        "auto", "compute dtype of all runs; give it where results of another machine, which chose other, are continued",
        choices=("auto", *DTYPES),
    )  # fmt: skip

    def __post_init__(self) -> None:
        """In place of "auto", the name of what that is on this machine."""
        chosen = choose_dtype(choose_device(), self.dtype)
        # the class is frozen, so an ordinary assignment would raise
        object.__setattr__(self, "dtype", next(name for name, dtype in DTYPES.items() if dtype == chosen))


@dataclass(frozen=True)
class Stage:
    """A command of this project.

    done     the file that it writes last
    command  arguments of python, such as ("-m", "eval.instruct", "--out", …)
    resume   arguments to add where `begun` exists: it was stopped within
    begun    a file that shows that
    also     further files that say what came of it (experiments/kept.py)
    whole    `done` and `also` are all that later stages need of it
    minutes  expected
    """

    done: Path
    command: tuple[str, ...]
    resume: tuple[str, ...] = ()
    begun: Path | None = None
    also: tuple[Path, ...] = ()
    whole: bool = False
    minutes: float = 0.0

    @property
    def program(self) -> str:
        """The script, or the module of python -m."""
        return self.command[1] if self.command[0] == "-m" else self.command[0]

    def shown(self) -> str:
        """The command as one would type it."""
        return " ".join(("python", *self.command))


def stage(
    done: Path,
    *command: object,
    resume: Sequence[str] = (),
    begun: Path | None = None,
    also: Sequence[Path] = (),
    whole: bool = False,
    minutes: float = 0.0,
) -> Stage:
    """A stage whose command's parts may be paths and numbers."""
    return Stage(done, tuple(map(str, command)), tuple(resume), begun, tuple(also), whole, minutes)


def in_dtype(stages: Sequence[Stage], dtype: str) -> list[Stage]:
    """The stages, with --dtype for those whose command computes in one."""
    return [
        replace(one, command=(*one.command, "--dtype", dtype)) if one.program in WITH_DTYPE else one for one in stages
    ]


def expected_minutes(*, trained: float = 0, answered: float = 0) -> float:
    """How long it takes to train on so many tokens and to answer in so many."""
    return (trained / TRAINED_PER_SECOND + answered / ANSWERED_PER_SECOND) / 60


def plan(stages: Sequence[Stage]) -> str:
    """A line a stage, and the minutes of those that are not done."""
    lines = [f"{'done' if one.done.is_file() else f'{one.minutes:.0f} min':>8}  {one.shown()}" for one in stages]
    left = sum(one.minutes for one in stages if not one.done.is_file())
    return "\n".join(
        [*lines, f"{left:>4.0f} min  of {len(stages)} stages, on two slow cores; training and answers alone"]
    )


def plan_or_run(options: RunOptions, stages: Sequence[Stage], *, after_each: Callable[[], None]) -> None:
    """What the options ask for: print the plan, or run what is not done."""
    if options.plan:
        print(plan(stages))
    else:
        run_stages(stages, max_minutes=options.max_minutes, after_each=after_each)


def run_stages(
    stages: Sequence[Stage], *, max_minutes: float | None = None, after_each: Callable[[], None] = lambda: None
) -> bool:
    """Run the stages that are not done, in order; whether all are done.

    max_minutes  start no stage after this time. One in progress is not cut off
    after_each   called after each stage and once at the end: writes what there is
    Raises UserError when a command fails.
    """
    started = time.monotonic()
    for number, one in enumerate(stages, 1):
        if one.done.is_file():
            continue
        minutes = (time.monotonic() - started) / 60
        if max_minutes is not None and minutes >= max_minutes:
            print(f"stopped  before stage {number} of {len(stages)}: time limit reached; rerun to resume")
            after_each()
            return False
        resume = one.resume if one.begun is not None and one.begun.is_file() else ()
        print(f"\n[{minutes:.0f} min] stage {number} of {len(stages)}\n$ {one.shown()}", flush=True)
        status = subprocess.run([sys.executable, *one.command, *resume], cwd=ROOT, check=False).returncode
        if status or not one.done.is_file():
            raise UserError(f"stage {number} failed with status {status}: {one.shown()}; rerun to resume")
        after_each()
    after_each()
    return True
