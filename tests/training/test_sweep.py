"""--sweep: what is tried, what is chosen, and that the run after it is the run with --lr."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

import train_cpt
import train_sft
from common.console import UserError
from tests.commands import run
from training import sweep as sweep_module
from training.methods import learning_rates
from training.steps import Steps
from training.sweep import trial_steps


class Stopped(Exception):
    pass


@pytest.fixture
def command(tiny_folder, tmp_path, monkeypatch):
    """train_sft.py's options: 24 pairs in steps of two, trials of three of these."""
    monkeypatch.setattr(sweep_module, "LEAST", 3)
    pairs = [{"id": str(n), "instruction": f"Say {n}.", "input": "", "output": f"{n} {n}"} for n in range(24)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    shared = {
        "model": tiny_folder, "data": tmp_path / "pairs.jsonl", "validation": tmp_path / "pairs.jsonl", "epochs": 1,
        "max-length": 64, "step-pairs": 2, "dtype": "fp32", "method": "lora", "dropout": 0.1,
    }  # fmt: skip

    def made(name: str, **options) -> list[str]:
        given = shared | {"out": tmp_path / name} | options
        return [part for key, value in given.items() if value is not None for part in (f"--{key}", str(value))]

    return made


def losses(folder) -> list[float]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row["loss"] for row in rows if "loss" in row]


def assert_same_run(one, other) -> None:
    a, b = (load_file(folder / "adapter" / "adapter_model.safetensors") for folder in (one, other))
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
    assert losses(one) == losses(other) and len(losses(one)) == 12


def test_the_run_after_a_sweep_is_the_one_with_the_chosen_rate_bit_for_bit(command, tmp_path, capsys):
    train_sft.main(command("swept", sweep="lr=1e-6,1e-2,1e-3"))
    said = capsys.readouterr().out
    assert "peak learning rate lr=1e-6,1e-2,1e-3\n" in said and said.count("validation loss") >= 3
    assert "sweep    chose lr 0.01 of 1e-06, 0.01, 0.001\n" in said

    # what is recorded: in a file, and as the run's learning rate
    record = json.loads((tmp_path / "swept" / "sweep.json").read_text())
    assert record["chosen"] == 1e-2 and [trial["lr"] for trial in record["tried"]] == [1e-6, 1e-2, 1e-3]
    assert {trial["steps"] for trial in record["tried"]} == {3}
    assert record["chosen"] == min(record["tried"], key=lambda trial: trial["validation_loss"])["lr"]
    options = json.loads((tmp_path / "swept" / "config.json").read_text())["options"]
    assert options["lr"] == {"value": 1e-2, "from": "--sweep"}
    settings = json.loads((tmp_path / "swept" / "adapter" / "tritune.json").read_text())["settings"]
    assert settings["lr"] == 1e-2 and settings["sweep"] == "lr=1e-6,1e-2,1e-3"

    # each trial is a short run with a folder of its own
    for lr in ("1e-06", "0.01", "0.001"):
        assert len(losses(tmp_path / "swept" / "sweep" / f"lr-{lr}")) == 3
    train_sft.main(command("given", lr=1e-2))
    assert_same_run(tmp_path / "swept", tmp_path / "given")


def test_a_sweep_that_was_interrupted_repeats_no_finished_trial(command, tmp_path, monkeypatch, capsys):
    train_sft.main(command("whole", sweep="lr=1e-2,1e-3"))
    original, seen = Steps.due, []

    def due(steps, every):
        seen.append(steps.current)
        if seen.count(2) > 4:  # in the second step of the second trial
            raise Stopped
        return original(steps, every)

    monkeypatch.setattr(Steps, "due", due)
    with pytest.raises(Stopped):
        train_sft.main(command("parts", sweep="lr=1e-2,1e-3"))
    monkeypatch.setattr(Steps, "due", original)
    assert [trial["lr"] for trial in json.loads((tmp_path / "parts" / "sweep.json").read_text())["tried"]] == [1e-2]
    capsys.readouterr()
    train_sft.main([*command("parts", sweep="lr=1e-2,1e-3"), "--resume"])
    said = capsys.readouterr().out
    assert "lr 0.01: validation loss" not in said and "lr 0.001: validation loss" in said
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


