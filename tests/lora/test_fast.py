"""What is computed together is what the layers compute one by one: outputs and gradients; less is kept in between."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from lora.fast import gated_lora, joint_lora
from lora.inject import DECODER_TARGETS, inject
from lora.layer import LoRALinear

TOKENS, WIDTH = (2, 5), 12


def layers(*out_features: int, bias: bool, dtype=torch.float32) -> list[LoRALinear]:
    torch.manual_seed(0)
    made = []
    for number, size in enumerate(out_features):
        base = nn.Linear(WIDTH, size, bias=bias).requires_grad_(False).to(dtype)
        made.append(LoRALinear(base, r=2 + number, alpha=3.0 + number))
        nn.init.normal_(made[-1].lora_B.weight)  # fresh, half of the gradients would be zero
    return made


def gradients(outputs, inputs, of: list[LoRALinear]) -> list[torch.Tensor]:
    weighted = sum((out.float() * torch.linspace(-1, 1, out.numel()).view(out.shape)).sum() for out in outputs)
    learning = [w for layer in of for w in (layer.lora_A.weight, layer.lora_B.weight)]
    found = torch.autograd.grad(weighted, [*inputs, *learning])
    assert all(grad.abs().max() > 0 for grad in found)
    return found


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("dtype", "close"), [(torch.float32, 1e-5), (torch.bfloat16, 4e-2)])
def test_several_layers_of_one_input(bias, dtype, close):
    of = layers(8, 4, 4, bias=bias, dtype=dtype)
    x = torch.randn(*TOKENS, WIDTH, dtype=dtype, requires_grad=True)
    together, apart = joint_lora(x, of), [layer(x) for layer in of]
    tolerance = {"rtol": close, "atol": close * max(1, apart[0].abs().max().item())}
    for one, other in zip(together, apart, strict=True):
        assert one.dtype == dtype
        assert_close(one, other, **tolerance)
    for one, other in zip(gradients(together, [x], of), gradients(apart, [x], of), strict=True):
        assert one.dtype == other.dtype
        assert_close(one, other, rtol=close, atol=close * other.abs().max().item())


def test_an_input_that_needs_no_gradient_gets_none():
    of = layers(8, 4, bias=False)
    x = torch.randn(*TOKENS, WIDTH)
    for one, other in zip(gradients(joint_lora(x, of), [], of), gradients([la(x) for la in of], [], of), strict=True):
        assert_close(one, other)


@pytest.mark.parametrize("activation", ["silu", "gelu_tanh"])
@pytest.mark.parametrize(("dtype", "close"), [(torch.float32, 1e-5), (torch.bfloat16, 4e-2)])
def test_the_product_of_gate_and_up(activation, dtype, close):
    of = layers(7, bias=False, dtype=dtype)
    gate, up = (torch.randn(*TOKENS, WIDTH, dtype=dtype, requires_grad=True) for _ in range(2))
    act = F.silu(gate) if activation == "silu" else F.gelu(gate, approximate="tanh")
    together, apart = gated_lora(of[0], gate, up, activation), of[0](act * up)
    assert_close(together, apart, rtol=close, atol=close * apart.abs().max().item())
    for one, other in zip(gradients([together], [gate, up], of), gradients([apart], [gate, up], of), strict=True):
        assert_close(one, other, rtol=close, atol=close * other.abs().max().item())


@pytest.mark.parametrize(("kind", "together"), [({}, 3), ({"dropout": 0.5}, 0), ({"dora": True}, 0)])
def test_a_decoder_takes_this_way_while_it_trains_and_no_other_time(tiny, monkeypatch, kind, together):
    calls = []
    for form in (joint_lora, gated_lora):
        function = form.function
        monkeypatch.setattr(form, "function", lambda *args, function=function: calls.append(1) or function(*args))
    inject(tiny, r=2, alpha=4, targets=DECODER_TARGETS, **kind)
    tiny.train()
    with torch.no_grad():
        tiny(torch.arange(9)[None])
    assert not calls
    tiny(torch.arange(9)[None])
    assert len(calls) == together * tiny.config.num_hidden_layers


def kept_bytes(work, besides: list[torch.Tensor]) -> int:
    """Bytes that autograd keeps for the backward pass of `work()`, in storages other than those of `besides`."""
    known = {tensor.untyped_storage().data_ptr() for tensor in besides}
    storages = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            storages[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        out = work()
    assert storages
    del out
    return sum(size for size, _ in storages.values())


def test_neither_copies_of_the_input_nor_the_product_are_kept():
    of = layers(8, 4, 4, bias=False)
    x = torch.randn(*TOKENS, WIDTH, requires_grad=True)
    weights = [p for layer in of for p in layer.parameters()]
    ranks = sum(layer.r for layer in of)
    assert kept_bytes(lambda: joint_lora(x, of), [x, *weights]) == 4 * ranks * x[..., 0].numel()
    gate, up = (torch.randn(*TOKENS, WIDTH, requires_grad=True) for _ in range(2))
    assert kept_bytes(lambda: gated_lora(of[0], gate, up, "silu"), [gate, up, *weights]) == (
        4 * of[0].r * gate[..., 0].numel()
    )
    apart = kept_bytes(lambda: of[0](F.silu(gate) * up), [gate, up, *weights])
    assert apart >= 4 * gate.numel()
