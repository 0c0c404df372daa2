"""Instruction tuning on TypeScript and JavaScript: the next token of base and tuned, and how much the context matters.

    python -m experiments.typescript.run --models MODEL [MODEL ...] --out runs/typescript
    python -m experiments.typescript.run --models MODEL --multipl-e humaneval-ts.jsonl --plan

Pairs are made from npm packages and from CodeAlpaca's answers in the two languages; one package is held out. A LoRA
adapter is trained with each context length. Measured: the next token and both continuations on seen and unseen prompts,
with the share of TypeScript in the distribution and its entropy; the tasks of the held-out package, run by node where
they show calls; MultiPL-E's tasks, if their rows are at hand. Rerun the command to resume.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path

from common.console import run_command
from common.files import read_json, read_jsonl, write_json, write_text
from common.options import as_settings, option, parse
from eval.change_table import table_of_runs
from eval.charts import Line, curve_picture
from experiments.figures import changes_from, figures, training_cost
from experiments.kept import Kept, kept_results
from experiments.stages import DtypeOptions, RunOptions, Stage, expected_minutes, in_dtype, plan_or_run, stage

METRICS = ("pass@1", "lenient_pass@1", "greedy_pass@1", "hallucination_rate")
CODE = ("greedy_pass@1", "syntactic", "answer_characters")  # of MultiPL-E's tasks
BEGINS = {"answer": "", "fence": "```"}  # where the next token is looked at: at once, or after an opening fence
COLORS = ("muted", "before", "after")
UNSEEN = "write a function which adds 3 numbers and returns the result"
SHARES = ("docstring=0.2", "explain=0.2", "complete=0.3", "bugfix=0.3", "unit_test=0", "improve=0")
ROW_TOKENS = 300  # of a pair, for the expected minutes


@dataclass(frozen=True)
class Sizes:
    """How much of everything."""

    pairs: int = 60  # of each package
    held_out: int = 80  # pairs of the held-out package
    prompts: int = 32  # seen, and as many unseen
    window: int = 1024  # tokens of a prompt at most
    continuation: int = 256  # tokens
    new_tokens: int = 400  # of an answer to a task
    most: tuple[int, int] = (8000, 4000)  # characters of a question and of an answer: some need the long contexts


FULL = Sizes()
SMOKE = Sizes(pairs=4, held_out=3, prompts=2, window=64, continuation=6, new_tokens=8)


@dataclass(frozen=True, kw_only=True)
class Options(DtypeOptions, RunOptions):
    """Options of this experiment."""

    models: tuple[str, ...] = option(help="models to train, instruction-tuned")
    packages: tuple[str, ...] = option(
        ("npm:ramda@0.30.1", "npm:rxjs@7.8.2", "npm:zod@3.25.76", "npm:date-fns@4.1.0"),
        "SOURCES to make pairs from", metavar="SOURCE",
    )  # fmt: skip
    held_out: str = option("npm:lodash-es@4.17.21", "SOURCE of the test pairs alone", metavar="SOURCE")
    data: str = option("hub:sahil2801/CodeAlpaca-20k", "CodeAlpaca: a file, or a name on the hub", metavar="FILE")
    checks: tuple[str, ...] = option(
        ("doctest", "tests", "structure"), "how answers may be proven, as data.instruct takes it"
    )
    contexts: tuple[int, ...] = option((512, 2048, 4096), "context lengths to train with, in tokens", least=32)
    epochs: float = option(3.0, "passes over the pairs")
    lr: float = option(2e-4, "peak learning rate")
    seen_prompt: str | None = option(None, "a prompt of the training set (default: its first)", metavar="TEXT")
    unseen_prompt: str = option(UNSEEN, "a prompt that is not in it", metavar="TEXT")
    multipl_e: str | None = option(None, "MultiPL-E's rows of HumanEval for TypeScript, if at hand", metavar="FILE")
    seed: int = option(0, "seed of every draw")
    out: Path = option(Path("runs/typescript"), "folder of all runs", metavar="DIR")
    results: Path = option(Path("experiments/typescript"), "folder for done/, results.json and figures", metavar="DIR")

    @property
    def sizes(self) -> Sizes:
        """Of a full run, or of --smoke."""
        return SMOKE if self.smoke else FULL


def main() -> None:
    """Run what is not done; write results.json and the figures after every stage, print the table."""
    options = parse(Options, description=__doc__)
    stages = data_stages(options)
    for model in options.models:
        stages += measure(options, model, "base")
        for context in options.contexts:
            stages += [train(options, model, context), *measure(options, model, f"context-{context}")]
    stages = in_dtype(stages, options.dtype)
    kept(options).restore(stages)
    plan_or_run(options, stages, after_each=lambda: write_results(options, stages))


def kept(options: Options) -> Kept:
    """The results that are part of the project."""
    return kept_results(options, apart_from=("models", "contexts", "data", "multipl_e"))


def name_of(source: str) -> str:
    """A folder's name for a SOURCE: ramda of npm:ramda@0.30.1."""
    return re.sub(r"^.*[:/]|@[\d.]+$", "", source.rstrip("/"))


