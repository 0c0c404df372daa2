"""A published instruction-tuning run on the verl library, on its own terms: make the data, train, measure, compare.

    python -m experiments.verl_sft.run --models MODEL [MODEL ...] --teacher MODEL --out runs/verl_sft

The published run trains Qwen2.5-Coder-1.5B on 257 pairs and tests on 46, all of them answered by a 30B coder. The
recipe has its settings, eval/instruct/published.py its measures; ours, by execution, are beside them. Rerun the command
to resume; results.json holds what is done so far.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from common.console import run_command
from common.files import read_json, write_json
from common.options import as_settings, option, parse
from eval.change_table import table
from experiments.figures import changes_from, figures
from experiments.kept import Kept, kept_results
from experiments.stages import DtypeOptions, Stage, in_dtype, run_stages, stage

RECIPE = "recipes/sft_verl_published.toml"
# The published run has two unit tests as well: of 303 pairs, and of a library that few machines can import.
INSTRUCTIONS = "experiments/verl_sft/instructions.json"  # which ask for the elements that its measures look for
SHARES = ("docstring=0.266", "explain=0.266", "bugfix=0.252", "complete=0.216", "unit_test=0", "improve=0")
TEST_SHARE = 46 / 257  # of the training pairs, as many again to test on
PUBLISHED = {  # what the published run reports, by its own measures
    "before": {
        "published_pass@1": 0.565, "published_pass@3": 0.783, "published_style": 0.874,
        "published_hallucination_rate": 0.022,
    },
    "after": {"published_pass@1": 0.804, "published_pass@3": 0.848, "published_style": 0.848},
}  # fmt: skip
METRICS = (
    "published_pass@1", "published_pass@3", "published_style", "published_hallucination_rate",
    "pass@1", "lenient_pass@1", "style", "hallucination_rate",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Options(DtypeOptions):
    """Options of this experiment."""

    models: tuple[str, ...] = option(help="models to train; the published one is Qwen/Qwen2.5-Coder-1.5B")
    teacher: str = option(help="writes the answers to train on; the published one is a 30B coder")
    corpus: str = option("pypi:verl==0.9.1", "SOURCE to make the pairs from", metavar="SOURCE")
    micro_batch: int = option(4, "pairs per forward pass; fewer need less memory, and a step is the same", least=1)
    pairs: int = option(257, "training pairs; fewer for a shorter run", least=1)
    out: Path = option(Path("runs/verl_sft"), "folder of all runs", metavar="DIR")
    results: Path = option(Path("experiments/verl_sft"), "folder for done/ and results.json", metavar="DIR")
    seed: int = option(0, "seed of every draw")
    max_minutes: float | None = option(None, "start nothing new after this time", metavar="M")


def main() -> None:
    """Run what is not done, then compare what is."""
    options = parse(Options, description=__doc__)
    stages = [*data_stages(options), *(one for model in options.models for one in model_stages(options, model))]
    stages = in_dtype(stages, options.dtype)
    kept(options).restore(stages)
    run_stages(stages, max_minutes=options.max_minutes, after_each=lambda: write_results(options, stages))


def kept(options: Options) -> Kept:
    """The results that are part of the project; a step is the same whatever --micro-batch."""
    return kept_results(options, apart_from=("models", "micro_batch"))


def data_stages(options: Options) -> list[Stage]:
    """Four categories in the published proportions, answered by the teacher where one of its answers holds."""
    corpus, pairs = options.out / "corpus", options.out / "pairs"
    make = [
        "-m", "data.instruct", corpus, "--out", pairs, "--count", options.pairs, "--test-count",
        max(8, round(options.pairs * TEST_SHARE)), "--validation-count", 0, "--checks", "doctest", "structure",
        "--share", *SHARES, "--instructions", INSTRUCTIONS, "--teacher", options.teacher, "--teacher-categories",
        "docstring", "explain", "bugfix", "complete", "--teacher-candidates", 2, "--teacher-max-tokens", 512, "--seed",
        options.seed,
    ]  # fmt: skip
    return [
        stage(corpus / "corpus.json", "-m", "data.corpus", options.corpus, "--out", corpus, "--seed", options.seed),
        stage(pairs / "about.json", *make),
    ]


def model_stages(options: Options, model: str) -> list[Stage]:
    """Measure a model, train it with the published settings, measure it again."""
    run, pairs = run_of(options, model), options.out / "pairs"
    train = [
        "train_sft.py", "--config", RECIPE, "--model", model, "--data", pairs / "train.jsonl", "--out", run,
        "--micro-batch", options.micro_batch, "--seed", options.seed,
    ]  # fmt: skip
    measure = [
        "-m", "eval.instruct", "--model", model, "--data", pairs / "test.jsonl", "--samples", 4, "--temperature", 0.6,
        "--max-new-tokens", 512, "--seed", options.seed,
    ]  # fmt: skip
    before, after = (run.with_name(f"{run.name}-{when}.json") for when in ("before", "after"))
    return [
        stage(before, *measure, "--out", before),
        stage(
            run / "metrics.json",
            *train,
            resume=["--resume"],
            begun=run / "config.json",
            also=[run / "environment.json"],
        ),
        stage(after, *measure, "--adapter", run / "adapter", "--out", after),
    ]  # fmt: skip


def run_of(options: Options, model: str) -> Path:
    """The run folder of a model."""
    return options.out / Path(model).name


def write_results(options: Options, stages: list[Stage]) -> None:
    """What is kept, results.json, and a table per model that is done."""
    kept(options).keep(stages)
    commands = {one.done: one.shown() for one in stages}
    rows: list[dict] = []
    own: dict = {}  # measures of the test pairs' own answers: what a model that learnt them perfectly would reach
    changes: dict[str, dict] = {}
    for model in options.models:
        run = run_of(options, model)
        paths = {when: run.with_name(f"{run.name}-{when}.json") for when in ("before", "after")}
        if not all(path.is_file() for path in paths.values()):
            continue
        found = {when: read_json(path) for when, path in paths.items()}
        own = figures(found["before"]["gold"] | {"n": found["before"]["n"]}, METRICS)
        rows += [
            {"model": run.name, "when": when, "command": commands[paths[when]]} | figures(result, METRICS)
            for when, result in found.items()
        ]
        cost = read_json(run / "metrics.json")["tracks"]["sft"]["cost"]
        environment = read_json(run / "environment.json")
        rows[-1] |= {"cost": cost, "train_command": commands[run / "metrics.json"], "ran_on": environment}
        changes |= changes_from([found["before"]], {run.name: [found["after"]]}, METRICS)
        print(f"\n{run.name}\n{table(found['before'], found['after'], changes[run.name])}")
    if rows:
        settings = as_settings(options, without=("out", "results", "max_minutes"))
        about = read_json(options.out / "pairs" / "about.json")
        told = {
            "published": PUBLISHED,
            "own_answers": own,
            "rows": rows,
            "changes": changes,
            "pairs": about["rows"],
            "teacher": about["teacher"],
        }
        write_json(options.results / "results.json", {"schema": 1, "settings": settings} | told)


if __name__ == "__main__":
    sys.exit(run_command(main))
