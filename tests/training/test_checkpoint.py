"""Resuming is bit-identical on a CPU, whenever the run was stopped."""

from __future__ import annotations

import errno
import json
import random
import signal
import time
from functools import partial

import pytest
import torch
from safetensors.torch import load_file

import train_cpt
import train_embed
import train_sft
from common.console import UserError
from tests.commands import Child
from training import checkpoint
from training.checkpoint import latest_checkpoint
from training.steps import Steps

SOURCE = '''"""Module {n} of a small package."""


def function_{n}(values, limit={n}):
    """Return the values below the limit, doubled.

    >>> function_{n}([1, 2, 3], 3)
    [2, 4]
    """
    result = []
    for value in values:
        if value < limit:
            result.append(value * 2)
    return result


class Thing{n}:
    """Holds {n}."""

    def __init__(self, start):
        self.start = start + {n}

    def total_{n}(self, others):
        """Sum of the start and of the others."""
        total = self.start
        for other in others:
            total += other
        return total
'''


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    folder = tmp_path_factory.mktemp("source") / "small"
    folder.mkdir()
    names = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa"]
    for n, name in enumerate(names, 1):
        extra = "\n".join(f"{name}_{i} = {name!r}.count({chr(97 + i)!r}) + {n * 31 + i}" for i in range(12))
        (folder / f"{name}.py").write_text(SOURCE.format(n=n).replace("value", f"{name}_value") + "\n\n" + extra + "\n")
    return folder


def cpt_command(package, tiny_folder, out, **changes) -> list[str]:
    options = {
        "model": tiny_folder, "corpus": package, "out": out, "row-tokens": 256, "step-tokens": 512, "epochs": 1,
        "lr": 1e-2, "checkpoint-every": 3, "validate-every": 4, "dtype": "fp32",
    }  # fmt: skip
    options |= ({} if "method" in changes else {"r": 4, "dropout": 0.1}) | changes
    return [part for name, value in options.items() for part in (f"--{name}", str(value))]


def adapter(folder) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter" / "adapter_model.safetensors")


def losses(folder) -> list[tuple[int, float]]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [(row["step"], row["loss"]) for row in rows if "loss" in row]


class Stopped(Exception):
    pass


def stop_at(monkeypatch, step):
    """Stop the run right after the checkpoint of the given step."""
    original = Steps.due

    def due(steps, every):
        if steps.current > step:
            raise Stopped
        return original(steps, every)

    monkeypatch.setattr(Steps, "due", due)
    return lambda: monkeypatch.setattr(Steps, "due", original)


def assert_same_run(one, other):
    a, b = adapter(one), adapter(other)
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
    assert losses(one) == losses(other)


@pytest.fixture(scope="module")
def whole(package, tiny_folder, tmp_path_factory):
    """The folder of an uninterrupted run of train_cpt.py."""
    folder = tmp_path_factory.mktemp("run") / "whole"
    torch.manual_seed(0)
    train_cpt.main(cpt_command(package, tiny_folder, folder))
    assert len(losses(folder)) >= 8
    return folder


@pytest.mark.parametrize("stop", [3, 5])  # right at a checkpoint, and two steps after one
def test_cpt_resumed_is_bit_identical_to_one_run(package, tiny_folder, whole, tmp_path, monkeypatch, stop):
    carry_on = stop_at(monkeypatch, stop)
    with pytest.raises(Stopped):
        train_cpt.main(cpt_command(package, tiny_folder, tmp_path / "parts"))
    carry_on()
    train_cpt.main([*cpt_command(package, tiny_folder, tmp_path / "parts"), "--resume"])
    assert_same_run(whole, tmp_path / "parts")


def test_all_weights_with_8_bit_moments_resumed_are_bit_identical(package, tiny_folder, tmp_path, monkeypatch):
    settings = {"method": "full", "optimizer": "adamw8bit", "schedule": "linear", "lr": 1e-3}
    command = partial(cpt_command, package, tiny_folder, **settings)
    train_cpt.main(command(tmp_path / "whole"))
    carry_on = stop_at(monkeypatch, 5)
    with pytest.raises(Stopped):
        train_cpt.main(command(tmp_path / "parts"))
    carry_on()
    train_cpt.main([*command(tmp_path / "parts"), "--resume"])
    whole, parts = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("whole", "parts"))
    assert whole.keys() == parts.keys() and all(torch.equal(whole[name], parts[name]) for name in whole)
    assert losses(tmp_path / "whole") == losses(tmp_path / "parts")


