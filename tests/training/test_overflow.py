"""A step that overflowed: the first layer is named, and computed in fp32 from then on."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from common.console import UserError
from data.masking import Example
from data.packing import to_batch
from lora.inject import inject
from model import Stop, generate
from tests.methods import put_in
from training.overflow import first_overflow, keep_in_fp32, modules_named, repair_overflow
from training.precision import Precision

CPU = torch.device("cpu")


def test_the_first_module_that_left_the_range_is_named():
    network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2))
    assert first_overflow(network, lambda: network(torch.ones(1, 2))) is None
    with torch.no_grad():
        network[1].weight.fill_(3e38)
    assert first_overflow(network, lambda: network(torch.full((1, 2), 3e38))) == "1"


@torch.no_grad()
def test_adapted_layers_are_named_and_every_micro_batch_is_examined(tiny):
    inject(tiny, r=2, alpha=4, targets=["o_proj"])
    ids = [list(range(first, first + 8)) for first in (10, 20)]
    window = [to_batch([Example(row, row)], "cpu") for row in ids]
    precision = Precision(CPU, torch.float32)
    assert repair_overflow(tiny, window, precision).startswith("the gradients, not the activations")
    tiny.model.layers[1].self_attn.o_proj.weight.fill_(math.inf)
    assert repair_overflow(tiny, window, precision).startswith("the output of model.layers.1.self_attn.o_proj left")
    tiny.model.embed_tokens.weight[10] = math.inf  # a token of the first micro-batch alone
    assert repair_overflow(tiny, window, precision).startswith("the output of model.embed_tokens left")


class HalfPrecision(Precision):
    """fp16 as on a GPU; a CPU emulates it slowly."""

    def __init__(self):
        super().__init__(CPU, torch.float32)
        self.dtype = torch.float16


def test_an_mlp_that_overflows_fp16_is_computed_in_fp32_from_then_on(tiny):
    for layer in (tiny.model.layers[1].mlp.gate_proj, tiny.model.layers[1].mlp.up_proj):
        layer.weight.data *= 3000  # what they multiply to is beyond 65,504
    tiny.model.layers[1].mlp.down_proj.weight.data *= 1e-3
    reference = tiny.half().float()(torch.arange(10, 18)[None])  # of the weights as fp16 rounds them
    inject(tiny.half(), r=2, alpha=4, targets=["down_proj", "up_proj", "gate_proj"])
    precision = HalfPrecision()
    window = [to_batch([Example(list(range(10, 18)), list(range(10, 18)))], "cpu")]
    said = repair_overflow(tiny, window, precision)
    assert "left the range of float16; model.layers.1.mlp is computed in fp32 from now on" in said
    assert precision.fp32_modules == ["model.layers.1.mlp"]
    with precision.autocast():
        assert torch.isfinite(tiny.hidden_states(window[0].input_ids)).all()
        assert (tiny(window[0].input_ids).float() - reference).abs().max() < 0.05 * reference.abs().max()
    assert repair_overflow(tiny, window, precision).startswith("the gradients, not the activations")


@torch.no_grad()
@pytest.mark.parametrize(("place", "branch"), [("attention_adapter", "self_attn"), ("mlp_adapter", "mlp")])
def test_a_bottleneck_that_overflows_moves_its_branch_to_fp32_and_follows(tiny, place, branch):
    put_in(tiny.half(), "houlsby")
    tiny.get_submodule(f"model.layers.1.{place}").up.bias.fill_(1e5)
    precision = HalfPrecision()
    window = [to_batch([Example(list(range(10, 18)), list(range(10, 18)))], "cpu")]
    said = repair_overflow(tiny, window, precision)
    left = f"the output of model.layers.1.{place} left the range of float16"
    assert said == f"{left}; model.layers.1.{branch} is computed in fp32 from now on"
    with precision.autocast():
        assert torch.isfinite(tiny.hidden_states(window[0].input_ids)).all()


def test_modules_that_are_named_stay_in_fp32_in_training_and_in_sampling(tiny):
    precision = HalfPrecision()
    names = modules_named(tiny.half(), r".*layers\.[01]\.(mlp|self_attn)")
    assert names == [f"model.layers.{n}.{part}" for n in (0, 1) for part in ("self_attn", "mlp")]
    keep_in_fp32(tiny, names, precision)
    keep_in_fp32(tiny, names, precision)  # the second time changes nothing
    assert precision.fp32_modules == names
    assert tiny.model.layers[0].mlp.up_proj.weight.dtype == torch.float32
    assert tiny.model.embed_tokens.weight.dtype == torch.float16
    with precision.autocast(), torch.no_grad():
        logits = tiny(torch.arange(10, 18)[None])
    answer = generate(tiny, [list(range(10, 18))], Stop(max_new_tokens=4, ids=()))[0][0]
    assert torch.isfinite(logits).all() and answer[0] == int(logits[0, -1].argmax())


@pytest.mark.parametrize(("pattern", "said"), [("nothing", "matches none of"), ("(", "not a regular expression")])
def test_a_pattern_without_a_module_is_refused(tiny, pattern, said):
    with pytest.raises(UserError, match=said):
        modules_named(tiny, pattern)
