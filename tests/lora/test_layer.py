from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from data.masking import Example
from data.packing import to_batch
from lora.inject import DECODER_TARGETS, folded, inject, lora_layers, remove, trainable
from model import load_decoder
from model.console import UserError
from model.loss import causal_lm_loss

IDS = torch.randint(3, 320, (1, 21), generator=torch.Generator().manual_seed(5))


def randomize(network):
    for layer in lora_layers(network).values():
        torch.nn.init.normal_(layer.lora_B.weight, std=0.05)


def test_a_fresh_adapter_changes_nothing(tiny):
    plain = tiny(IDS)
    inject(tiny, r=4, alpha=8, targets=DECODER_TARGETS)
    assert torch.equal(tiny(IDS), plain)


def test_every_linear_layer_learns_and_nothing_else(tiny):
    inject(tiny, r=4, alpha=8, targets=DECODER_TARGETS)
    assert len(lora_layers(tiny)) == 7 * tiny.config.num_hidden_layers
    assert all(".lora_" in name for name, _ in trainable(tiny))


@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_reach_both_matrices(tiny, checkpointing):
    inject(tiny, r=4, alpha=8, targets=DECODER_TARGETS)
    randomize(tiny)
    tiny.train()
    tiny.checkpointing = checkpointing
    batch = to_batch([Example(IDS[0].tolist(), IDS[0].tolist())], "cpu")
    causal_lm_loss(tiny.hidden_states(batch.input_ids, batch.lengths), tiny.head_weight, batch.labels).backward()
    for name, parameter in trainable(tiny):
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


def test_checkpointing_gives_the_same_gradients(tiny):
    inject(tiny, r=4, alpha=8, targets=DECODER_TARGETS)
    randomize(tiny)
    tiny.train()
    grads = []
    for tiny.checkpointing in (False, True):
        tiny.zero_grad()
        causal_lm_loss(tiny.hidden_states(IDS), tiny.head_weight, IDS).backward()
        grads.append([parameter.grad.clone() for _, parameter in trainable(tiny)])
    assert_close(grads[0], grads[1], atol=0, rtol=0)


def test_merged_equals_unmerged(tiny):
    inject(tiny, r=4, alpha=8, targets=DECODER_TARGETS)
    randomize(tiny)
    expected = tiny(IDS)
    remove(tiny, merge=True)
    assert not lora_layers(tiny)
    assert_close(tiny(IDS), expected, atol=1e-4, rtol=0)


def test_folded_for_sampling_computes_the_same_and_leaves_the_base_alone(tiny):
    inject(tiny, r=4, alpha=8, targets=DECODER_TARGETS)
    randomize(tiny)
    expected, base = tiny(IDS), tiny.model.layers[0].mlp.up_proj.weight.clone()
    with folded(tiny):
        assert_close(tiny(IDS), expected, atol=1e-4, rtol=0)
        assert not torch.equal(tiny(IDS), expected)  # it did take the other way
    assert torch.equal(tiny(IDS), expected) and torch.equal(tiny.model.layers[0].mlp.up_proj.weight, base)


def test_removed_without_merging_is_the_base_again(tiny):
    plain = tiny(IDS)
    inject(tiny, r=4, alpha=8, targets=DECODER_TARGETS)
    randomize(tiny)
    remove(tiny, merge=False)
    assert torch.equal(tiny(IDS), plain)


def test_the_delta_is_added_in_fp32_and_cast_once(tiny_folder):
    decoder = load_decoder(str(tiny_folder), dtype=torch.bfloat16)
    inject(decoder, r=4, alpha=8, targets=["q_proj"])
    randomize(decoder)
    layer = decoder.model.layers[0].self_attn.q_proj
    exact = layer.weight.double() + 2.0 * (layer.lora_B.weight.double() @ layer.lora_A.weight.double())
    half_a_step = exact.abs() * 2**-8 * 1.001  # bf16 keeps 8 bits; a delta rounded on its own would be off by more
    assert ((layer.merged_weight().double() - exact).abs() <= half_a_step).all()
    twice = layer.weight + (2.0 * (layer.lora_B.weight @ layer.lora_A.weight)).bfloat16()
    assert ((twice.double() - exact).abs() > half_a_step).any()


def test_trainable_weights_are_fp32_on_a_half_precision_base(tiny_folder):
    decoder = load_decoder(str(tiny_folder), dtype=torch.bfloat16)
    inject(decoder, r=4, alpha=8, targets=DECODER_TARGETS)
    assert {parameter.dtype for _, parameter in trainable(decoder)} == {torch.float32}
    loss = causal_lm_loss(decoder.hidden_states(IDS), decoder.head_weight, IDS)
    loss.backward()
    assert {parameter.grad.dtype for _, parameter in trainable(decoder)} == {torch.float32}


def test_an_adapter_on_a_tied_head_is_refused(tiny):
    with pytest.raises(UserError, match="tied"):
        inject(tiny, r=4, alpha=8, targets=["q_proj", "lm_head"])


def test_unknown_targets_and_a_second_adapter_are_refused(tiny):
    with pytest.raises(UserError, match="c_attn not found; the linear layers are down_proj"):
        inject(tiny, r=4, alpha=8, targets=["c_attn"])
    inject(tiny, r=4, alpha=8, targets=["q_proj"])
    with pytest.raises(UserError, match="already"):
        inject(tiny, r=4, alpha=8, targets=["v_proj"])
