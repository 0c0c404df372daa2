"""LoRA on CodeAlpaca's Python rows: rank 8 against 32, code alone against code and its explanation.

    python -m experiments.codealpaca.run --models MODEL [MODEL ...] --explain MODEL --out runs/codealpaca
    python -m experiments.codealpaca.run --models MODEL --explain MODEL --plan

The rows are the same for every arm, in the same order: a row that gets no explanation is in no arm, and a step holds
whole pairs, so that long answers change neither. Correctness is by the tests of MBPP, and by those of own_tasks.jsonl
for eight everyday tasks of each type: greedy for all tasks and sampled for some, paired with the untrained model, p
adjusted by Holm. The last stages write pages on which people rate 30 answers.
Rerun the command to resume; results.json holds what is done so far.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from common.console import run_command
from common.files import read_json, write_json, write_text
from common.options import as_settings, option, parse
from common.shuffle import seeded_order
from eval.change_table import table_of_runs
from eval.charts import interval_picture
from experiments.figures import changes_by_type, changes_from, figures, training_cost
from experiments.kept import Kept, kept_results
from experiments.stages import DtypeOptions, RunOptions, Stage, expected_minutes, in_dtype, plan_or_run, stage

METRICS = ("greedy_pass@1", "pass@1", "pass@3", "syntactic", "answer_characters")
MAIN = "greedy_pass@1"
VARIANTS = {"code": 110, "explained": 210}  # and the tokens of a row, markup included, for the expected minutes
ROWS = 611  # training rows of the sample of 2,017, for the same
SETS = {"mbpp": 500, "own": 48}  # of tasks, and how many
RATED, SHOWN = 30, 15  # answers on a page for raters, failures in the results


@dataclass(frozen=True)
class Sizes:
    """How much of everything."""

    tasks: int | None = None  # None: all of MBPP's 500
    samples: int = 5
    sampled_tasks: int = 100
    row_tokens: int = 1024  # longer rows are left out
    new_tokens: int = 384  # of an answer, at most
    explained_rows: int | None = None  # rows that the teacher is asked about; None: all
    explanation: int = 160  # tokens, at most


FULL = Sizes()
SMOKE = Sizes(tasks=4, samples=4, sampled_tasks=2, row_tokens=224, new_tokens=16, explained_rows=16, explanation=48)


@dataclass(frozen=True, kw_only=True)
class Options(DtypeOptions, RunOptions):
    """Options of this experiment."""

    models: tuple[str, ...] = option(help="models to train, instruction-tuned or with --chat-template")
    explain: str = option(help="the model that writes the explanations", metavar="MODEL")
    data: str = option("hub:sahil2801/CodeAlpaca-20k", "CodeAlpaca: a file, or a name on the hub", metavar="FILE")
    mbpp: str = option("mbpp", "mbpp, or a file of code tasks in its place", metavar="TASKS")
    own: str = option("experiments/codealpaca/own_tasks.jsonl", "a file of further code tasks", metavar="FILE")
    chat_template: str | None = option(None, "Jinja file for base models", metavar="FILE")
    ranks: tuple[int, ...] = option((8, 32), "ranks to compare; alpha is twice the rank", least=1)
    seeds: tuple[int, ...] = option((0, 1), "seeds of training; code with explanation has the first alone")
    epochs: float = option(2.0, "passes over the rows")
    lr: float = option(2e-4, "peak learning rate")
    out: Path = option(Path("runs/codealpaca"), "folder of all runs", metavar="DIR")
    results: Path = option(Path("experiments/codealpaca"), "folder for done/, results.json and figures", metavar="DIR")

    @property
    def sizes(self) -> Sizes:
        """Of a full run, or of --smoke."""
        return SMOKE if self.smoke else FULL

    @property
    def template(self) -> list[str]:
        """--chat-template, for the commands that ask a base model."""
        return ["--chat-template", self.chat_template] if self.chat_template else []


@dataclass(frozen=True)
class Arm:
    """What is trained: the variant of the rows, and the rank."""

    variant: str
    r: int

    @property
    def title(self) -> str:
        """For tables: code, r = 8."""
        return f"{self.variant}, r = {self.r}"

    def run(self, options: Options, model: str, seed: int) -> Path:
        """The run folder; the results of eval.code are beside it."""
        return folder_of(options, model) / f"{self.variant}-r{self.r}-{seed}"


def main() -> None:
    """Run what is not done; write results.json and the figures after every stage, print the table."""
    options = parse(Options, description=__doc__)
    stages = [data_stage(options)]
    for model in options.models:
        stages += measured(options, model, untrained(options, model))
        for arm, seed in arms(options):
            stages += trained_stages(options, model, arm, seed)
        stages += contamination_stages(options, model) + rating_stages(options, model)
    stages = in_dtype(stages, options.dtype)
    kept(options).restore(stages)
    plan_or_run(options, stages, after_each=lambda: write_results(options, stages))


def kept(options: Options) -> Kept:
    """The results that are part of the project."""
    return kept_results(options, apart_from=("models", "ranks", "seeds", "data", "mbpp", "own"))


def arms(options: Options) -> list[tuple[Arm, int]]:
    """The arms with their seeds; those of the first seed come first, so that a stopped run has one of each."""
    ranks = [(Arm("code", r), seed) for seed in options.seeds for r in options.ranks]
    return [
        *ranks[: len(options.ranks)],
        (Arm("explained", options.ranks[0]), options.seeds[0]),
        *ranks[len(options.ranks) :],
    ]


def folder_of(options: Options, model: str) -> Path:
    """The folder of a model's runs."""
    return options.out / Path(model).name


