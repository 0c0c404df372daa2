from __future__ import annotations

import weakref

import pytest
import torch
from torch.testing import assert_close

from common.console import UserError
from data.masking import Example
from data.packing import to_batch
from lora.adapter import adapter_in_use, folded, remove, trainable
from lora.inject import DECODER_TARGETS, inject
from lora.layer import LoRALinear
from model import load_decoder
from model.decoder import CHECKPOINTING
from model.loss import causal_lm_loss

IDS = torch.randint(3, 320, (1, 21), generator=torch.Generator().manual_seed(5))


KINDS = [{}, {"rslora": True}, {"dora": True}, {"dora": True, "rslora": True}]


def randomize(network):
    for layer in adapter_in_use(network).values():
        torch.nn.init.normal_(layer.lora_B.weight, std=0.05)
        if layer.lora_magnitude_vector is not None:
            layer.lora_magnitude_vector.data.mul_(1 + 0.3 * torch.rand_like(layer.lora_magnitude_vector))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_fresh_adapter_changes_nothing(tiny, kind, dtype):
    tiny.to(dtype)
    plain = tiny(IDS)
    inject(tiny, r=4, alpha=8, targets=DECODER_TARGETS, **kind)
    assert torch.equal(tiny(IDS), plain)
    with folded(tiny):
        assert torch.equal(tiny(IDS), plain)


def test_every_linear_layer_learns_and_nothing_else(tiny):
    inject(tiny, r=4, alpha=8, targets=DECODER_TARGETS)
    assert len(adapter_in_use(tiny)) == 7 * tiny.config.num_hidden_layers
    assert all(".lora_" in name for name, _ in trainable(tiny))


@pytest.mark.parametrize("checkpointing", CHECKPOINTING)
@pytest.mark.parametrize("dora", [False, True])
def test_gradients_reach_both_matrices_and_the_lengths(tiny, checkpointing, dora):
    inject(tiny, r=4, alpha=8, targets=DECODER_TARGETS, dora=dora)
    randomize(tiny)
    tiny.train()
    tiny.checkpointing = checkpointing
    batch = to_batch([Example(IDS[0].tolist(), IDS[0].tolist())], "cpu")
    causal_lm_loss(tiny.hidden_states(batch.input_ids, batch.lengths), tiny.head_weight, batch.labels).backward()
    learning = dict(trainable(tiny))
    assert any("magnitude" in name for name in learning) == dora
    for name, parameter in learning.items():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("dora", [False, True])
def test_checkpointing_gives_the_same_gradients(tiny, dora):
    inject(tiny, r=4, alpha=8, targets=DECODER_TARGETS, dora=dora)
    randomize(tiny)
    tiny.train()
    grads = []
    for checkpointing in CHECKPOINTING:
        tiny.checkpointing = checkpointing
        tiny.zero_grad()
        causal_lm_loss(tiny.hidden_states(IDS), tiny.head_weight, IDS).backward()
        grads.append([parameter.grad.clone() for _, parameter in trainable(tiny)])
    for other in grads[1:]:
        assert_close(grads[0], other, atol=0, rtol=0)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_merged_equals_unmerged(tiny, kind):
    inject(tiny, r=4, alpha=8, targets=DECODER_TARGETS, **kind)
    randomize(tiny)
    expected = tiny(IDS)
    remove(tiny, merge=True)
    assert not adapter_in_use(tiny)
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


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("autocast", [False, True])
def test_a_merged_bf16_weight_is_the_fp32_sum_rounded_once(tiny_folder, kind, autocast):
    decoder = load_decoder(str(tiny_folder), dtype=torch.bfloat16)
    inject(decoder, r=4, alpha=8, targets=["q_proj"], **kind)
    randomize(decoder)
    layer = decoder.model.layers[0].self_attn.q_proj
    scale = 8 / 4**0.5 if "rslora" in kind else 8 / 4
    weight = layer.weight.float() + scale * (layer.lora_B.weight @ layer.lora_A.weight)
    if "dora" in kind:
        weight = weight * (layer.lora_magnitude_vector / weight.norm(dim=1))[:, None]
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):  # a half-precision region must not reach the product
        merged = layer.merged_weight()
    assert merged.dtype == torch.bfloat16 and torch.equal(merged, weight.detach().bfloat16())
    delta = weight.detach() - layer.weight.float()
    assert not torch.equal(merged, layer.weight + delta.bfloat16())  # rounding twice would be seen


