"""Two processes on a CPU compute the same as one: one_or_many.py and the real scripts, run both ways."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.testing import assert_close

import train_cpt
import train_embed
import train_sft
from common.console import UserError
from common.options import Resolved, parse_with_recipe
from data.packing import to_batch
from tests.commands import ROOT, Child
from training import fit, overflow, parallel
from training.checkpoint import latest_checkpoint, load_checkpoint
from training.precision import Precision
from training.run import Run
from training.setup import prepare
from training.steps import Deadline, Steps

SCRIPT = ROOT / "tests" / "training" / "one_or_many.py"
CLOSE = {"rtol": 1e-5, "atol": 1e-6}  # sums of the same numbers in another order
IN_BF16 = {"rtol": 5e-3, "atol": 1e-4}  # where a last digit of such a sum may round to the next number

specification = importlib.util.spec_from_file_location("one_or_many", SCRIPT)
one_or_many = importlib.util.module_from_spec(specification)
specification.loader.exec_module(one_or_many)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def as_two(*command) -> list[str]:
    """Run a command as two torchrun processes, without its launcher. Returns what each printed."""
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(), "WORLD_SIZE": 2, "TORCHELASTIC_RUN_ID": "test"}
    processes = [Child(*command, **where, RANK=rank, LOCAL_RANK=rank, OMP_NUM_THREADS=1) for rank in range(2)]
    try:
        printed = [process.communicate() for process in processes]
    finally:
        for process in processes:
            process.send_signal(signal.SIGKILL)
    assert [process.returncode for process in processes] == [0, 0], printed
    return [output for output, _ in printed]


@pytest.fixture(scope="module")
def results(tiny_folder, tmp_path_factory):
    """The results of one process and of two, and their folders."""
    one, two = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("two")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as the two have it: threads add up in another order
    one_or_many.main(str(tiny_folder), str(one))
    torch.set_num_threads(threads)
    as_two(SCRIPT, tiny_folder, two)
    return load_file(one / "results.safetensors"), load_file(two / "results.safetensors"), one, two


@pytest.mark.parametrize("way", one_or_many.WAYS)
def test_two_processes_have_the_losses_the_gradients_and_the_weights_of_one(results, way):
    one, two = ({k: v for k, v in found.items() if k.startswith(f"{way}/")} for found in results[:2])
    assert one.keys() == two.keys()
    assert all(one[name].abs().max() > 0 for name in one if "/gradient." in name)
    close = IN_BF16 if "bf16" in way else CLOSE
    for name in one:
        assert_close(two[name], one[name], **close, msg=lambda text, name=name: f"{name}: {text}")


def test_a_window_of_fewer_rows_than_processes_was_among_them():
    assert {rows % 2 for rows in one_or_many.ROWS} == {0, 1} and 1 in one_or_many.ROWS
    counts = [[sum(example.supervised for example in row) for row in window] for window in one_or_many.windows()]
    assert all(len(set(count)) > 1 for count in counts if len(count) > 1)  # nor do the rows hold equally much


def test_the_ranks_start_equal_and_draw_different_dropout(results):
    one, two = ({k.removeprefix("of every rank/"): v for k, v in found.items()} for found in results[:2])
    weights, drawn = two["first weight"], two["drawn"]
    assert len(weights) == 2 and torch.equal(weights[0], weights[1])  # the second's had been changed
    assert torch.equal(weights[0], one["first weight"][0])
    assert torch.equal(drawn[0], one["drawn"][0]) and not torch.equal(drawn[0], drawn[1])
    assert two["total"].tolist() == [3.0, 4.0] and one["total"].tolist() == [1.5, 2.0]


@pytest.mark.parametrize("way", ["resumed", "resumed, sharded"])
def test_a_run_resumed_by_the_same_number_of_processes_is_bit_identical(results, way):
    for found in results[:2]:
        differences = {name: value for name, value in found.items() if name.startswith(f"{way}/")}
        assert differences and all(value == 0 for value in differences.values())


@pytest.mark.parametrize("way", ["resumed", "resumed-sharded"])
def test_one_process_resumes_a_checkpoint_of_two(results, tiny_folder, way):
    _, _, one, two = results
    alone, left = (latest_checkpoint(folder / way) for folder in (one, two))
    states = load_file(alone / "tensors.safetensors"), load_file(left / "tensors.safetensors")
    assert states[1].keys() - states[0].keys() == {"random.cpu.1"} and states[0].keys() <= states[1].keys()
    assert {name: tensor.shape for name, tensor in states[0].items()} == {n: states[1][n].shape for n in states[0]}
    learner = one_or_many.Learner(one_or_many.network(str(tiny_folder)))
    assert load_checkpoint(left, *learner.state) == 1
    moments = {f"optimizer.{i}.exp_avg": m["exp_avg"] for i, m in learner.optimizer.state_dict()["state"].items()}
    assert moments and all(torch.equal(tensor, states[1][name]) for name, tensor in moments.items())
    for name, weight in zip(learner.names, learner.learning, strict=True):
        assert torch.equal(weight, states[1][f"weight.{name}"])


def test_the_best_weights_of_a_sharded_network_are_restored(results):
    for found in results[:2]:
        assert found["best/restored"] == 0 and found["best/moved"] > 0
    shapes = [{n: t.shape for n, t in load_file(folder / "best.safetensors").items()} for folder in results[2:]]
    assert shapes[0] and shapes[0] == shapes[1]


def test_an_overflow_on_one_rank_makes_all_skip_the_step(results):
    one, two = (found["overflow/stepped, scale, moved"].tolist() for found in results[:2])
    assert two == 2 * one and one == [[0.0, 4.0, 0.0]]


def test_joined_vectors_and_their_gradients_equal_those_of_one_process(results):
    one, two = ({k: v for k, v in found.items() if k.startswith("joined/")} for found in results[:2])
    assert len(one) == 4
    for name in one:
        assert_close(two[name], one[name], **CLOSE)


def options(**values) -> list[str]:
    return [part for name, value in values.items() for part in ("--" + name.replace("_", "-"), str(value))]


def rows(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def assert_same_log(one, two):
    """The same rows in metrics.jsonl, apart from times."""
    logs = [rows(out / "metrics.jsonl") for out in (one, two)]
    assert len(logs[0]) > 2
    for a, b in zip(*logs, strict=True):
        costs = dict.fromkeys(("seconds", "tokens_per_second", "memory_gib", "seconds_left"), 0)
        assert a | costs == pytest.approx(b | costs, rel=1e-5)


def assert_same_adapter(one, two, *, atol=1e-5):
    a, b = (load_file(out / "adapter" / "adapter_model.safetensors") for out in (one, two))
    for name in a.keys() | b.keys():
        assert_close(a[name], b[name], rtol=1e-5, atol=atol)


@pytest.fixture
def pairs(tmp_path):
    path = tmp_path / "pairs.jsonl"
    lines = [
        {"id": str(i), "instruction": f"Add {i}.", "input": "def f(a):", "output": f"    return a + {i}" * (1 + i % 4)}
        for i in range(22)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_sft_under_torchrun_is_the_same_run_and_one_process_may_resume_it(tiny_folder, pairs, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    given = {
        "model": tiny_folder, "data": pairs, "validation": pairs, "max_length": 128, "step_tokens": 384, "epochs": 2,
        "dtype": "fp32", "r": 4, "lr": 1e-3, "validate_every": 3, "checkpoint_every": 3, "device": "cpu",
    }  # fmt: skip
    train_sft.main(options(**given, out=one))
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-addr", "127.0.0.1"]
    command = [*launch, "--master-port", str(free_port()), "--", "train_sft.py", *options(**given, out=two), "--shard"]
    alone = os.environ | {"OMP_NUM_THREADS": "1"}
    found = subprocess.run(command, cwd=ROOT, env=alone, text=True, capture_output=True)
    assert found.returncode == 0, found.stderr
    assert found.stdout.count("plan ") == 1  # one process speaks
    assert_same_log(one, two)
    assert_same_adapter(one, two)
    assert json.loads((two / "environment.json").read_text())["processes"] == "2"
    assert sorted(path.name for path in two.iterdir()) == sorted(path.name for path in one.iterdir())

    (two / "metrics.json").unlink()
    (two / "adapter" / "adapter_model.safetensors").unlink()
    train_sft.main([*options(**given, out=two), "--resume"])  # nothing is left to do but to save what was learnt
    assert_same_adapter(one, two)
    assert_same_log(one, two)


def test_a_sweep_in_two_processes_tries_and_chooses_what_one_does(tiny_folder, pairs, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    given = {
        "model": tiny_folder, "data": pairs, "validation": pairs, "max_length": 128, "step_tokens": 384, "epochs": 1,
        "dtype": "fp32", "r": 4, "device": "cpu", "sweep": "lr=1e-5,1e-3",
    }  # fmt: skip
    train_sft.main(options(**given, out=one))
    as_two("train_sft.py", *options(**given, out=two), "--shard")
    records = [json.loads((folder / "sweep.json").read_text()) for folder in (one, two)]
    assert records[0]["chosen"] == records[1]["chosen"] == 1e-3
    for ours, theirs in zip(records[0]["tried"], records[1]["tried"], strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5)
    assert_same_adapter(one, two)


def test_cpt_with_two_processes_stops_resumes_samples_and_keeps_the_best(tiny_folder, tmp_path):
    package = tmp_path / "package"
    package.mkdir()
    for i, name in enumerate(["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa"]):
        lines = [f"def {name}_{n}(a, b):\n    return {name!r}.count(a) * {n + i} + b\n\n\n" for n in range(9)]
        (package / f"{name}.py").write_text(f'"""The {name} module."""\n\n\n' + "".join(lines))
    given = {
        "model": tiny_folder, "corpus": package, "row_tokens": 128, "step_tokens": 384, "dtype": "fp32", "r": 4,
        "lr": 1e-3, "validate_every": 2, "checkpoint_every": 4, "patience": 50, "sample_every": 3, "device": "cpu",
    }  # fmt: skip
    one, two = tmp_path / "one", tmp_path / "two"
    train_cpt.main(options(**given, out=one))
    assert "after step 1 of" in as_two("train_cpt.py", *options(**given, out=two, max_minutes=1e-6))[0]
    as_two("train_cpt.py", *options(**given, out=two), "--resume")
    for out in (one, two):  # the time limit made a validation of step 1
        kept = [row for row in rows(out / "metrics.jsonl") if row["step"] > 1 or "loss" in row]
        (out / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept))
    assert_same_log(one, two)
    assert_same_adapter(one, two)
    said = [(out / "samples.md").read_text().partition("# At the end")[2] for out in (one, two)]
    assert said[0] and said[0] == said[1]
    assert json.loads((two / "after.json").read_text())["metrics"].keys() == {"perplexity", "bits_per_byte"}


def test_negatives_of_other_processes_are_negatives(reference_encoder, tmp_path):
    pairs = tmp_path / "pairs.jsonl"
    lines = [{"id": str(i), "query": f"where is {chr(97 + i)}", "code": f"def {chr(97 + i)} pass"} for i in range(17)]
    pairs.write_text("".join(json.dumps(line) + "\n" for line in lines))
    folder = tmp_path / "model"
    folder.mkdir()
    for path in Path(reference_encoder[1]).rglob("*"):
        if path.is_file():
            (folder / path.relative_to(reference_encoder[1])).parent.mkdir(exist_ok=True, parents=True)
            (folder / path.relative_to(reference_encoder[1])).write_bytes(path.read_bytes())
    config = json.loads((folder / "config.json").read_text())
    without = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (folder / "config.json").write_text(json.dumps(config | without))
    given = {"model": folder, "data": pairs, "batch": 5, "epochs": 2, "dtype": "fp32", "r": 4, "device": "cpu"}
    one, two = tmp_path / "one", tmp_path / "two"
    flags = ["--method", "lora", "--learn-temperature", "--mine"]
    train_embed.main([*options(**given, out=one), *flags])
    quiet = as_two("train_embed.py", *options(**given, out=two), *flags)[1]
    assert quiet == "" and [row["pairs"] for row in rows(one / "metrics.jsonl")[:4]] == [5, 4, 4, 4]
    assert_same_log(one, two)
    # Where a gradient is hardly more than its last digits, Adam steps by these: on some processors that is half a step.
    assert_same_adapter(one, two, atol=5e-5)


def test_shard_is_refused_without_torchrun_and_with_incompatible_options(tiny, tokenizer, tiny_folder, tmp_path):
    given = options(model=tiny_folder, data="pairs.jsonl", out=tmp_path / "run")
    with pytest.raises(UserError, match="torchrun --nproc-per-node"):
        train_sft.main([*given, "--shard"])
    for other in ({"sample_every": 1}, {"optimizer": "adamw8bit"}):
        asked = dataclasses.replace(parse_with_recipe(train_sft.Options, given).values, shard=True, **other)
        with pytest.raises(UserError, match=f"--{next(iter(other)).replace('_', '-')}.*--shard|--shard.*--optimizer"):
            prepare(tiny, tokenizer, asked, torch.device("cpu"), torch.float32)


def test_a_numbered_device_under_torchrun_is_refused(monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    monkeypatch.setattr(parallel, "choose_device", lambda wanted: torch.device(wanted))
    with pytest.raises(UserError, match="its own device"):
        parallel.start("cuda:1")


def test_other_ranks_read_the_run_and_write_elsewhere(tmp_path, monkeypatch):
    folder = tmp_path / "run"
    (folder / "checkpoint").mkdir(parents=True)
    (folder / "metrics.jsonl").write_text('{"step": 1}\n')
    (folder / "config.json").write_text('{"options": {}}')
    monkeypatch.setattr(parallel, "rank", lambda: 1)
    run = Run(folder, "cpt", Resolved(None, {}), resume=True)
    assert run.shared == folder and run.checkpoints == folder / "checkpoint"
    assert run.folder != folder and sorted(path.name for path in run.folder.iterdir()) == [
        "config.json",
        "metrics.jsonl",
    ]
    run.start(device=torch.device("cpu"), dtype=torch.float32, data={}, log_to="no such tracker")
    run.log(1, loss=1.0)
    assert (folder / "metrics.jsonl").read_text() == '{"step": 1}\n' and not (folder / "environment.json").exists()


def test_ranks_agree_on_what_each_finds_out_alone(tiny, tmp_path, monkeypatch):
    """The time limit, what fits into memory, which module overflowed: otherwise ranks would deadlock."""
    resolved = parse_with_recipe(train_sft.Options, options(model="m", data="d", out="o"))
    run = Run(tmp_path / "run", "sft", resolved, resume=False)
    monkeypatch.setattr(parallel, "of_every_rank", lambda own: [own, True])
    assert list(Steps(0, 9, Deadline(60, time.perf_counter()))) == [1]
    assert list(Steps(0, 3, Deadline(0, time.perf_counter()))) == [1, 2, 3]

    monkeypatch.setattr(fit, "fit", lambda *arguments: (4, "none"))
    for other, expected in (((2, "none"), (2, "none")), ((8, "full"), (8, "full"))):
        monkeypatch.setattr(parallel, "of_every_rank", lambda own, other=other: [own, other])
        fitted = fit.fitted_options(run, tiny, None, [], rows_per_step=8)
        assert (fitted["micro_batch"], fitted["checkpointing"]) == expected and tiny.checkpointing == expected[1]

    name = "model.layers.1.mlp.down_proj"
    monkeypatch.setattr(overflow, "of_every_rank", lambda own: [own, name])
    window = [to_batch(one_or_many.windows()[0][0], "cpu")]
    half = Precision(torch.device("cpu"), torch.float32)
    half.dtype, half.autocast = torch.float16, nullcontext
    assert f"the output of {name} left" in overflow.repair_overflow(tiny, window, half)
    assert half.fp32_modules == ["model.layers.1.mlp"]
