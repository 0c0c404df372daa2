"""Our adapter file in peft, and peft's here."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from lora.adapter_file import load_adapter, save_adapter
from lora.inject import DECODER_TARGETS, ENCODER_TARGETS, inject, lora_layers
from model import load_decoder, load_encoder
from model.console import UserError

peft = pytest.importorskip("peft")
IDS = torch.randint(3, 400, (2, 19), generator=torch.Generator().manual_seed(5))


def randomize_adapter(network) -> None:
    for layer in lora_layers(network).values():
        torch.nn.init.normal_(layer.lora_B.weight, std=0.05)


@pytest.fixture
def theirs(tiny_folder):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(tiny_folder, dtype=torch.float32)


@pytest.mark.parametrize("targets", [DECODER_TARGETS, ("q_proj", "down_proj")])
def test_our_adapter_loads_in_peft_with_the_same_logits(tiny_folder, theirs, tmp_path, targets):
    ours = load_decoder(str(tiny_folder))
    plain = ours(IDS)
    inject(ours, r=4, alpha=12, targets=targets)
    randomize_adapter(ours)
    save_adapter(ours, tmp_path / "adapter", base_model=str(tiny_folder), task_type="CAUSAL_LM")
    adapted = peft.PeftModel.from_pretrained(theirs, tmp_path / "adapter").eval()
    assert_close(adapted(IDS).logits, ours(IDS), atol=1e-4, rtol=0)
    assert (ours(IDS) - plain).abs().max() > 0.01  # the adapter does something


def test_their_adapter_loads_here_with_the_same_logits(tiny_folder, theirs, tmp_path):
    config = peft.LoraConfig(r=4, lora_alpha=6, target_modules=["v_proj", "gate_proj"], init_lora_weights=False)
    adapted = peft.get_peft_model(theirs, config).eval()
    adapted.save_pretrained(tmp_path / "adapter")
    ours = load_decoder(str(tiny_folder))
    load_adapter(ours, tmp_path / "adapter")
    assert_close(ours(IDS), adapted(IDS).logits, atol=1e-4, rtol=0)


def test_an_encoder_adapter_loads_in_peft_with_the_same_hidden_states(reference_encoder, tmp_path):
    from transformers import AutoModel

    _, folder = reference_encoder
    ours = load_encoder(str(folder))
    inject(ours, r=4, alpha=8, targets=ENCODER_TARGETS)
    randomize_adapter(ours)
    save_adapter(ours, tmp_path / "adapter", base_model=str(folder), task_type="FEATURE_EXTRACTION")
    theirs = AutoModel.from_pretrained(folder, dtype=torch.float32)
    adapted = peft.PeftModel.from_pretrained(theirs, tmp_path / "adapter").eval()
    ids = IDS[:, :9] % 50
    assert_close(ours(ids), adapted(ids).last_hidden_state, atol=1e-4, rtol=0)


@pytest.mark.parametrize("change", ["left over", "half of a pair", "rank", "dora"])
def test_an_adapter_that_does_not_fit_is_refused(tiny, tiny_folder, tmp_path, change):
    inject(tiny, r=4, alpha=8, targets=["q_proj"])
    save_adapter(tiny, tmp_path / "adapter", base_model="x", task_type="CAUSAL_LM")
    file, config_file = tmp_path / "adapter" / "adapter_model.safetensors", tmp_path / "adapter" / "adapter_config.json"
    tensors, config = load_file(file), json.loads(config_file.read_text())
    if change == "left over":
        tensors["base_model.model.model.layers.9.self_attn.q_proj.lora_A.weight"] = torch.zeros(4, 48)
        tensors["base_model.model.model.layers.9.self_attn.q_proj.lora_B.weight"] = torch.zeros(64, 4)
    elif change == "half of a pair":
        tensors.pop(next(iter(tensors)))
    elif change == "rank":
        config["r"] = 8
    else:
        config["use_dora"] = True
    save_file(tensors, file)
    config_file.write_text(json.dumps(config))
    with pytest.raises(UserError):
        load_adapter(load_decoder(str(tiny_folder)), tmp_path / "adapter")
