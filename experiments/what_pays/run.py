"""What pays on a repository: tuning, search, both, or neither? Three repositories, by execution and perplexity.

    python -m experiments.what_pays.run --model MODEL --out runs/what_pays

Of each repository: adapters of continued pre-training (A) and of instruction tuning (B), an encoder tuned on its code
(C), all three on training files alone; then eval.what_pays with base, A and B, each without search, with the encoder as
it was and with the tuned one. Rerun the command to resume.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from common.console import run_command
from common.files import write_json, write_text
from common.options import as_settings, option, parse
from eval.what_pays.findings import arms_of, findings, folder_of, picture
from experiments.kept import Kept, kept_results
from experiments.stages import DtypeOptions, RunOptions, Stage, expected_minutes, in_dtype, plan_or_run, stage

ENCODER, TUNED = "all-minilm-l6-v2", "tuned"
ADAPTERS = ("A", "B")


@dataclass(frozen=True, kw_only=True)
class Options(DtypeOptions, RunOptions):
    """Options of this experiment."""

    model: str = option(help="instruction-tuned model")
    encoder: str = option(ENCODER, "encoder that searches, and that is tuned")
    out: Path = option(Path("runs/what_pays"), "folder of all runs", metavar="DIR")
    repositories: tuple[str, ...] = option(
        ("package:networkx", "pypi:sympy==1.14.0", "pypi:biopython==1.85"), "SOURCES with doctests or tests",
        metavar="SOURCE", nargs="+",
    )  # fmt: skip
    tasks: int = option(120, "held-out tasks wanted of each")
    pairs: int = option(250, "training pairs of B wanted, and of C")
    tokens: int = option(40_000, "training tokens of A, read twice")
    seed: int = option(0, "seed of every draw")
    results: Path = option(
        Path("experiments/what_pays"), "folder for done/, results.json and the figures", metavar="DIR"
    )


def main() -> None:
    """Run what is not done, repository by repository; write results.json and the figures after every stage."""
    options = parse(Options, description=__doc__)
    stages = [one for repository in options.repositories for one in stages_of(options, repository)]
    kept(options).restore(stages)
    plan_or_run(options, stages, after_each=lambda: write_results(options, stages))


def kept(options: Options) -> Kept:
    """The results that are part of the project."""
    return kept_results(options, apart_from=("repositories",))


def name_of(repository: str) -> str:
    """networkx of package:networkx, sympy of pypi:sympy==1.14.0."""
    return Path(repository).name.split(":")[-1].partition("==")[0]


def stages_of(options: Options, repository: str) -> list[Stage]:
    """Data, training, and the arms of a repository: without adapter, with A, with B."""
    at, seed = options.out / name_of(repository), options.seed
    few = options.smoke
    corpus, pairs, codes = at / "corpus", at / "pairs", at / "text_code"
    count, tokens, tasks = (8, 2_000, 4) if few else (options.pairs, options.tokens, options.tasks)
    data = [
        stage(
            corpus / "corpus.json", "-m", "data.corpus", repository, "--out", corpus, "--test-share", 0.4,
            "--validation-share", 0, "--seed", seed, minutes=0.5,
        ),
        stage(
            pairs / "about.json", "-m", "data.instruct", corpus, "--out", pairs, "--count", count, "--test-count",
            tasks, "--validation-count", 0, "--share", "bugfix=0.55", "complete=0.45", "--most-output", 1000,
            "--seed", seed, minutes=4,
        ),
        stage(
            codes / "about.json", "-m", "data.pairs", corpus, "--out", codes, "--count", count, "--negatives", 4,
            "--seed", seed, minutes=1,
        ),
    ]  # fmt: skip
    return in_dtype([*data, *training_stages(options, at, tokens), *arm_stages(options, at)], options.dtype)


def training_stages(options: Options, at: Path, tokens: int) -> list[Stage]:
    """A, B and C."""
    a, b, c = at / "A", at / "B", at / "C"
    common = ["--seed", options.seed]
    held_out = ["--held-out-files", 2, "--held-out-tokens", 64] if options.smoke else ["--held-out-files", 8]
    return [
        _training(
            a, "train_cpt.py", "--model", options.model, "--corpus", at / "corpus", "--most-tokens", tokens,
            "--epochs", 2, "--step-tokens", 2048, *held_out, *common, minutes=expected_minutes(trained=2 * tokens),
        ),
        _training(
            b, "train_sft.py", "--model", options.model, "--data", at / "pairs" / "train.jsonl", "--epochs", 2,
            *common, minutes=expected_minutes(trained=2 * 400 * options.pairs),
        ),
        _training(
            c, "train_embed.py", "--model", options.encoder, "--data", at / "text_code" / "train.jsonl",
            *common, minutes=3,
        ),
    ]  # fmt: skip


def _training(run: Path, script: str, *command: object, minutes: float) -> Stage:
    return stage(
        run / "metrics.json", script, *command, "--out", run, resume=["--resume"], begun=run / "config.json",
        minutes=minutes,
    )  # fmt: skip


def embedders_of(options: Options, at: Path) -> dict[str, str]:
    """The encoder as it was, and tuned."""
    return {Path(options.encoder).name: options.encoder, TUNED: str(at / "C" / "model")}


def arm_stages(options: Options, at: Path) -> list[Stage]:
    """eval.what_pays without adapter, then with each of them: it measures only arms that are not measured."""
    embedders = embedders_of(options, at)
    command: list[object] = [
        "-m", "eval.what_pays", at / "corpus", "--pairs", at / "pairs", "--model", options.model, "--embedder",
        *(f"{name}={model}" for name, model in embedders.items()), "--out", at / "arms",
        "--seed", options.seed,
    ]  # fmt: skip
    if options.smoke:
        command += ["--max-new-tokens", 8, "--held-out-files", 2, "--held-out-tokens", 64, "--sampled-tasks", 2]
    arms, stages = arms_of(ADAPTERS, list(embedders)), []
    for adapter in (None, *ADAPTERS):
        folders = [folder_of(at / "arms", arm) for arm in arms if arm.adapter == adapter]
        files = [folder / name for folder in folders for name in ("files.json", "answers.json")]
        given = ["--adapter", f"{adapter}={at / adapter / 'adapter'}"] if adapter else []
        also = [*files[:-1], at / "arms" / "settings.json"]
        stages.append(stage(files[-1], *command, *given, also=also, whole=True, minutes=25))
    return stages


def write_results(options: Options, stages: list[Stage]) -> None:
    """What is kept; results.json and a figure of each repository whose arms are all measured."""
    kept(options).keep(stages)
    found = {}
    for repository in options.repositories:
        at, name = options.out / name_of(repository), name_of(repository)
        of_arms = in_dtype(arm_stages(options, at), options.dtype)
        if all(one.done.is_file() for one in of_arms):
            arms = arms_of(ADAPTERS, list(embedders_of(options, at)))
            found[name] = {"source": repository, "command": of_arms[-1].shown()} | findings(at / "arms", arms)
            write_text(options.results / f"{name}.svg", picture(found[name]["rows"]))
    if found:
        settings = as_settings(options, without=("out", "results", "max_minutes", "plan"))
        write_json(options.results / "results.json", {"schema": 1, "settings": settings, "repositories": found})


if __name__ == "__main__":
    sys.exit(run_command(main))
