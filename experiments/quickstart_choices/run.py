"""How the quickstart's learning rate, epochs and category shares of track B were chosen.

    python -m experiments.quickstart_choices.run --out runs/quickstart_choices

Every choice is trained on the same training files and judged on validation files, by pass@1 of executed tasks. The
quickstart's test files are not read. Rerun the command to resume; results.json holds what is done so far.
"""

from __future__ import annotations

import itertools
import sys
from dataclasses import dataclass
from pathlib import Path

from common.console import run_command
from common.files import read_json, write_json
from common.options import as_settings, option, parse
from eval.change_table import table_of_runs
from eval.compare import compare_runs
from experiments.stages import Stage, run_stages, stage

HERE = Path(__file__).resolve().parent
SHARES = {"executed": ("bugfix=0.45", "complete=0.25"), "equal": ()}
METRICS = ("pass@1", "lenient_pass@1", "hallucination_rate")


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of this experiment."""

    model: str = option("smollm2-135m", "causal LM, as in the quickstart")
    out: Path = option(Path("runs/quickstart_choices"), "folder of all runs", metavar="DIR")
    corpus: str = option("package:networkx", "SOURCE, as in the quickstart", metavar="SOURCE")
    pairs: int = option(300, "training pairs")
    tasks: int = option(160, "validation tasks wanted")
    lr: tuple[float, ...] = option((2e-4, 5e-4, 1e-3), "peak learning rates")
    epochs: tuple[float, ...] = option((2.0, 4.0), "passes over the pairs")
    seed: int = option(0, "seed of every draw")
    max_minutes: float | None = option(None, "start nothing new after this time", metavar="M")


@dataclass(frozen=True)
class Choice:
    """One setting."""

    shares: str
    lr: float
    epochs: float

    @property
    def name(self) -> str:
        """For folders and tables: executed-5e-04-2."""
        return f"{self.shares}-{self.lr:.0e}-{self.epochs:g}"


def main() -> None:
    """Run what is not done, compare what is."""
    options = parse(Options, description=__doc__)
    choices = [Choice("executed", lr, epochs) for epochs, lr in itertools.product(options.epochs, options.lr)]
    choices.append(Choice("equal", options.lr[len(options.lr) // 2], options.epochs[0]))
    stages = [*data_stages(options), measure(options, "base")]
    stages += [one for choice in choices for one in choice_stages(options, choice)]
    run_stages(stages, max_minutes=options.max_minutes)
    write_results(options, choices, stages)


def data_stages(options: Options) -> list[Stage]:
    """A corpus whose validation files are as many as its test files in the quickstart, and pairs by either share."""
    out, corpus = options.out, options.out / "corpus"
    split = ["--test-share", 0.4, "--validation-share", 0.2, "--seed", options.seed]
    stages = [stage(corpus / "about.json", "-m", "data.corpus", options.corpus, "--out", corpus, *split)]
    for name, shares in SHARES.items():
        command = [
            "-m", "data.instruct", corpus, "--out", out / name, "--count", options.pairs, "--test-count", 0,
            "--validation-count", options.tasks, "--checks", "doctest", "--most-input", 1500, "--most-output", 700,
        ]  # fmt: skip
        stages.append(stage(out / name / "about.json", *command, *(["--share", *shares] if shares else [])))
    return stages


def choice_stages(options: Options, choice: Choice) -> list[Stage]:
    """Training with a setting, and its validation tasks."""
    run = options.out / choice.name
    train = [
        "train_sft.py", "--model", options.model, "--data", options.out / choice.shares / "train.jsonl", "--out", run,
        "--epochs", choice.epochs, "--lr", choice.lr, "--max-length", 1024, "--step-tokens", 2048, "--seed",
        options.seed,
    ]  # fmt: skip
    return [
        stage(run / "metrics.json", *train, resume=["--resume"], begun=run / "config.json"),
        measure(options, choice.name, run / "adapter"),
    ]


def measure(options: Options, name: str, adapter: Path | None = None) -> Stage:
    """Greedy answers to the validation tasks, the same for every choice."""
    tasks, result = options.out / "executed" / "validation.jsonl", options.out / f"{name}.json"
    command = [
        "-m", "eval.instruct", "--model", options.model, "--data", tasks, "--out", result, "--k", 1,
        "--max-new-tokens", 256,
    ]  # fmt: skip
    return stage(result, *command, *(["--adapter", adapter] if adapter else []))


def write_results(options: Options, choices: list[Choice], stages: list[Stage]) -> None:
    """results.json and the table, of the choices that are done."""
    paths = {name: options.out / f"{name}.json" for name in ["base", *(choice.name for choice in choices)]}
    found = {name: read_json(path) for name, path in paths.items() if path.is_file()}
    if len(found) < 2:
        return
    runs = {name: [result] for name, result in found.items() if name != "base"}
    changes = {
        name: {metric: change for metric, change in of_run.items() if metric in METRICS}
        for name, of_run in compare_runs([found["base"]], runs).items()
    }
    commands = {one.done: one.shown() for one in stages}
    rows = [
        {
            "name": name,
            **{key: {m: result[key][m] for m in METRICS} for key in ("metrics", "intervals")},
            "n": {metric: result["n_of"][metric] for metric in METRICS},
            "command": commands[paths[name]],
        }
        for name, result in found.items()
    ]
    settings = as_settings(options, without=("out", "max_minutes"))
    write_json(HERE / "results.json", {"schema": 1, "settings": settings, "rows": rows, "changes": changes})
    print(table_of_runs([found["base"]], runs, changes))


if __name__ == "__main__":
    sys.exit(run_command(main))
