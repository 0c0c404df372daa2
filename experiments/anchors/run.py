"""Published scores on HumanEval and MBPP beside ours, and what makes the difference.

    python -m experiments.anchors.run --models MODEL [MODEL ...] --out runs/anchors          # make anchors
    python -m experiments.anchors.run --humaneval-plus HumanEvalPlus.jsonl --plan

Our setting is greedy answers of up to 768 tokens to a chat prompt, in the dtype of the hardware. Each other setting
changes one thing, over a fixed draw of the tasks: a plain prompt, short answers, another dtype, 4-bit weights; and the
same answers are read as other harnesses read them. A published figure outside our interval is explained by one of
these, or named as unexplained. Rerun the command to resume.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import torch

from common.console import run_command
from common.files import read_json, write_json, write_text
from common.options import as_settings, option, parse
from eval.charts import interval_picture
from eval.code.task_files import NAMED
from eval.compare import compare
from experiments.anchors.published import PUBLISHED, explanation, name_of, published_of
from experiments.anchors.readings import READINGS
from experiments.figures import figures
from experiments.kept import Kept, kept_results
from experiments.stages import RunOptions, Stage, expected_minutes, plan_or_run, stage
from model.device import choose_device, choose_dtype

METRICS = ("greedy_pass@1", "syntactic", "answer_characters")
MAIN, OURS = "greedy_pass@1", "ours"
ANSWERS = {"mbpp": 500, "mbpp-sanitized": 427}  # tasks of a benchmark, for the expected minutes; HumanEval has 164


@dataclass(frozen=True)
class Sizes:
    """How much of everything."""

    tasks: int | None = None  # None: all of a benchmark
    drawn: int = 100  # tasks on which one thing is changed
    new_tokens: int = 768
    short: int = 128  # tokens of a short answer


FULL, SMOKE = Sizes(), Sizes(tasks=3, drawn=2, new_tokens=16, short=4)


@dataclass(frozen=True, kw_only=True)
class Options(RunOptions):
    """Options of this experiment."""

    models: tuple[str, ...] = option(
        ("Qwen/Qwen2.5-Coder-0.5B-Instruct", "Qwen/Qwen2.5-Coder-1.5B-Instruct"),
        f"models of which scores are published; the last part of a name is one of {', '.join(PUBLISHED)}",
    )
    benchmarks: tuple[str, ...] = option(NAMED, "named tasks", choices=NAMED, nargs="*")
    humaneval_plus: str | None = option(None, "EvalPlus's rows of HumanEval, if at hand", metavar="FILE")
    weights: str | None = option(
        None, "what the weights went through, said on the page (default: as published)", metavar="TEXT"
    )
    device: str = option("auto", "auto, cpu, cuda or cuda:N")
    out: Path = option(Path("runs/anchors"), "folder of all results", metavar="DIR")
    results: Path = option(Path("experiments/anchors"), "folder for done/, results.json and figures", metavar="DIR")

    @property
    def sizes(self) -> Sizes:
        """Of a full run, or of --smoke."""
        return SMOKE if self.smoke else FULL

    @property
    def sources(self) -> dict[str, str]:
        """Benchmark -> what --tasks of eval.code takes."""
        plus = {"humaneval-plus": self.humaneval_plus} if self.humaneval_plus else {}
        return {name: name for name in self.benchmarks} | plus


def main() -> None:
    """Measure what is not done; write results.json and the figure after every stage."""
    options = parse(Options, description=__doc__)
    pairs = [(model, benchmark) for model in options.models for benchmark in options.sources]
    stages = [one for pair in pairs for one in [measure(options, *pair, OURS), *read_otherwise(options, *pair)]]
    stages += [measure(options, *pair, how) for pair in pairs for how in settings_of(options) if how != OURS]
    kept(options).restore(stages)
    plan_or_run(options, stages, after_each=lambda: write_results(options, stages))


def kept(options: Options) -> Kept:
    """The results that are part of the project."""
    return kept_results(options, apart_from=("models", "benchmarks", "humaneval_plus"))


def result_of(options: Options, model: str, benchmark: str, how: str) -> Path:
    """The result of a model on a benchmark in one setting."""
    return options.out / name_of(model) / benchmark / f"{how}.json"


def settings_of(options: Options) -> dict[str, list[object]]:
    """Name -> the options of eval.code that differ from ours in one thing; ours is the first."""
    length = ["--max-new-tokens", options.sizes.new_tokens]
    return {
        OURS: length,
        "plain-prompt": [*length, "--prompt", "plain"],
        "short-answers": ["--max-new-tokens", options.sizes.short],
        **({"fp32": [*length, "--dtype", "fp32"]} if used_dtype(options) != torch.float32 else {}),
        "4-bit": [*length, "--quantize", "nf4"],
    }


def used_dtype(options: Options) -> torch.dtype:
    """The compute dtype of our setting, which the hardware decides."""
    return choose_dtype(choose_device(options.device))


def read_otherwise(options: Options, model: str, benchmark: str) -> list[Stage]:
    """Our answers, read as other harnesses read them."""
    result, stages = result_of(options, model, benchmark, OURS), []
    for how in READINGS:
        answers = result.with_name(f"{how}.jsonl")
        stages.append(stage(answers, "-m", "experiments.anchors.readings", result, "--how", how, "--out", answers))
        graded = ["--answers", answers, "--out", result_of(options, model, benchmark, how)]
        limit = ["--limit", options.sizes.tasks] if options.sizes.tasks else []
        tasks = ["-m", "eval.code", "--tasks", options.sources[benchmark]]
        stages.append(stage(result_of(options, model, benchmark, how), *tasks, *limit, *graded))
    return stages


def measure(options: Options, model: str, benchmark: str, how: str) -> Stage:
    """eval.code, greedy alone: in our setting on every task, in the others on the drawn ones."""
    tasks = options.sizes.tasks if how == OURS else options.sizes.drawn
    result = result_of(options, model, benchmark, how)
    command = [
        "-m", "eval.code", "--tasks", options.sources[benchmark], "--model", model, "--samples", 0, "--device",
        options.device, *settings_of(options)[how], *(["--limit", tasks] if tasks else []), "--out", result,
    ]  # fmt: skip
    answers = tasks or ANSWERS.get(benchmark, 164)
    minutes = expected_minutes(answered=170 * answers) * PUBLISHED[name_of(model)]["billions"] / 0.5
    return stage(result, *command, minutes=minutes)


def write_results(options: Options, stages: list[Stage]) -> None:
    """What is kept, results.json, and a figure of the differences for each model and benchmark that is measured."""
    kept(options).keep(stages)
    commands = {one.done: one.shown() for one in stages}
    anchors = []
    for model in options.models:
        for benchmark in options.sources:
            path = result_of(options, model, benchmark, OURS)
            if path.is_file():
                found = of_benchmark(options, model, benchmark, read_json(path))
                anchors.append(found | {"command": commands[path]})
                picture = interval_picture({how: one["changes"] for how, one in found["variants"].items()})
                write_text(options.results / f"{found['model']}-{benchmark}.svg", picture)
    if anchors:
        settings = as_settings(options, without=("out", "results", "max_minutes", "plan"))
        dtype = str(used_dtype(options)).removeprefix("torch.")
        found = {"schema": 1, "settings": settings, "drawn": options.sizes.drawn, "dtype": dtype, "anchors": anchors}
        write_json(options.results / "results.json", found)


def of_benchmark(options: Options, model: str, benchmark: str, result: dict) -> dict:
    """A model on a benchmark: our figure, the published one, and each variant against ours on the same tasks."""
    variants = {}
    for how in [*READINGS, *settings_of(options)]:
        path = result_of(options, model, benchmark, how)
        if how != OURS and path.is_file():
            other = read_json(path)
            changes = compare(of_same_tasks(result, other), other)
            kept = {metric: change for metric, change in changes.items() if metric in METRICS}
            variants[how] = figures(other, METRICS) | {"changes": kept}
    published = published_of(model, benchmark)
    row = {"model": name_of(model), "benchmark": benchmark, "published": published, **figures(result, METRICS)}
    row |= {"variants": variants, "routes": result["routes"]}
    if published is not None:
        measured = {h: {"interval": v["intervals"][MAIN], "change": v["changes"][MAIN]} for h, v in variants.items()}
        row |= explanation(published, result["intervals"][MAIN], measured)
    return row


def of_same_tasks(result: dict, other: dict) -> dict:
    """A result cut to the tasks of another one."""
    ids = {row["task_id"] for row in other["results"]}
    values = {m: {i: value for i, value in of_task.items() if i in ids} for m, of_task in result["values"].items()}
    return result | {"values": values, "results": [row for row in result["results"] if row["task_id"] in ids]}


if __name__ == "__main__":
    sys.exit(run_command(main))
