"""--dry-run without weights: its sum is what a real pass holds, and it needs config.json alone."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path

import pytest
import torch

import lora.int8
import train_sft
from bench.memory import SHAPES
from common.console import UserError
from lora.adapter import trainable
from lora.frozen_weight import QUANTIZE
from lora.inject import DECODER_TARGETS, inject
from model import load_decoder
from training.describe import GIB
from training.memory_plan import Ledger, decoder_without_memory, has_no_weights, plan_memory

ROOT = Path(__file__).resolve().parents[2]
TOKENS = 96


@pytest.fixture
def shape(tmp_path):
    """A function that writes a folder with a config.json alone."""

    def write(name: str, **settings) -> Path:
        (tmp_path / "config.json").write_text(json.dumps(SHAPES[name] | settings))
        return tmp_path

    return write


def options_of(folder, *more) -> train_sft.Options:
    parts = ("--model", folder, "--data", "none.jsonl", "--out", "none", "--dtype", "fp32", "--r", 4, *more)
    return train_sft.with_method(
        train_sft.parse_with_recipe(train_sft.Options, [str(part) for part in parts]), "sft"
    ).values


@pytest.mark.parametrize(
    ("quantize", "checkpointing"), [("none", "none"), ("none", "selective"), ("nf4", "full"), ("int8", "none")]
)
def test_the_sum_is_what_a_real_pass_holds(tiny_folder, monkeypatch, quantize, checkpointing):
    monkeypatch.setattr(lora.int8, "multiplies_integers", lambda codes: False)  # the plan is for a GPU
    options = options_of(tiny_folder, "--quantize", quantize, "--checkpointing", checkpointing)
    planned = plan_memory(decoder_without_memory(options, torch.float32), torch.float32, "adamw", tokens=TOKENS)

    # the same with real tensors; the loss stands in the plan as a formula
    decoder = load_decoder(str(tiny_folder), put=QUANTIZE[quantize])
    inject(decoder, r=4, alpha=8, targets=DECODER_TARGETS)
    decoder.checkpointing = checkpointing
    ledger = Ledger()
    for tensor in [*decoder.parameters(), *decoder.buffers()]:
        ledger.enter(tensor)
    learning = [parameter for _, parameter in trainable(decoder)]
    adapter = sum(parameter.nbytes for parameter in learning)
    assert planned.adapter == planned.gradients == adapter and planned.moments == 2 * adapter
    assert planned.weights == ledger.now - adapter
    for parameter in learning:
        parameter.grad = torch.zeros_like(parameter)
        ledger.enter(parameter.grad)
    with ledger:
        hidden_states = decoder.train().hidden_states(torch.randint(400, (1, TOKENS)))
        logits, states = TOKENS * 400 * 8, TOKENS * 48 * 8
        of_loss = torch.empty(logits + states, dtype=torch.uint8)
        del of_loss
        hidden_states.backward(torch.ones_like(hidden_states))
    assert planned.peak - planned.moments == pytest.approx(ledger.peak, rel=0.02)


def test_checkpointing_and_tokens_count(shape):
    folder = shape("qwen2.5-0.5b", num_hidden_layers=2, vocab_size=64)
    decoder = decoder_without_memory(options_of(folder), torch.float16)
    plans = {}
    for mode in ("none", "selective", "full"):
        decoder.checkpointing = mode
        plans[mode] = plan_memory(copy.deepcopy(decoder), torch.float16, "adamw", tokens=512)
    assert plans["none"].activations > 1.2 * plans["selective"].activations > 1.2 * plans["full"].activations
    decoder.checkpointing = "none"
    longer = plan_memory(copy.deepcopy(decoder), torch.float16, "adamw", tokens=1024)
    assert longer.activations == pytest.approx(2 * plans["none"].activations, rel=0.05)  # no [T, T] scores
    small = plan_memory(copy.deepcopy(decoder), torch.float16, "adamw8bit", tokens=512)
    assert small.moments < 0.3 * plans["none"].moments


def test_the_command_needs_no_weights_no_tokenizer_and_no_data(shape, tmp_path, capsys):
    folder = shape("mistral-7b", num_hidden_layers=1)
    recipe = ROOT / "recipes" / "mistral_7b_codealpaca_r8.toml"
    command = ["--config", recipe, "--model", folder, "--data", "none.jsonl", "--out", tmp_path / "run", "--dry-run"]
    assert train_sft.main([str(part) for part in command]) == {}
    said = capsys.readouterr().out
    assert re.search(r"memory   about \d\.\d\d GiB in passes of 1,024 tokens: .*weights.*moments of adamw.*act", said)
    assert "480.3 M parameters · float16, 218.1 M of them in NF4" in said and not (tmp_path / "run").exists()
    with pytest.raises(UserError, match="has no weights; without them --dry-run counts LoRA, not ia3"):
        train_sft.main([*map(str, ("--model", folder, "--data", "x", "--out", "y", "--method", "ia3", "--dry-run"))])
    with pytest.raises(UserError, match="--max-length 40000 exceeds"):
        train_sft.main([str(part) for part in (*command, "--max-length", 40000)])


def test_a_folder_with_weights_in_any_format_is_read(tiny_folder, tmp_path):
    assert not has_no_weights(str(tiny_folder)) and not has_no_weights(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    assert has_no_weights(str(tmp_path))
    for name in ("model.safetensors.index.json", "pytorch_model.bin", "m.gguf"):
        (tmp_path / name).touch()
        assert not has_no_weights(str(tmp_path))
        (tmp_path / name).unlink()


@pytest.mark.slow
@pytest.mark.parametrize("rank", [8, 32])
def test_the_recipes_for_12_gb_need_what_their_first_line_says(shape, capsys, rank):
    recipe = ROOT / "recipes" / f"mistral_7b_codealpaca_r{rank}.toml"
    command = ["--config", recipe, "--model", shape("mistral-7b"), "--data", "none", "--out", "none", "--dry-run"]
    train_sft.main([str(part) for part in command])
    needed = float(re.search(r"about ([\d.]+) GiB", capsys.readouterr().out)[1])
    assert f"about {needed:.1f} GiB" in recipe.read_text() and needed + 0.5 < 12e9 / GIB - 1  # a GiB for the desktop


@pytest.mark.slow
def test_mistral_needs_what_was_measured_of_it(shape):
    """bench/RESULTS.md, Memory of training: 7.8 GiB, in bf16 on a CPU."""
    options = options_of(shape("mistral-7b"), "--quantize", "nf4", "--r", 16, "--checkpointing", "full")
    plan = plan_memory(decoder_without_memory(options, torch.bfloat16), torch.bfloat16, "adamw", tokens=4096)
    assert plan.peak / GIB == pytest.approx(7.8, rel=0.05)
