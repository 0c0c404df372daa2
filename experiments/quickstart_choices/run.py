"""How the quickstart's epochs, learning rate and category shares were chosen.

    python -m experiments.quickstart_choices.run --out runs/quickstart_choices

The quickstart's test files are set aside. Its other files are split anew, and every choice is trained on one part and
measured on the other, with the quickstart's own data and options apart from what is chosen. Rerun the command to
resume; results.json holds what is done so far.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path

import quickstart
from common.console import run_command
from common.files import read_json, read_jsonl, write_json
from common.options import option, parse
from data.corpus import Corpus, build_corpus, save_corpus
from eval.change_table import table_of_runs
from experiments.figures import changes_from, figures
from experiments.stages import Stage, run_stages, stage

VALIDATION_SHARE = 0.24  # of all files: two in five of those that the quickstart does not test on
SIZES = replace(quickstart.FULL, pairs=160, tasks=100, queries=150, text_code_pairs=260)  # fewer files give fewer
SHARES = {"executed": quickstart.SHARES, "equal": {}}  # of the categories, for track B
OF_MEASURING = ("validation", "test", "samples", "sampled-tasks", "max-new-tokens")
METRICS = {
    "cpt": ("perplexity", "bits_per_byte"),
    "sft": ("pass@1", "lenient_pass@1", "hallucination_rate"),
    "embed": ("ndcg@10", "mrr@10", "recall@10"),
}


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of this experiment."""

    out: Path = option(Path("runs/quickstart_choices"), "folder of all runs", metavar="DIR")
    tracks: tuple[str, ...] = option(tuple(METRICS), "tracks to run", choices=tuple(METRICS))
    seed: int = option(0, "seed of every draw")
    results: Path = option(Path("experiments/quickstart_choices"), "folder for results.json", metavar="DIR")
    max_minutes: float | None = option(None, "start nothing new after this time", metavar="M")

    def quickstart(self, shares: str = "executed") -> quickstart.Options:
        """The options of a quickstart whose data are in a folder of their own."""
        return quickstart.Options(out=self.out / shares, seed=self.seed)


@dataclass(frozen=True)
class Choice:
    """What is chosen for a track: options of its script, and for track B the shares of the categories."""

    track: str
    settings: dict[str, float]
    shares: str = "executed"

    @property
    def name(self) -> str:
        """For folders and tables: cpt-epochs-1-most-tokens-82000, sft-epochs-2-lr-0.0005-equal."""
        parts = [f"{name}-{value:g}" for name, value in self.settings.items()]
        return "-".join([self.track, *parts, *([self.shares] if self.track == "sft" else [])])

    @property
    def title(self) -> str:
        """For readers: 2 epochs, lr 0.0005."""
        words = {"epochs": "epochs {:g}", "lr": "lr {:g}", "most-tokens": "{:,} tokens"}
        parts = [words[name].format(value) for name, value in self.settings.items()]
        return ", ".join([*parts, *([f"{self.shares} shares"] if self.track == "sft" else [])])

    @property
    def is_the_quickstarts(self) -> bool:
        """Whether the quickstart makes this choice."""
        taken = quickstart.track_options(self.track, quickstart.Options(), quickstart.FULL)
        same_shares = SHARES[self.shares] == quickstart.SHARES
        return same_shares and all(taken[name] == value for name, value in self.settings.items())


CHOICES = (
    Choice("sft", {"epochs": 2, "lr": 5e-4}),
    Choice("sft", {"epochs": 2, "lr": 2e-4}),
    Choice("sft", {"epochs": 2, "lr": 1e-3}),
    Choice("sft", {"epochs": 4, "lr": 5e-4}),
    Choice("sft", {"epochs": 2, "lr": 5e-4}, "equal"),
    Choice("cpt", {"epochs": 1, "most-tokens": 82_000}),
    Choice("cpt", {"epochs": 2, "most-tokens": 41_000}),
    Choice("embed", {"epochs": 2}),
    Choice("embed", {"epochs": 4}),
)


def main() -> None:
    """Run what is not done, then compare what is."""
    options = parse(Options, description=__doc__)
    for shares in SHARES:
        make_data(options, shares)
    stages = {track: track_stages(options, track) for track in METRICS}
    asked = [one for track in options.tracks for one in stages[track]]
    known = [one for of_track in stages.values() for one in of_track]
    run_stages(asked, max_minutes=options.max_minutes, after_each=lambda: write_results(options, known))


