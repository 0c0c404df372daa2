"""Which answers teach a small model most: the repository's, a larger model's, or its own? Judged by execution.

    python -m experiments.track_b_executed.run --model MODEL --teacher MODEL --out runs/track_b_executed

The same training tasks (bugs to fix, bodies to complete) are answered by the repository (gold), by a teacher, and by
the model itself in one and two rounds of rejection sampling; a LoRA adapter is trained on each, with several seeds. All
are compared with the base on the same held-out tasks, paired, with Holm's correction. Rerun the command to resume.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from common.console import run_command
from common.files import read_json, write_json, write_text
from common.options import as_settings, option, parse
from eval.change_table import table_of_runs
from eval.charts import interval_picture
from experiments.figures import changes_from, figures
from experiments.kept import Kept, kept_results
from experiments.stages import DtypeOptions, Stage, in_dtype, run_stages, stage

METRICS = ("pass@1", "pass@3", "hallucination_rate")
CATEGORIES = ("bugfix", "complete")
ROUNDS = (1, 2)


@dataclass(frozen=True, kw_only=True)
class Options(DtypeOptions):
    """Options of this experiment."""

    model: str = option(help="the small model, instruction-tuned")
    teacher: str = option(help="the larger model, instruction-tuned")
    out: Path = option(Path("runs/track_b_executed"), "folder of all runs", metavar="DIR")
    corpus: str = option("package:networkx", "SOURCE to make the tasks from", metavar="SOURCE")
    tasks: int = option(300, "training tasks wanted")
    test_tasks: int = option(170, "held-out tasks wanted")
    sampled_tasks: int = option(24, "held-out tasks that are also sampled, four times each")
    seeds: tuple[int, ...] = option((0, 1), "seeds of training and sampling")
    epochs: float = option(1.0, "passes over the pairs")
    lr: float = option(2e-4, "peak learning rate")
    results: Path = option(
        Path("experiments/track_b_executed"), "folder for done/, results.json and changes.svg", metavar="DIR"
    )
    max_minutes: float | None = option(None, "start nothing new after this time", metavar="M")


def main() -> None:
    """Run what is not done, seed by seed; write results.json and the figure after every run, print the table."""
    options = parse(Options, description=__doc__)
    stages = [*data_stages(options), measure(options, base_of(options))]
    for seed in options.seeds:
        stages += [*trained_stages(options, "gold", seed), *self_stages(options, seed)]
    stages.append(teacher_stage(options))  # last, as it takes longest
    stages += [one for seed in options.seeds for one in trained_stages(options, "teacher", seed)]
    stages = in_dtype(stages, options.dtype)
    kept(options).restore(stages)
    run_stages(stages, max_minutes=options.max_minutes, after_each=lambda: write_results(options, stages))


def kept(options: Options) -> Kept:
    """The results that are part of the project."""
    return kept_results(options, apart_from=("seeds",))


def base_of(options: Options) -> Path:
    """The eval result of the untrained model."""
    return options.out / "base.json"


def results_of(options: Options) -> dict[str, dict[int, Path]]:
    """The eval result of each arm and seed, done or not."""
    out, seeds = options.out, options.seeds
    files = {arm: {seed: out / f"{arm}-{seed}.json" for seed in seeds} for arm in ("gold", "teacher")}
    for number in ROUNDS:
        rounds = {seed: out / f"self-{seed}" / f"round-{number}" / "test.json" for seed in seeds}
        files[f"self, round {number}"] = rounds
    return files


def data_stages(options: Options) -> list[Stage]:
    """The corpus, and its tasks with the repository's answers."""
    corpus, gold = options.out / "corpus", options.out / "gold"
    split = ["--test-share", 0.5, "--validation-share", 0]
    make = [*making_pairs(options), "--test-count", options.test_tasks, "--out", gold]
    return [
        stage(corpus / "corpus.json", "-m", "data.corpus", options.corpus, "--out", corpus, *split),
        stage(gold / "about.json", *make),
    ]


def teacher_stage(options: Options) -> Stage:
    """The same training tasks with the teacher's answers."""
    taught = options.out / "teacher"
    make = [
        *making_pairs(options), "--test-count", 0, "--out", taught, "--teacher", options.teacher,
        "--teacher-categories", *CATEGORIES, "--teacher-candidates", 2, "--teacher-max-tokens", 400,
    ]  # fmt: skip
    return stage(taught / "about.json", *make)


