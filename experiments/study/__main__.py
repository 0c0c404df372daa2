"""Which way of fine-tuning suits a small model? Methods, tasks, models and seeds side by side, with their cost.

    python -m experiments.study --plan
    python -m experiments.study --data DIR --max-minutes 60

DIR has the folders trec, pubmedqa and scitldr with the published files (grid.py has their addresses). Rerun the command
to resume: a run that is done has a file in experiments/study/done and is never repeated, wherever that came from.
results.json and the figures have what there is so far.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from common.console import UserError, run_command
from common.files import read_json, write_json, write_text
from common.options import as_settings, option, parse
from experiments.stages import DtypeOptions, run_stages
from experiments.study.data import ENGLISH, cut_to_size, data_stages, refuse_missing, tasks_of
from experiments.study.grid import METHODS, MODELS, SMOKE, TASKS, Run, Task, model_of, plan
from experiments.study.pictures import pictures
from experiments.study.results import results, task_row
from experiments.study.schedule import carry_out_all, plan_table
from model.embedded import EMBEDDED
from model.hub import snapshot

WHERE = ("out", "results", "data", "max_minutes", "plan")  # options that do not change what is measured


@dataclass(frozen=True, kw_only=True)
class Options(DtypeOptions):
    """Options of this experiment."""

    data: Path | None = option(
        None, "folder with the files of trec, pubmedqa and scitldr (default: $TRITUNE_DATA)", metavar="DIR"
    )
    corpus: str = option("package:networkx", "SOURCE of the executed tasks and of held-out code", metavar="SOURCE")
    models: tuple[str, ...] = option(
        tuple(MODELS), "models; the first has the whole grid, one whose weights are not here is left out"
    )
    tasks: tuple[str, ...] = option(tuple(TASKS), "tasks", choices=tuple(TASKS))
    methods: tuple[str, ...] = option(tuple(METHODS), "methods", choices=tuple(METHODS))
    seeds: tuple[int, ...] = option((0, 1, 2), "seeds of training; learning rates are chosen with the first")
    smoke: bool = option(False, "a few rows of everything: does it run?")
    plan: bool = option(False, "print the runs with the minutes that they are expected to take, and exit")
    out: Path = option(Path("runs/study"), "folder of all runs", metavar="DIR")
    results: Path = option(
        Path("experiments/study"), "folder for done/, a file for each run that is, results.json and the figures",
        metavar="DIR",
    )  # fmt: skip
    max_minutes: float | None = option(None, "start nothing new after this time", metavar="M")

    def __post_init__(self) -> None:
        """UserError for two models whose runs would have the same folder."""
        super().__post_init__()
        names = [Path(name).name for name in self.models]
        if len(set(names)) < len(names):
            raise UserError(f"--models: two are called alike ({', '.join(names)}), and their runs would share a folder")

    @property
    def kept(self) -> Path:
        """Where the runs that are done are kept."""
        return self.results / "done"

    def sizes(self) -> dict[str, Task]:
        """Every task, as large as it is asked for."""
        return SMOKE if self.smoke else TASKS

    def runs(self) -> list[Run]:
        """The plan."""
        chosen = [task for name, task in self.sizes().items() if name in self.tasks]
        return plan([model_of(name) for name in self.models], chosen, self.methods, self.seeds)


def main() -> None:
    """Print the plan, or make the data and carry out what is not done; results.json after every run."""
    options = parse(Options, description=__doc__)
    runs = options.runs()
    if not runs:
        raise UserError(f"{' and '.join(options.models)}: no run of {' or '.join(options.tasks)} is planned")
    missing = [name for name in dict.fromkeys(run.model.name for run in runs) if not is_here(name)]
    if options.plan:
        print(plan_table(runs, options.kept, missing))
        return

    # data: the same for every run, and for every later call
    started = time.monotonic()
    public = options.data or Path(os.environ.get("TRITUNE_DATA", ""))
    refuse_missing(public, tasks_of(runs))
    refuse_other_settings(options)
    run_stages(data_stages(options.out, public, options.corpus, tasks_of(runs)))
    cut_to_size(options.out, runs, abstracts_used=options.sizes()[ENGLISH].validation)

    # the runs, in the order of their importance
    here = [run for run in runs if run.model.name not in missing]
    left = None if options.max_minutes is None else options.max_minutes - (time.monotonic() - started) / 60
    failed = carry_out_all(
        here, options.out, options.kept, dtype=options.dtype, max_minutes=left,
        after_each=lambda: write_results(options, runs, missing),
    )  # fmt: skip
    if failed:
        first, why = next(iter(failed.items()))
        raise UserError(f"{len(failed)} runs failed, and those that take their learning rates; {first}: {why}")


def is_here(name: str) -> bool:
    """Whether a model can be loaded without fetching it from the hub."""
    if name in EMBEDDED or Path(name).exists():
        return True
    try:
        folder = snapshot(name, what="model", instead="a folder", local_files_only=True)
    except UserError:
        return False
    return any(folder.glob("*.safetensors"))


def refuse_other_settings(options: Options) -> None:
    """UserError if runs that are begun or kept are of another size, corpus, dtype or first seed: not to mix them."""
    tasks = {name: task_row(task) for name, task in options.sizes().items()}
    own = {"corpus": options.corpus, "first_seed": options.seeds[0], "dtype": options.dtype, "tasks": tasks}
    own = json.loads(json.dumps(own))
    files = [folder / "settings.json" for folder in (options.out, options.kept)]
    for file in (one for one in files if one.is_file()):
        if different := [name for name, value in read_json(file).items() if value != own[name]]:
            raise UserError(
                f"{file.parent}: holds a study with other {' and '.join(different)}; give another "
                + ("--out" if file.parent == options.out else "--results")
            )
    for file in files:
        write_json(file, own)


def write_results(options: Options, runs: Sequence[Run], missing: Sequence[str]) -> None:
    """results.json and the figures, of the runs that are done."""
    found = results(runs, options.out, options.kept, missing, as_settings(options, without=WHERE))
    write_json(options.results / "results.json", found)
    for name, picture in pictures(found).items():
        write_text(options.results / f"{name}.svg", picture)


if __name__ == "__main__":
    sys.exit(run_command(main))
