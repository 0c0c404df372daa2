"""The bottleneck's layer: its shape, its dtype, its places."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from common.console import UserError
from lora.adapter import adapter_in_use, train_adapter
from lora.bottleneck import ACTIVATIONS, Bottleneck, make_bottleneck
from model import load_encoder

CPU = torch.device("cpu")


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_it_adds_up_of_f_of_down(activation):
    adapter = Bottleneck(12, 3, activation, device=CPU)
    torch.nn.init.normal_(adapter.up.weight)
    x = torch.randn(2, 5, 12)
    expected = x + adapter.up(ACTIVATIONS[activation](adapter.down(x)))
    assert adapter.down.weight.shape == (4, 12) and torch.equal(adapter(x), expected)


def test_the_residual_stream_is_never_rounded_to_half_precision():
    adapter = Bottleneck(12, 3, "relu", device=CPU)
    torch.nn.init.normal_(adapter.up.weight)
    stream = 1e6 * torch.randn(2, 5, 12)  # far beyond fp16
    with torch.autocast("cpu", torch.float16, cache_enabled=False):
        found = adapter(stream)
    assert found.dtype == torch.float32 and torch.equal(found, adapter(stream)) and found.isfinite().all()


def test_a_branch_stays_in_half_precision():
    adapter = Bottleneck(12, 3, "gelu", device=CPU)
    torch.nn.init.normal_(adapter.up.weight)
    branch = torch.randn(2, 5, 12).bfloat16()
    down, up = adapter.down, adapter.up
    hidden = F.gelu(F.linear(branch, down.weight.bfloat16(), down.bias.bfloat16()))
    expected = branch + F.linear(hidden, up.weight.bfloat16(), up.bias.bfloat16())
    assert torch.equal(adapter(branch), expected) and expected.dtype == torch.bfloat16
    assert_close(adapter(branch).float(), adapter(branch.float()), atol=0.05, rtol=0.05)


@pytest.mark.parametrize(("placement", "activation"), [("houlsby", "gelu_new"), ("pfeiffer", None)])
def test_size_activation_and_places(tiny, placement, activation):
    train_adapter(tiny, make_bottleneck(tiny, placement=placement, reduction_factor=7, activation=activation))
    adapter = adapter_in_use(tiny)
    assert len(adapter) == 3 * (2 if placement == "houlsby" else 1)
    sizes = {(module.down.out_features, module.activation) for module in adapter.values()}
    assert sizes == {(6, activation or "relu")}  # 48 // 7
    make_bottleneck(tiny, placement=placement, reduction_factor=1000)  # one number wide at least


def test_an_encoder_has_no_places_for_it(reference_encoder):
    encoder = load_encoder(str(reference_encoder[1]))
    with pytest.raises(UserError, match="for a causal LM; an encoder takes LoRA"):
        make_bottleneck(encoder, placement="houlsby", reduction_factor=16)