def folder_of(options: Options, model: str) -> Path:
    """The folder of a model's runs."""
    return options.out / Path(model).name


def data_stages(options: Options) -> list[Stage]:
    """Pairs of each package, CodeAlpaca's rows, and all of them joined."""
    sizes, out = options.sizes, options.out / "pairs"
    imported = [
        "-m", "data.importing", options.data, "--out", out / "imported", "--language", "typescript", "javascript",
        "--seed", options.seed,
    ]  # fmt: skip
    stages = [stage(out / "imported" / "about.json", *imported)]
    counts = {source: sizes.pairs for source in options.packages} | {options.held_out: sizes.held_out}
    for source, count in counts.items():
        corpus = options.out / "corpora" / name_of(source)
        curate = ["-m", "data.corpus", source, "--out", corpus, "--languages", "javascript", "typescript"]
        make = [
            "-m", "data.instruct", corpus, "--out", out / name_of(source), "--count", count, "--test-count", 0,
            "--validation-count", max(1, count // 10), "--checks", *options.checks, "--share", *SHARES, "--most-input",
            sizes.most[0], "--most-output", sizes.most[1], "--seed", options.seed,
        ]  # fmt: skip
        stages += [stage(corpus / "corpus.json", *curate, "--test-share", 0, "--seed", options.seed)]
        stages += [stage(out / name_of(source) / "about.json", *make)]
    sets = [out / "imported" / "code", *(out / name_of(source) for source in options.packages)]
    held_out = out / name_of(options.held_out)
    join = ["-m", "experiments.typescript.join", *sets, "--held-out", held_out, "--out", options.out / "data"]
    return [*stages, stage(options.out / "data" / "about.json", *join)]


def train(options: Options, model: str, context: int) -> Stage:
    """Training with one context length: longer pairs are cut."""
    run, data = folder_of(options, model) / f"context-{context}", options.out / "data"
    command = [
        "train_sft.py", "--model", model, "--data", data / "train.jsonl", "--validation", data / "validation.jsonl",
        "--out", run, "--epochs", options.epochs, "--lr", options.lr, "--max-length", context, "--step-pairs", 16,
        "--seed", options.seed,
    ]  # fmt: skip
    rows = options.sizes.pairs * len(options.packages) + 173  # of the sample of 2,017
    minutes = expected_minutes(trained=options.epochs * rows * ROW_TOKENS)
    return stage(
        run / "metrics.json", *command, resume=["--resume"], begun=run / "config.json", also=[run / "metrics.jsonl"],
        minutes=minutes,
    )  # fmt: skip


def measure(options: Options, model: str, state: str) -> list[Stage]:
    """The tasks of the base or of a trained state; of a trained one also the next tokens, beside the base's."""
    folder, data, sizes = folder_of(options, model), options.out / "data", options.sizes
    adapter = [] if state == "base" else ["--adapter", folder / state / "adapter"]
    asked = ["--model", model, *adapter, "--max-new-tokens", sizes.new_tokens, "--seed", options.seed]
    tasks = ["-m", "eval.instruct", "--data", data / "test.jsonl", "--samples", 0, "--k", 1, *asked]
    minutes = expected_minutes(answered=120 * sizes.held_out)
    stages = [stage(folder / f"{state}.json", *tasks, "--out", folder / f"{state}.json", minutes=minutes)]
    if options.multipl_e:
        result = folder / f"{state}-multipl-e.json"
        tasks = ["-m", "eval.code", "--tasks", options.multipl_e, "--samples", 0, *asked]
        stages.append(stage(result, *tasks, "--out", result, minutes=expected_minutes(answered=160 * 150)))
    for name, begins in BEGINS.items() if adapter else ():
        result = folder / f"{state}-next-{name}.json"
        seen = ["--seen-prompt", options.seen_prompt] if options.seen_prompt else ["--continued", 1]
        tokens = [
            "-m", "eval.next_token", "--model", model, *adapter, "--seen", data / "train.jsonl", "--unseen",
            data / "test.jsonl", "--count", sizes.prompts, "--window", sizes.window, *seen, "--unseen-prompt",
            options.unseen_prompt, "--max-new-tokens", sizes.continuation, "--language", "typescript",
            f"--answer-begins={begins}", "--seed", options.seed, "--out", result,
        ]  # fmt: skip
        stages.append(stage(result, *tokens, minutes=expected_minutes(answered=4 * sizes.continuation * 3)))
    return stages


def write_results(options: Options, stages: list[Stage]) -> None:
    """What is kept, results.json, the loss curves and the tables, of the models that have a trained state."""
    kept(options).keep(stages)
    commands = {one.done: one.shown() for one in stages}
    models = {}
    for model in options.models:
        states = [f"context-{context}" for context in options.contexts]
        done = [state for state in states if all(one.done.is_file() for one in measure(options, model, state))]
        if done:
            models[Path(model).name] = of_model(options, model, done, commands)
    if models:
        settings = as_settings(options, without=("out", "results", "max_minutes", "plan"))
        counts = read_json(options.out / "data" / "about.json")["counts"]
        found = {"schema": 1, "settings": settings, "pairs": counts, "models": models}
        write_json(options.results / "results.json", found)


def of_model(options: Options, model: str, states: list[str], commands: dict[Path, str]) -> dict:
    """A model's part of results.json; writes its loss curves."""
    folder = folder_of(options, model)
    results = {state: read_json(folder / f"{state}.json") for state in ("base", *states)}
    rows = [{"state": "base", **figures(results["base"], METRICS)}]
    curves, next_tokens = [], {}
    for state, color in zip(states, COLORS * len(states), strict=False):
        losses = read_jsonl(folder / state / "metrics.jsonl")
        row = {"state": state, **figures(results[state], METRICS), "training": training_cost(folder / state)}
        row |= {"command": commands[folder / state / "metrics.json"], "loss": losses_of(losses)}
        rows.append(row)
        points = [(one["step"], one["loss"]) for one in losses if "loss" in one]
        curves.append(Line(state.replace("-", " "), points, color))
        next_tokens[state] = {name: next_token_of(read_json(folder / f"{state}-next-{name}.json")) for name in BEGINS}
    write_text(options.results / f"loss-{Path(model).name}.svg", curve_picture("Loss of a step, nats a token", curves))
    changes = changes_from([results["base"]], {state: [results[state]] for state in states}, METRICS)
    print(table_of_runs([results["base"]], {state: [results[state]] for state in states}, changes))
    return {"rows": rows, "changes": changes, "next_token": next_tokens, "multipl_e": multipl_e_of(folder, states)}


def losses_of(rows: list[dict]) -> dict:
    """The loss of the first and the last step, and the last validation loss, in nats a token."""
    losses = [row["loss"] for row in rows if "loss" in row]
    validated = [row["validation_loss"] for row in rows if "validation_loss" in row]
    return {"first": losses[0], "last": losses[-1], "validation": validated[-1] if validated else None}


def next_token_of(result: dict) -> dict:
    """What results.json keeps of an eval.next_token: the figures, and the prompts that were continued in full."""
    wanted = ("language_mass_", "language_top_", "next_entropy_", "kl_")
    names = [name for name in result["metrics"] if name.startswith(wanted)]
    shown = [row for row in result["prompts"] if "continuations" in row]
    kept = ("name", "kind", "text", "base", "tuned", "continuations")
    return {
        "metrics": {name: result["metrics"][name] for name in names},
        "intervals": {name: result["intervals"][name] for name in names},
        "n": {name: result["n_of"][name] for name in names},
        "contrasts": result["contrasts"],
        "shown": [{key: row[key] for key in kept} for row in shown],
    }


def multipl_e_of(folder: Path, states: list[str]) -> dict | None:
    """Figures and changes on MultiPL-E's tasks, None if they were not at hand."""
    paths = {state: folder / f"{state}-multipl-e.json" for state in ("base", *states)}
    if not all(path.is_file() for path in paths.values()):
        return None
    results = {state: read_json(path) for state, path in paths.items()}
    changes = changes_from([results["base"]], {state: [results[state]] for state in states}, CODE)
    return {"rows": {state: figures(result, CODE) for state, result in results.items()}, "changes": changes}


if __name__ == "__main__":
    sys.exit(run_command(main))