def make_data(options: Options, shares: str) -> None:
    """The quickstart's data, its test files replaced by a part of the others."""
    of_quickstart = options.quickstart(shares)
    if not (of_quickstart.folder / "corpus" / "corpus.json").is_file():
        save_corpus(without_test_files(of_quickstart), of_quickstart.folder / "corpus")
    quickstart.make_data(of_quickstart, SIZES, {}, SHARES[shares])


def without_test_files(of_quickstart: quickstart.Options) -> Corpus:
    """The quickstart's corpus without its test files, in whose place is a part of the others."""
    corpus = build_corpus(
        of_quickstart.corpus,
        test_share=quickstart.TEST_SHARE,  # drawn first and by the same seed: the quickstart's test files
        validation_share=VALIDATION_SHARE,
        seed=of_quickstart.seed,
    )
    sides = {"train": "train", "validation": "test"}
    files = tuple(replace(file, split=sides[file.split]) for file in corpus.files if file.split in sides)
    return replace(corpus, files=files)


def track_stages(options: Options, track: str) -> list[Stage]:
    """Everything to run for a track."""
    base = [measure_answers(options, "base")] if track == "sft" else []
    return base + [one for choice in CHOICES if choice.track == track for one in choice_stages(options, choice)]


def choice_stages(options: Options, choice: Choice) -> list[Stage]:
    """Training with a choice, measured by its script; track B's answers are measured apart, on one set of tasks."""
    run = options.out / choice.name
    asked = quickstart.track_options(choice.track, options.quickstart(choice.shares), SIZES)
    asked = asked | choice.settings | {"out": run}
    if choice.track == "sft":
        asked = {name: value for name, value in asked.items() if name not in OF_MEASURING}
    script = f"train_{choice.track}.py"
    train = stage(
        run / "metrics.json", script, *quickstart.command_line(asked), resume=["--resume"], begun=run / "config.json"
    )
    return [train] if choice.track != "sft" else [train, measure_answers(options, choice.name, run / "adapter")]


def measure_answers(options: Options, name: str, adapter: Path | None = None) -> Stage:
    """Greedy answers to the held-out tasks, the same for every choice and for the base."""
    asked = quickstart.track_options("sft", options.quickstart(), SIZES)
    result = options.out / f"{name}.json"
    command = {
        "model": asked["model"], "data": asked["test"], "max-new-tokens": asked["max-new-tokens"], "samples": 0,
        "k": 1, "seed": options.seed, "out": result,
    }  # fmt: skip
    chosen = command if adapter is None else command | {"adapter": adapter}
    return stage(result, "-m", "eval.instruct", *quickstart.command_line(chosen))


def write_results(options: Options, stages: list[Stage]) -> None:
    """results.json and a table a track, of the choices that are done."""
    commands = {one.done: one.shown() for one in stages}
    tracks = {}
    for track, metrics in METRICS.items():
        found = [one for one in CHOICES if one.track == track and result_of(options, one).is_file()]
        if not found:
            continue
        runs = {one.name: [read_json(result_of(options, one))] for one in found}
        base = base_of(options, found[0])
        changes = changes_from([base], runs, metrics)
        rows = [{"name": "base", "title": "untrained", **figures(base, metrics)}]
        rows += [
            {
                "name": one.name, "title": one.title, "settings": one.settings,
                "shares": SHARES[one.shares] if track == "sft" else None,
                **figures(runs[one.name][0], metrics), "steps": steps_of(options.out / one.name),
                "command": commands[options.out / one.name / "metrics.json"],
            }
            for one in found
        ]  # fmt: skip
        chosen = next((one.name for one in found if one.is_the_quickstarts), None)
        tracks[track] = {"chosen": chosen, "rows": rows, "changes": changes}
        print(f"\n{track}\n{table_of_runs([base], runs, changes)}")
    if tracks:
        write_json(options.results / "results.json", {"schema": 1, "seed": options.seed, "tracks": tracks})


def result_of(options: Options, choice: Choice) -> Path:
    """The eval result of a choice."""
    return options.out / (f"{choice.name}.json" if choice.track == "sft" else f"{choice.name}/after.json")


def base_of(options: Options, choice: Choice) -> dict:
    """The eval result of the untrained model on the choice's held-out data."""
    return read_json(options.out / ("base.json" if choice.track == "sft" else f"{choice.name}/before.json"))


def steps_of(run: Path) -> int:
    """Optimiser steps of a run."""
    return max(row["step"] for row in read_jsonl(run / "metrics.jsonl"))


if __name__ == "__main__":
    sys.exit(run_command(main))