@pytest.mark.parametrize("method", ["ia3", "bitfit", "bottleneck"])
def test_an_adapter_of_every_method_resumed_is_bit_identical(package, tiny_folder, tmp_path, monkeypatch, method):
    settings = {"method": method, "lr": 1e-2, "most-tokens": 1500, "row-tokens": 128, "held-out-tokens": 64}
    command = partial(cpt_command, package, tiny_folder, **settings)
    train_cpt.main(command(tmp_path / "whole"))
    carry_on = stop_at(monkeypatch, 2)
    with pytest.raises(Stopped):
        train_cpt.main([*command(tmp_path / "parts"), "--checkpoint-every", "1"])
    carry_on()
    train_cpt.main([*command(tmp_path / "parts"), "--checkpoint-every", "1", "--resume"])
    file = "adapter.safetensors" if method == "bottleneck" else "adapter_model.safetensors"
    whole, parts = (load_file(tmp_path / name / "adapter" / file) for name in ("whole", "parts"))
    assert whole.keys() == parts.keys() and all(torch.equal(whole[name], parts[name]) for name in whole)
    assert losses(tmp_path / "whole") == losses(tmp_path / "parts") and len(losses(tmp_path / "whole")) > 2


def test_a_run_stopped_by_its_time_limit_resumes_to_the_same_result(package, tiny_folder, whole, tmp_path):
    train_cpt.main([*cpt_command(package, tiny_folder, tmp_path / "parts"), "--max-minutes", "1e-9"])
    assert len(losses(tmp_path / "parts")) == 1 and (tmp_path / "parts" / "report.html").is_file()
    train_cpt.main([*cpt_command(package, tiny_folder, tmp_path / "parts"), "--resume"])
    assert_same_run(whole, tmp_path / "parts")


def test_patience_ends_a_run_with_its_best_weights(package, tiny_folder, tmp_path, capsys):
    command = cpt_command(package, tiny_folder, tmp_path / "run", **{"epochs": 20, "lr": 0.3, "schedule": "constant"})
    train_cpt.main([*command, "--patience", "2", "--validate-every", "1", "--sample-every", "2"])
    said = capsys.readouterr().out
    assert "no longer improves (--patience)" in said and "best     restored the weights after step" in said
    best = load_file(tmp_path / "run" / "best.safetensors")
    saved = adapter(tmp_path / "run")
    assert len(best) == len(saved) and sum(t.sum() for t in best.values()) == pytest.approx(
        float(sum(t.sum() for t in saved.values())), rel=1e-4
    )
    samples = (tmp_path / "run" / "samples.md").read_text()
    assert samples.startswith("# After step 2\n") and "# At the end\n" in samples


def test_sft_resumed_is_bit_identical_to_one_run(tiny_folder, tmp_path, monkeypatch):
    pairs = tmp_path / "pairs.jsonl"
    rows = [
        {"instruction": f"Add {i}.", "input": "def f(a):", "output": f"    return a + {i}" * (1 + i % 4)}
        for i in range(24)
    ]
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def command(out):
        options = {
            "model": tiny_folder, "data": pairs, "out": out, "max-length": 128, "step-tokens": 256, "epochs": 2,
            "dropout": 0.1, "checkpoint-every": 3, "dtype": "fp32", "r": 4, "lr": 1e-2,
        }  # fmt: skip
        return [part for name, value in options.items() for part in (f"--{name}", str(value))]

    train_sft.main(command(tmp_path / "whole"))
    carry_on = stop_at(monkeypatch, 4)
    with pytest.raises(Stopped):
        train_sft.main(command(tmp_path / "parts"))
    carry_on()
    train_sft.main([*command(tmp_path / "parts"), "--resume"])
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