def untrained(options: Options, model: str) -> Path:
    """Where a run folder would be; the results of the untrained model are beside it."""
    return folder_of(options, model) / "untrained"


def result_of(run: Path, tasks: str) -> Path:
    """The result of a run on a set of tasks."""
    return run.with_name(f"{run.name}-{tasks}.json")


def data_stage(options: Options) -> Stage:
    """The rows in both variants, cut to the same ids, explained by the teacher."""
    sizes, out = options.sizes, options.out / "data"
    command = [
        "-m", "data.importing", options.data, "--out", out, "--explain", options.explain, "--teacher-max-tokens",
        sizes.explanation, "--test-share", 0,
    ]  # fmt: skip
    if sizes.explained_rows:
        command += ["--teacher-requests", sizes.explained_rows]
    asked = (sizes.explained_rows or ROWS / 0.8) * 0.6 * sizes.explanation
    return stage(out / "about.json", *command, minutes=expected_minutes(answered=asked))


def trained_stages(options: Options, model: str, arm: Arm, seed: int) -> list[Stage]:
    """Train an arm, and measure it."""
    run, data = arm.run(options, model, seed), options.out / "data" / arm.variant
    train = [
        "train_sft.py", "--model", model, "--data", data / "train.jsonl", "--validation", data / "validation.jsonl",
        "--out", run, "--r", arm.r, "--alpha", 2 * arm.r, "--epochs", options.epochs, "--lr", options.lr,
        "--max-length", options.sizes.row_tokens, "--step-pairs", 16, "--micro-batch", 4, "--seed", seed,
        *options.template,
    ]  # fmt: skip
    minutes = expected_minutes(trained=options.epochs * ROWS * VARIANTS[arm.variant])
    return [
        stage(run / "metrics.json", *train, resume=["--resume"], begun=run / "config.json", minutes=minutes),
        *measured(options, model, run, adapter=run / "adapter", seed=seed),
    ]


def measured(options: Options, model: str, run: Path, *, adapter: Path | None = None, seed: int = 0) -> list[Stage]:
    """eval.code on both sets of tasks, some sampled. An adapter brings the template that it was trained with."""
    sizes, stages = options.sizes, []
    for tasks, count in SETS.items():
        count, sampled = min(sizes.tasks or count, count), min(sizes.sampled_tasks, count)
        command = [
            "-m", "eval.code", "--tasks", getattr(options, tasks), "--model", model,
            "--limit", count, "--samples", sizes.samples, "--sampled-tasks", sampled, "--k", 1, 3,
            "--max-new-tokens", sizes.new_tokens, "--seed", seed, "--out", result_of(run, tasks),
            *(["--adapter", adapter] if adapter else options.template),
        ]  # fmt: skip
        minutes = expected_minutes(answered=100 * (count + sizes.samples * sampled))
        stages.append(stage(result_of(run, tasks), *command, minutes=minutes))
    return stages


def contamination_stages(options: Options, model: str) -> list[Stage]:
    """Which tasks share a text with the training rows; scores without them, untrained and of the first arm."""
    arm, seed = arms(options)[0]
    train, runs = (
        options.out / "data" / arm.variant / "train.jsonl",
        (untrained(options, model), arm.run(options, model, seed)),
    )
    stages = []
    for tasks in SETS:
        out, results = contamination_of(options, model, tasks), [result_of(run, tasks) for run in runs]
        command = ["-m", "eval.contamination", "--train", train, "--tasks", getattr(options, tasks), "--out", out]
        stages.append(stage(out, *command, "--result", *results))
    return stages


def contamination_of(options: Options, model: str, tasks: str) -> Path:
    """What eval.contamination found on a set of tasks."""
    return folder_of(options, model) / f"contamination-{tasks}.json"


