"""Which answers teach a small model most: the repository's, a larger model's, or its own? Judged by execution.

    python -m experiments.track_b_executed.run --model MODEL --teacher MODEL --out runs/track_b_executed

The same training tasks (bugs to fix, bodies to complete) are answered by the repository (gold), by a teacher, and by
the model itself in one and two rounds of rejection sampling; a LoRA adapter is trained on each, with several seeds. All
are compared with the base on the same held-out tasks, paired, with Holm's correction. Rerun the command to resume.
"""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from common.console import run_command
from common.files import read_json, write_json, write_text
from common.options import as_settings, option, parse
from eval.change_table import table_of_runs
from eval.charts import interval_picture
from experiments.figures import changes_from, figures
from experiments.stages import Stage, run_stages, stage

METRICS = ("pass@1", "pass@3", "hallucination_rate")
CATEGORIES = ("bugfix", "complete")


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of this experiment."""

    model: str = option(help="the small model, instruction-tuned")
    teacher: str = option(help="the larger model, instruction-tuned")
    out: Path = option(Path("runs/track_b_executed"), "folder of all runs", metavar="DIR")
    corpus: str = option("package:networkx", "SOURCE to make the tasks from", metavar="SOURCE")
    tasks: int = option(240, "training tasks")
    test_tasks: int = option(240, "held-out tasks wanted")
    seeds: tuple[int, ...] = option((0, 1), "seeds of training and sampling")
    epochs: float = option(2.0, "passes over the pairs")
    lr: float = option(2e-4, "peak learning rate")
    results: Path = option(
        Path("experiments/track_b_executed"), "folder for results.json and changes.svg", metavar="DIR"
    )
    max_minutes: float | None = option(None, "start nothing new after this time", metavar="M")


def main() -> None:
    """Run what is not done; then compare, write results.json and the figure, print the table."""
    options = parse(Options, description=__doc__)
    arms = arms_of(options)
    first = [*data_stages(options), *arm_stages(options, arms.pop("base"))]
    rest = [one for arm in arms.values() for one in arm_stages(options, arm)]
    if run_stages(first, max_minutes=options.max_minutes):
        share_base(options)
        if run_stages(rest, max_minutes=options.max_minutes):
            write_results(options, arms_of(options), [*first, *rest])


@dataclass(frozen=True)
class Arm:
    """Where the results of one way to train are, by seed."""

    name: str
    results: tuple[Path, ...]


def arms_of(options: Options) -> dict[str, Arm]:
    """base, gold, teacher and self-training, with the result file of each seed."""
    out = options.out
    files: dict[str, tuple[Path, ...]] = {"base": (out / "base.json",)}
    files |= {name: tuple(out / f"{name}-{seed}.json" for seed in options.seeds) for name in ("gold", "teacher")}
    for number in (1, 2):
        files[f"self, round {number}"] = tuple(
            out / f"self-{seed}" / f"round-{number}" / "test.json" for seed in options.seeds
        )
    return {name: Arm(name, results) for name, results in files.items()}


def data_stages(options: Options) -> list[Stage]:
    """The corpus, its tasks with the repository's answers, and the same tasks with the teacher's."""
    out, corpus = options.out, options.out / "corpus"
    made = [
        "-m", "data.instruct", corpus, "--count", options.tasks, "--test-count", options.test_tasks, "--share",
        "bugfix=0.6", "complete=0.4", "--checks", "doctest", "--most-input", 1500, "--most-output", 800,
    ]  # fmt: skip
    taught = [
        "--teacher", options.teacher, "--teacher-categories", *CATEGORIES, "--teacher-candidates", 4,
        "--teacher-max-tokens", 400,
    ]  # fmt: skip
    return [
        stage(corpus / "corpus.json", "-m", "data.corpus", options.corpus, "--out", corpus, "--test-share", 0.4),
        stage(out / "gold" / "about.json", *made, "--out", out / "gold"),
        stage(out / "teacher" / "about.json", *made, "--out", out / "teacher", *taught),
    ]


def arm_stages(options: Options, arm: Arm) -> list[Stage]:
    """Training and measuring of one arm, every seed."""
    out = options.out
    if arm.name == "base":
        return [measure(options, arm.results[0])]
    if arm.name in ("gold", "teacher"):
        stages = []
        for seed, result in zip(options.seeds, arm.results, strict=True):
            run = out / f"{arm.name}-{seed}"
            train = [
                "train_sft.py", "--model", options.model, "--data", out / arm.name / "train.jsonl", "--out", run,
                "--epochs", options.epochs, "--lr", options.lr, "--seed", seed,
            ]  # fmt: skip
            stages.append(stage(run / "metrics.json", *train, resume=["--resume"], begun=run / "config.json"))
            stages.append(measure(options, result, run / "adapter", seed))
        return stages
    rounds = int(arm.name.rpartition(" ")[2])
    return [
        stage(
            result, "self_improve.py", "--model", options.model, "--pairs", out / "gold", "--out", out / f"self-{seed}",
            "--rounds", rounds, "--epochs", options.epochs, "--lr", options.lr, "--max-new-tokens", 400, "--corpus",
            out / "corpus", "--seed", seed,
        )
        for seed, result in zip(options.seeds, arm.results, strict=True)
    ]  # fmt: skip


def measure(options: Options, result: Path, adapter: Path | None = None, seed: int = 0) -> Stage:
    """eval.instruct on the held-out tasks, sampled as self_improve.py samples."""
    command = [
        "-m", "eval.instruct", "--model", options.model, "--data", options.out / "gold" / "test.jsonl", "--out", result,
        "--samples", 4, "--temperature", 0.8, "--top-p", 1.0, "--max-new-tokens", 400, "--seed", seed,
    ]  # fmt: skip
    return stage(result, *command, *(["--adapter", adapter] if adapter else []))


def share_base(options: Options) -> None:
    """The base answers the held-out tasks once: give its result to every self-training run."""
    for seed in options.seeds:
        target = options.out / f"self-{seed}" / "base" / "test.json"
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(options.out / "base.json", target)


def write_results(options: Options, arms: dict[str, Arm], stages: list[Stage]) -> None:
    """results.json, changes.svg and the table."""
    found = {arm.name: [read_json(path) for path in arm.results] for arm in arms.values()}
    runs = {name: results for name, results in found.items() if name != "base"}
    changes = changes_from(found["base"], runs, METRICS)
    commands = {str(one.done.relative_to(options.out)): one.shown() for one in stages}
    rows = [
        {
            "arm": arm.name,
            "seed": seed,
            **figures(result, METRICS),
            "command": commands[str(path.relative_to(options.out))],
        }
        for arm in arms.values()
        for seed, (path, result) in enumerate(zip(arm.results, found[arm.name], strict=True))
    ]
    results = {"schema": 1, "settings": as_settings(options, without=("out", "results", "max_minutes")), "rows": rows}
    write_json(options.results / "results.json", results | {"changes": changes})
    write_text(options.results / "changes.svg", interval_picture(changes))
    print(table_of_runs(found["base"], runs, changes))


if __name__ == "__main__":
    sys.exit(run_command(main))