def test_embed_resumed_is_bit_identical_to_one_run(reference_encoder, tmp_path, monkeypatch):
    pairs = tmp_path / "pairs.jsonl"
    rows = [{"id": str(i), "query": f"where is {chr(97 + i)}", "code": f"def {chr(97 + i)} pass"} for i in range(20)]
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def command(out):
        options = {
            "model": reference_encoder[1],
            "data": pairs,
            "out": out,
            "batch": 4,
            "epochs": 2,
            "checkpoint-every": 3,
            "dtype": "fp32",
            "r": 4,
        }
        return [*(part for name, value in options.items() for part in (f"--{name}", str(value))), "--method", "lora"]

    train_embed.main(command(tmp_path / "whole"))
    carry_on = stop_at(monkeypatch, 4)
    with pytest.raises(Stopped):
        train_embed.main(command(tmp_path / "parts"))
    carry_on()
    train_embed.main([*command(tmp_path / "parts"), "--resume"])
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.parametrize("kills", [4, pytest.param(10, marks=pytest.mark.slow)])
def test_a_run_killed_at_any_moment_resumes(package, tiny_folder, tmp_path, kills):
    """SIGKILL at random moments, then let the run finish: it equals an uninterrupted one."""
    options = {"checkpoint-every": 1, "epochs": 1 + (kills + 1) // 2}  # of a dozen steps; a kill takes two or three
    command = cpt_command(package, tiny_folder, tmp_path / "killed", **options)
    train_cpt.main(cpt_command(package, tiny_folder, tmp_path / "whole", **options))
    moments, killed = random.Random(0), 0
    for _ in range(kills + 6):
        started = (tmp_path / "killed" / "config.json").exists()
        process = Child("train_cpt.py", *command, *(["--resume"] if started else []))
        steps, wait = len(list_steps(tmp_path / "killed")), moments.randint(1, 2)
        while process.returncode is None:
            if killed < kills and len(list_steps(tmp_path / "killed")) > steps + wait:
                time.sleep(moments.uniform(0, 0.05))  # somewhere in a step, or in the writing of a checkpoint
                process.send_signal(signal.SIGKILL)
                killed += 1
                break
            time.sleep(0.001)
        error = process.communicate()[1]
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL, error
    assert killed == kills and process.returncode == 0
    assert_same_run(tmp_path / "whole", tmp_path / "killed")


def list_steps(folder) -> list[str]:
    log = folder / "metrics.jsonl"
    return [line for line in log.read_text().splitlines() if '"loss"' in line] if log.exists() else []


def test_a_full_disk_leaves_the_previous_checkpoint_which_fits_no_other_adapter(tiny, tmp_path, monkeypatch):
    from lora.adapter import remove
    from lora.inject import inject
    from model.device import choose_device
    from training.optim import adamw, make_schedule
    from training.precision import Precision

    inject(tiny, r=2, alpha=4, targets=["q_proj"])
    optimizer = adamw(tiny, lr=0.1, weight_decay=0)
    state = (
        tiny,
        optimizer,
        make_schedule(optimizer, "cosine", steps=4, warmup=0),
        Precision(choose_device("cpu"), torch.float32),
    )
    left = tmp_path / ".step-00000001.killed"  # what a kill leaves of one that it interrupts
    left.mkdir()
    (left / "tensors.safetensors").write_bytes(b"half")
    checkpoint.save_checkpoint(tmp_path, 1, *state)
    assert not left.exists()

    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, "write_json", full)
    with pytest.raises(OSError, match="No space"):
        checkpoint.save_checkpoint(tmp_path, 2, *state)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]
    assert checkpoint.load_checkpoint(latest_checkpoint(tmp_path), *state) == 1
    remove(tiny, merge=False)
    inject(tiny, r=2, alpha=4, targets=["k_proj"])
    with pytest.raises(UserError, match="another model or adapter"):
        checkpoint.load_checkpoint(latest_checkpoint(tmp_path), *state)


def test_a_run_is_not_resumed_with_other_options(package, tiny_folder, tmp_path, monkeypatch):
    carry_on = stop_at(monkeypatch, 3)
    with pytest.raises(Stopped):
        train_cpt.main(cpt_command(package, tiny_folder, tmp_path / "run"))
    carry_on()
    with pytest.raises(UserError, match="cannot resume with --r 8; the run was started with 4"):
        train_cpt.main([*cpt_command(package, tiny_folder, tmp_path / "run", r=8), "--resume"])
    with pytest.raises(UserError, match="not empty; give another --out, or --resume"):
        train_cpt.main(cpt_command(package, tiny_folder, tmp_path / "run"))