def test_a_run_resumed_after_its_sweep_keeps_the_rate(command, tmp_path, monkeypatch, capsys):
    options = {"sweep": "lr=1e-2,1e-3", "checkpoint-every": 2}
    train_sft.main(command("whole", **options))
    original = Steps.due

    def due(steps, every):
        if steps.total == 12 and steps.current > 5:
            raise Stopped
        return original(steps, every)

    monkeypatch.setattr(Steps, "due", due)
    with pytest.raises(Stopped):
        train_sft.main(command("parts", **options))
    monkeypatch.setattr(Steps, "due", original)
    capsys.readouterr()
    train_sft.main([*command("parts", **options), "--resume"])
    assert ": validation loss" not in capsys.readouterr().out
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


def test_a_trial_that_diverges_is_not_chosen_and_a_sweep_of_such_is_refused(command, tmp_path, monkeypatch):
    from training.run import Run

    validations = Run.validations
    monkeypatch.setattr(
        Run, "validations",
        lambda run: [(3, float("nan"))] if "lr-1" in run.folder.name else validations(run),
    )  # fmt: skip
    train_sft.main(command("one", sweep="lr=1,1e-3"))
    record = json.loads((tmp_path / "one" / "sweep.json").read_text())
    assert record["chosen"] == 1e-3 and record["tried"][0] == {"lr": 1.0, "validation_loss": None, "steps": 3}
    with pytest.raises(UserError, match="no learning rate gave a finite validation loss; give smaller ones"):
        train_sft.main(command("both", sweep="lr=1,10"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"sweep": "lr=1e-4,1e-3", "validation": None}, "--sweep needs validation losses; give --validation, too"),
        ({"sweep": "lr=1e-4,1e-3", "lr": 1e-4}, "--sweep chooses the learning rate; omit --lr"),
        ({"sweep": "lr=1e-4"}, "--sweep lr=1e-4: should be two or more learning rates, such as lr=1e-4,3e-4,1e-3"),
        ({"sweep": "r=4,8"}, "should be two or more learning rates"),
        ({"sweep": "lr=1e-4,fast"}, "should be two or more learning rates"),
        ({"sweep": "lr=1e-4,-1"}, "should be two or more learning rates"),
    ],
)
def test_a_sweep_that_makes_no_sense_is_one_line(command, tmp_path, options, said):
    done = run("train_sft.py", *command("run", **options))
    assert done.returncode == 2 and done.stderr.startswith("tritune: ") and said in done.stderr
    assert done.stderr.count("\n") == 1 and not (tmp_path / "run").exists()


def test_a_dry_run_says_how_many_trials_there_will_be(command, capsys):
    train_sft.main([*command("run", sweep="lr=1e-4,1e-3"), "--dry-run"])
    assert ", after 2 trials of 3 steps\n" in capsys.readouterr().out


def test_steps_of_a_trial():
    assert [trial_steps(steps) for steps in (4, 10, 60, 400, 9000)] == [4, 10, 12, 80, 100]
    assert learning_rates("lr=1e-4,0.001,1e-4") == [1e-4, 1e-3]


def test_a_corpus_without_a_validation_file_is_refused(tiny_folder, tmp_path, monkeypatch):
    (tmp_path / "code").mkdir()
    for n in range(10):
        (tmp_path / "code" / f"m{n}.py").write_text("".join(f"value_{n}_{i} = {n * i}\n" for i in range(20)))
    packed = train_cpt.corpus_rows
    monkeypatch.setattr(train_cpt, "corpus_rows", lambda *a, **k: packed(*a, **k) * (a[1] == "train"))
    given = ["--model", tiny_folder, "--corpus", tmp_path / "code", "--out", tmp_path / "run", "--row-tokens", 64]
    with pytest.raises(UserError, match=r"--sweep needs validation losses; .* has no validation file"):
        train_cpt.main([*map(str, given), "--sweep", "lr=1e-4,1e-3"])
    assert not (tmp_path / "run").exists()