def test_merging_frees_each_weight_as_it_goes(tiny):
    inject(tiny, r=4, alpha=8, targets=DECODER_TARGETS)
    alive = [weakref.ref(layer.weight) for layer in adapter_in_use(tiny).values()]
    counts = []
    merged_weight = LoRALinear.merged_weight

    def counting(layer):
        counts.append(sum(weight() is not None for weight in alive))
        return merged_weight(layer)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LoRALinear, "merged_weight", counting)
        remove(tiny, merge=True)
    assert counts[-1] <= 2 and counts[0] == len(alive)  # the model is not held twice


def test_trainable_weights_are_fp32_on_a_half_precision_base(tiny_folder):
    decoder = load_decoder(str(tiny_folder), dtype=torch.bfloat16)
    inject(decoder, r=4, alpha=8, targets=DECODER_TARGETS)
    assert {parameter.dtype for _, parameter in trainable(decoder)} == {torch.float32}
    loss = causal_lm_loss(decoder.hidden_states(IDS), decoder.head_weight, IDS)
    loss.backward()
    assert {parameter.grad.dtype for _, parameter in trainable(decoder)} == {torch.float32}


@pytest.mark.parametrize("targets", [["q_proj", "lm_head"], ".*"])
def test_an_adapter_on_a_tied_head_is_refused(tiny, targets):
    with pytest.raises(UserError, match="tied"):
        inject(tiny, r=4, alpha=8, targets=targets)


def test_an_adapter_on_a_head_of_its_own_is_refused_too(reference_decoder):
    network = load_decoder(str(reference_decoder[1]))
    if not network.config.tie_word_embeddings:  # the loss would go past it and nothing would be learnt
        with pytest.raises(UserError, match="multiply by its weight"):
            inject(network, r=4, alpha=8, targets=["lm_head"])
    assert not adapter_in_use(network)


def test_dropout_is_on_the_low_rank_path_alone():
    base = torch.nn.Linear(8, 8)
    layer = LoRALinear(base, r=2, alpha=4, dropout=0.5)
    x = torch.randn(64, 8)
    assert torch.equal(layer.train()(x), base(x))  # B is zero: what is dropped is not W's
    torch.nn.init.normal_(layer.lora_B.weight)
    assert not torch.equal(layer(x), layer(x)) and torch.equal(layer.eval()(x), layer(x))


def test_rslora_keeps_the_size_of_what_is_added_as_the_rank_grows():
    sizes = {}
    for rslora in (False, True):
        for r in (4, 256):
            layer = LoRALinear(torch.nn.Linear(256, 64), r=r, alpha=8, rslora=rslora)
            torch.nn.init.normal_(layer.lora_B.weight)
            sizes[rslora, r] = (layer.merged_weight() - layer.weight).norm().item()
    assert 0.8 < sizes[True, 256] / sizes[True, 4] < 1.25
    assert sizes[False, 256] / sizes[False, 4] < 0.2


def test_unknown_targets_and_a_second_adapter_are_refused(tiny):
    with pytest.raises(UserError, match="c_attn not found; the linear layers are down_proj"):
        inject(tiny, r=4, alpha=8, targets=["c_attn"])
    inject(tiny, r=4, alpha=8, targets=["q_proj"])
    with pytest.raises(UserError, match="already"):
        inject(tiny, r=4, alpha=8, targets=["v_proj"])