def rating_stages(options: Options, model: str) -> list[Stage]:
    """Pages on which people rate the same tasks of the untrained model and of both variants, from 1 to 5."""
    runs = {arm.variant: arm.run(options, model, seed) for arm, seed in reversed(arms(options))}  # the first of each
    results = {name: result_of(run, "mbpp") for name, run in {"base": untrained(options, model), **runs}.items()}
    pages = {name: folder_of(options, model) / f"rate-{name}.html" for name in results}
    return [
        stage(pages[name], "-m", "eval.rate", result, "--page", pages[name], "--count", RATED)
        for name, result in results.items()
    ]


def write_results(options: Options, stages: list[Stage]) -> None:
    """What is kept, results.json, the figures and the tables, of the models that have a trained arm."""
    kept(options).keep(stages)
    commands = {one.done: one.shown() for one in stages}
    models = {}
    for model in options.models:
        runs = [(arm, seed, arm.run(options, model, seed)) for arm, seed in arms(options)]
        done = [(arm, seed, run) for arm, seed, run in runs if all(result_of(run, tasks).is_file() for tasks in SETS)]
        if done:
            base = untrained(options, model)
            models[Path(model).name] = {
                tasks: on_tasks(tasks, base, done, commands) | without_shared(contamination_of(options, model, tasks))
                for tasks in SETS
            }
    if not models:
        return
    about = read_json(options.out / "data" / "about.json")
    settings = as_settings(options, without=("out", "results", "max_minutes", "plan"))
    found = {"schema": 1, "settings": settings, "rows": about["rows"], "import": about["counts"], "models": models}
    write_json(options.results / "results.json", found)
    for name, of_sets in models.items():
        for tasks, found in of_sets.items():
            write_text(options.results / f"changes-{name}-{tasks}.svg", interval_picture(found["changes"]))
            by_type = {kind: {MAIN: change} for kind, change in found["by_type"].items()}
            write_text(options.results / f"types-{name}-{tasks}.svg", interval_picture(by_type))


def on_tasks(tasks: str, base_run: Path, done: list[tuple[Arm, int, Path]], commands: dict[Path, str]) -> dict:
    """What results.json says of a model on a set of tasks: rows, changes against it untrained and the first arm."""
    base = read_json(result_of(base_run, tasks))
    rows = [{"arm": "untrained", "seed": None, **figures(base, METRICS), "causes": base["causes"]}]
    results: dict[Arm, dict[int, dict]] = {}
    for arm, seed, run in done:
        results.setdefault(arm, {})[seed] = result = read_json(result_of(run, tasks))
        row = {"arm": arm.title, "seed": seed, **figures(result, METRICS), "causes": result["causes"]}
        commands_ = {"train_command": commands[run / "metrics.json"], "command": commands[result_of(run, tasks)]}
        rows.append(row | {"training": training_cost(run)} | commands_)
    runs = {arm.title: [*of_seeds.values()] for arm, of_seeds in results.items()}
    changes = changes_from([base], runs, METRICS)
    print(table_of_runs([base], runs, changes))

    # the first arm is the one that the others are set against
    first, others = done[0][0], list(results)[1:]
    against = {arm.title: _against(results[first], results[arm], arm.title) for arm in others}
    tuned = results[first][done[0][1]]
    return {
        "rows": rows,
        "changes": changes,
        "first": first.title,
        "against_first": against,
        "by_type": changes_by_type(base, tuned, MAIN),
        "failures": failures(tuned),
    }


def without_shared(found: Path) -> dict:
    """{"shared": how many tasks share a text with a training row, "without": the first arm's scores on the others}."""
    if not found.is_file():
        return {}
    result = read_json(found)
    scores = [of_metrics[MAIN]["clean"] for of_metrics in result["scores"].values()]
    names = ("untrained", "first")
    return {"shared": len(result["flagged"]), "without": dict(zip(names, scores, strict=True))}


def _against(first: dict[int, dict], other: dict[int, dict], title: str) -> dict:
    """The changes of the seeds that both arms have."""
    shared = [seed for seed in first if seed in other]
    return changes_from([first[seed] for seed in shared], {title: [other[seed] for seed in shared]}, METRICS)[title]


def failures(result: dict) -> list[dict]:
    """SHOWN failed answers, drawn by seed: task, type, cause, and what was seen."""
    failed = {row["task_id"]: row for row in result["results"] if row["sample"] == "greedy" and row["cause"]}
    drawn = seeded_order(list(failed), 0)[:SHOWN]
    return [{key: failed[i][key] for key in ("task_id", "type", "cause", "detail")} for i in drawn]


if __name__ == "__main__":
    sys.exit(run_command(main))