def making_pairs(options: Options) -> list[object]:
    """data.instruct, as both sets of answers share it."""
    return [
        "-m", "data.instruct", options.out / "corpus", "--count", options.tasks, "--share", "bugfix=0.55",
        "complete=0.45", "--checks", "doctest", "--most-input", 2400, "--most-output", 1000, "--validation-count", 0,
    ]  # fmt: skip


def trained_stages(options: Options, answers: str, seed: int) -> list[Stage]:
    """Training on the repository's answers (gold) or the teacher's, and the held-out tasks."""
    run = options.out / f"{answers}-{seed}"
    train = [
        "train_sft.py", "--model", options.model, "--data", options.out / answers / "train.jsonl", "--out", run,
        "--epochs", options.epochs, "--lr", options.lr, "--seed", seed,
    ]  # fmt: skip
    return [
        stage(run / "metrics.json", *train, resume=["--resume"], begun=run / "config.json"),
        measure(options, run.with_name(f"{run.name}.json"), run / "adapter", seed),
    ]


def self_stages(options: Options, seed: int) -> list[Stage]:
    """The rounds of self-training, one stage each; what the base answered to the held-out tasks is copied."""
    run, base = options.out / f"self-{seed}", options.out / f"self-{seed}" / "base" / "test.json"
    copy = f"import pathlib, shutil; pathlib.Path({str(base.parent)!r}).mkdir(parents=True, exist_ok=True); "
    copy += f"shutil.copyfile({str(base_of(options))!r}, {str(base)!r})"
    improve = [
        "self_improve.py", "--model", options.model, "--pairs", options.out / "gold", "--out", run, "--epochs",
        options.epochs, "--lr", options.lr, "--samples", 4, "--max-new-tokens", 400,
        "--sampled-tasks", options.sampled_tasks, "--corpus", options.out / "corpus", "--held-out-files", 20,
        "--held-out-tokens", 1024, "--seed", seed,
    ]  # fmt: skip
    rounds = [
        stage(run / f"round-{n}" / "test.json", *improve, "--rounds", n, also=[run / "results.json"]) for n in ROUNDS
    ]
    return [stage(base, "-c", copy), *rounds]


def measure(options: Options, result: Path, adapter: Path | None = None, seed: int = 0) -> Stage:
    """eval.instruct on the held-out tasks, sampled as self_improve.py samples."""
    command = [
        "-m", "eval.instruct", "--model", options.model, "--data", options.out / "gold" / "test.jsonl", "--out", result,
        "--samples", 4, "--sampled-tasks", options.sampled_tasks, "--temperature", 0.8, "--top-p", 1.0,
        "--max-new-tokens", 400, "--seed", seed,
    ]  # fmt: skip
    return stage(result, *command, *(["--adapter", adapter] if adapter else []))


def write_results(options: Options, stages: list[Stage]) -> None:
    """What is kept, results.json, changes.svg and the table, of the runs that are done."""
    kept(options).keep(stages)
    if not base_of(options).is_file():
        return
    commands = {one.done: one.shown() for one in stages}
    base = read_json(base_of(options))
    rows = [{"arm": "base", "seed": None, **figures(base, METRICS), "command": commands[base_of(options)]}]
    runs: dict[str, list[dict]] = {}
    for arm, of_seeds in results_of(options).items():
        for seed, path in of_seeds.items():
            if path.is_file():
                runs.setdefault(arm, []).append(result := read_json(path))
                rows.append({"arm": arm, "seed": seed, **figures(result, METRICS), "command": commands[path]})
    settings = as_settings(options, without=("out", "results", "max_minutes"))
    changes = changes_from([base], runs, METRICS)
    rounds = {seed: options.out / f"self-{seed}" / "results.json" for seed in options.seeds}
    taught = options.out / "teacher" / "about.json"
    found = {
        "rows": rows,
        "changes": changes,
        "self_rounds": {seed: read_json(path)["rounds"] for seed, path in rounds.items() if path.is_file()},
        "teacher": read_json(taught)["teacher"] if taught.is_file() else None,
    }
    write_json(options.results / "results.json", {"schema": 1, "settings": settings} | found)
    if runs:
        write_text(options.results / "changes.svg", interval_picture(changes))
        print(table_of_runs([base], runs, changes))


if __name__ == "__main__":
    sys.exit(run_command(main))
