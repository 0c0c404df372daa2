"""What a run measures equals what its saved files give when reloaded, in every dtype; and half precision learns."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import torch

import eval.instruct.__main__
import eval.perplexity
import eval.retrieval.__main__
import train_cpt
import train_embed
import train_sft
from common.files import read_json
from data.search.index import open_index
from lora.adapter import folded
from lora.adapter_file import load_adapter, save_adapter
from model import device as device_module
from model import load_decoder, load_encoder
from model.device import DTYPES
from tests.methods import METHODS, put_in, stir
from training.precision import Precision

SCRIPTS = (train_cpt, train_sft, train_embed)


@pytest.fixture(params=["fp32", "bf16", "fp16"])
def dtype(request, monkeypatch):
    """The name of a compute dtype. A CPU computes fp16 correctly, though the scripts do not offer it there."""
    monkeypatch.setattr(device_module, "cpu_has_bf16", lambda: True)
    if request.param == "fp16":
        for module in (*SCRIPTS, eval.model_options, eval.perplexity, eval.retrieval.__main__):
            monkeypatch.setattr(module, "choose_dtype", lambda device, wanted="auto": torch.float16)
    return request.param


def flags(options: dict) -> list[str]:
    named = {"--" + name.replace("_", "-"): value for name, value in options.items() if value is not False}
    return [part for flag, value in named.items() for part in ([flag] if value is True else [flag, str(value)])]


def train(script, dtype: str, **options) -> None:
    script.main(flags(options) + ([] if dtype == "fp16" else ["--dtype", dtype]))


def measure(monkeypatch, command, dtype: str, **options) -> dict:
    """The result of an eval command on the files of a run."""
    given = flags(options) + ([] if dtype == "fp16" else ["--dtype", dtype])
    monkeypatch.setattr(sys, "argv", ["", *given])
    command.main()
    return read_json(options["out"])


def saved(run, base, method: str) -> dict:
    """The options by which a command loads what a run has trained."""
    return {"model": run / "model"} if method == "full" else {"model": base, "adapter": run / "adapter"}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("source") / "small"
    folder.mkdir()
    for n, name in enumerate(["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa"]):
        body = "".join(f"def {name}_{i}(graph):\n    return [node + {i * n} for node in graph]\n\n\n" for i in range(8))
        (folder / f"{name}.py").write_text(f'"""The {name} module."""\n\n\n' + body)
    return folder


LEARNS = {"row_tokens": 64, "step_tokens": 256, "epochs": 2}  # 20 steps


@pytest.mark.parametrize("method", ["lora", "full"])
def test_perplexity_is_that_of_the_saved_files(monkeypatch, tmp_path, tiny_folder, corpus, dtype, method):
    run = tmp_path / "run"
    train(train_cpt, dtype, model=tiny_folder, corpus=corpus, out=run, lr=1e-2, method=method, **LEARNS)
    again = measure(
        monkeypatch, eval.perplexity, dtype, **saved(run, tiny_folder, method), data=run / "corpus", window=64,
        out=tmp_path / "again.json",
    )  # fmt: skip
    before, after = (read_json(run / f"{when}.json") for when in ("before", "after"))
    assert again["files"] == after["files"] and again["environment"]["dtype"] == after["environment"]["dtype"]
    assert DTYPES[dtype] == getattr(torch, after["environment"]["dtype"])
    share = after["metrics"]["perplexity"] / before["metrics"]["perplexity"]
    assert share < (0.2 if method == "full" else 0.7)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16], ids=str)
def test_a_saved_adapter_computes_to_the_last_bit_what_the_run_measures(tiny_folder, tmp_path, method, half):
    ids, logits = torch.randint(3, 320, (1, 21)), []
    trained, loaded = (load_decoder(str(tiny_folder), dtype=half) for _ in range(2))
    put_in(trained, method)
    stir(trained)
    save_adapter(trained, tmp_path / "adapter", base_model="tiny", task_type="CAUSAL_LM")
    load_adapter(loaded, tmp_path / "adapter")
    for decoder in (trained, loaded):
        with Precision(torch.device("cpu"), half).as_loaded(decoder), folded(decoder):
            logits.append(decoder(ids))
    assert torch.equal(*logits) and logits[0].dtype == half


def test_half_precision_learns_what_fp32_learns(monkeypatch, tmp_path, tiny_folder, corpus):
    monkeypatch.setattr(device_module, "cpu_has_bf16", lambda: True)
    losses = {}
    for dtype in ("fp32", "bf16"):
        options = {"model": tiny_folder, "corpus": corpus, "out": tmp_path / dtype, "lr": 4e-3, "method": "full"}
        train(train_cpt, dtype, **options, **LEARNS)
        logged = [json.loads(line) for line in (tmp_path / dtype / "metrics.jsonl").read_text().splitlines()]
        losses[dtype] = np.array([row["loss"] for row in logged if "loss" in row])
    assert losses["fp32"][7] < 0.8 * losses["fp32"][0]
    # an autocast that keeps the cast weights of step 0 parts them by more than 0.1 here
    assert np.abs(losses["bf16"] - losses["fp32"])[:8].max() < 0.02


@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize("script", [train_cpt, train_sft], ids=["cpt", "sft"])
def test_modules_kept_in_fp32_learn_beside_half_precision(monkeypatch, tmp_path, tiny_folder, corpus, script, method):
    for module in SCRIPTS:
        monkeypatch.setattr(module, "choose_dtype", lambda device, wanted="auto": torch.float16)
    pairs = [{"instruction": f"Say {n}.", "input": "", "output": f"{n} {n}"} for n in range(8)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    data = {"corpus": corpus, **LEARNS} if script is train_cpt else {"data": tmp_path / "pairs.jsonl", "max_length": 64}
    options = {"model": tiny_folder, "out": tmp_path / "run", "fp32_modules": r".*layers\.1\.(mlp|self_attn)"}
    train(script, "fp16", **options, **data, method=method, lr=5e-3)
    logged = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in logged if "loss" in row]
    assert losses[-1] < losses[0] and not any(row.get("skipped") for row in logged)


@pytest.mark.parametrize("method", ["lora", "full"])
def test_answers_are_those_of_the_saved_files(monkeypatch, tmp_path, tiny_folder, dtype, method):
    pairs = [
        {
            "id": str(n), "category": "explain", "instruction": f"Say {word}.", "input": "", "output": f"{word} {word}",
            "check": {"kind": "structure", "names": []},
        }
        for n, word in enumerate(["def", "return", "import", "function"] * 2)
    ]  # fmt: skip
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    data, run, rules = tmp_path / "pairs.jsonl", tmp_path / "run", {"samples": 4, "max_new_tokens": 8}
    options = {"data": data, "test": data, "max_length": 64, "step_tokens": 64, "epochs": 3, "lr": 2e-3}
    train(train_sft, dtype, model=tiny_folder, out=run, method=method, **options, **rules)
    again = measure(
        monkeypatch, eval.instruct.__main__, dtype, **saved(run, tiny_folder, method), data=data,
        out=tmp_path / "again.json",
        **rules,
    )  # fmt: skip
    before, after = (read_json(run / f"{when}.json")["results"] for when in ("before", "after"))
    assert [row["output"] for row in again["results"]] == [row["output"] for row in after]
    assert sum(a["output"] != b["output"] for a, b in zip(before, after, strict=True)) > len(after) / 2


@pytest.mark.parametrize("method", ["full", "lora"])
def test_vectors_are_those_of_the_saved_files(monkeypatch, tmp_path, reference_encoder, dtype, method):
    words = [f"{a}{b}" for a in "abcdefgh" for b in "ijk"]
    pairs = [{"id": w, "query": w, "code": f"zz {w[::-1]} {w}", "code_id": f"c{w}"} for w in words]
    codes = [{"id": pair["code_id"], "code": pair["code"]} for pair in pairs]
    for name, rows in (("pairs", pairs), ("codes", codes)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data, candidates, run = tmp_path / "pairs.jsonl", tmp_path / "codes.jsonl", tmp_path / "run"
    options = {"data": data, "test": data, "candidates": candidates, "epochs": 4, "batch": 12, "lr": 3e-3}
    train(train_embed, dtype, model=reference_encoder[1], out=run, method=method, **options)
    again = measure(
        monkeypatch, eval.retrieval.__main__, dtype, model=run / "model", data=data, candidates=candidates,
        out=tmp_path / "again.json",
    )  # fmt: skip
    before, after = (read_json(run / f"{when}.json") for when in ("before", "after"))
    assert again["metrics"] == after["metrics"] and again["results"] == after["results"]
    assert after["results"] != before["results"]
    encoder = load_encoder(str(run / "model"))
    encoder.compute_dtype = DTYPES[dtype]
    assert np.array_equal(open_index(run / "index").vectors, encoder.encode([row["code"] for row in codes]).numpy())
