"""The commands of a run: train, answer the test rows, read the texts that forgetting is measured on."""

from __future__ import annotations

from pathlib import Path

from experiments.stages import Stage, stage
from experiments.study.data import FEW_SHOT_TEST, SEED, data_file, train_file
from experiments.study.grid import FEW_SHOT, METHODS, SHOTS, Run


def stages_of(run: Run, out: Path, rate: float | None) -> list[Stage]:
    """A run's commands in their order. `rate`: its learning rate, None to try several."""
    folder = run.folder(out)
    stages = [_train(run, out, rate)] if run.is_trained else []
    stages.append(_answer(run, out))
    if run.method != FEW_SHOT:  # the weights are those of zero-shot
        stages.append(_read_texts(run, out))
    assert all(one.done.is_relative_to(folder) for one in stages)
    return stages


def answers_of(run: Run, out: Path) -> Path:
    """The eval result of the test rows."""
    return run.folder(out) / "answers.json"


def texts_of(run: Run, out: Path) -> Path:
    """The eval result of the texts that forgetting is measured on."""
    return run.folder(out) / "texts.json"


def training_of(run: Run, out: Path) -> Path:
    """The folder of train_sft.py."""
    return run.folder(out) / "run"


def _train(run: Run, out: Path, rate: float | None) -> Stage:
    folder, task = training_of(run, out), run.task
    command = [
        "train_sft.py", "--model", run.model.name, "--data", train_file(out, task, run.rows), "--out", folder,
        *METHODS[run.method].arguments, "--epochs", task.epochs, "--step-tokens", task.step_tokens, "--max-length",
        task.max_length, "--checkpoint-every", 0, "--seed", run.seed,
    ]  # fmt: skip
    if rate is None:
        rates = ",".join(f"{rate:g}" for rate in METHODS[run.method].rates)
        validation = data_file(out, task, "validation")
        command += ["--sweep", f"lr={rates}", "--validation", validation, "--validate-every", 0]
    else:
        command += ["--lr", f"{rate:g}"]
    return stage(folder / "metrics.json", *command, resume=["--resume"], begun=folder / "config.json")


def _model(run: Run, out: Path) -> list[object]:
    """The arguments that name what is measured: the untrained model, an adapter on it, or trained weights."""
    if not run.is_trained:
        return ["--model", run.model.name]
    if run.method == "full":
        return ["--model", training_of(run, out) / "model"]
    return ["--model", run.model.name, "--adapter", training_of(run, out) / "adapter"]


def _answer(run: Run, out: Path) -> Stage:
    task, done = run.task, answers_of(run, out)
    if task.kind == "code":
        data = data_file(out, task, FEW_SHOT_TEST if run.method == FEW_SHOT else "test")
        command = ["-m", "eval.instruct", *_model(run, out), "--data", data, "--samples", 0, "--k", 1, "--out", done]
        return stage(done, *command)
    command = [
        "-m", "eval.text", *_model(run, out), "--data", data_file(out, task, "test"), "--max-length", task.max_length,
        "--seed", SEED, "--out", done,
    ]  # fmt: skip
    if not run.is_trained:  # what the shots are drawn from, and what the classical baselines learn from
        command += ["--train", train_file(out, task, run.rows)]
    if run.method == FEW_SHOT:
        command += ["--shots", SHOTS]
    return stage(done, *command)


def _read_texts(run: Run, out: Path) -> Stage:
    done = texts_of(run, out)
    return stage(
        done, "-m", "eval.perplexity", *_model(run, out), "--data", out / "data" / "texts.jsonl", "--out", done
    )
