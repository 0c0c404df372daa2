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
from model import device as device_module
from model.device import choose_device, choose_dtype
from training.optim import adamw, make_schedule
from training.precision import Precision, first_overflow, keep_in_fp32, mend_overflow, modules_named

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("capability", "expected"),
    [((7, 0), torch.float16), ((7, 5), torch.float16), ((8, 0), torch.bfloat16), ((9, 0), torch.bfloat16)],
)
def test_compute_capability_decides_not_is_bf16_supported(monkeypatch, capability, expected):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: capability)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *a, **k: True)  # what a T4 says, by slow emulation
    assert choose_dtype(torch.device("cuda")) == expected
    if expected == torch.float16:
        with pytest.raises(UserError, match="emulate"):
            choose_dtype(torch.device("cuda"), "bf16")


def test_a_cpu_takes_bf16_only_if_it_has_the_instructions_and_never_fp16(monkeypatch):
    for has, expected in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(device_module, "cpu_has_bf16", lambda has=has: has)
        assert choose_dtype(CPU) == expected
    with pytest.raises(UserError, match="emulate"):
        choose_dtype(CPU, "fp16")
    with pytest.raises(UserError, match="give auto"):
        choose_dtype(CPU, "int8")


def test_a_device_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for name in ("cuda", "toaster"):
        with pytest.raises(UserError, match=name):
            choose_device(name)


def scaled(network):
    """fp16's loss scaling, driven on a CPU."""
    precision = Precision(CPU, torch.float32)
    precision.scaler = torch.amp.GradScaler("cpu", enabled=True, init_scale=1024.0, growth_interval=2)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
    return precision, optimizer, schedule


def test_a_skipped_step_moves_neither_weights_nor_schedule_and_lowers_the_scale():
    network = nn.Linear(3, 1)
    precision, optimizer, schedule = scaled(network)
    before = network.weight.clone()
    for factor, expected in ((1.0, True), (math.inf, False), (1.0, True)):
        scale, rate, weight = precision.scaler.get_scale(), schedule.get_last_lr(), network.weight.clone()
        precision.backward(network(torch.ones(2, 3)).sum() * factor)
        stepped, norm = precision.step(optimizer, list(network.parameters()), max_norm=0)
        if stepped:
            schedule.step()
        assert stepped == expected and math.isfinite(norm) == expected
        assert torch.equal(network.weight, weight) != expected
        assert (schedule.get_last_lr() == rate) != expected
        assert (precision.scaler.get_scale() < scale) != expected
    assert not torch.equal(network.weight, before)


def test_a_nan_moves_nothing_in_fp32_either():
    network = nn.Linear(3, 1)
    precision, optimizer = Precision(CPU, torch.float32), torch.optim.SGD(network.parameters(), lr=0.1)
    before = network.weight.clone()
    precision.backward(network(torch.full((1, 3), math.nan)).sum())
    assert precision.step(optimizer, list(network.parameters()), max_norm=1.0)[0] is False
    assert torch.equal(network.weight, before)


def test_the_gradient_is_unscaled_before_it_is_clipped():
    network = nn.Linear(3, 1, bias=False)
    precision, optimizer, _ = scaled(network)
    precision.backward(network(torch.full((1, 3), 2.0)).sum())
    _, norm = precision.step(optimizer, list(network.parameters()), max_norm=1.0)
    assert norm == pytest.approx(math.sqrt(12))


def test_the_first_module_that_left_the_range_is_named():
    network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2))
    assert first_overflow(network, lambda: network(torch.ones(1, 2))) is None
    with torch.no_grad():
        network[1].weight.fill_(3e38)
    assert first_overflow(network, lambda: network(torch.full((1, 2), 3e38))) == "1"


@torch.no_grad()
def test_a_layer_with_an_adapter_is_named_and_every_micro_batch_looked_at(tiny):
    inject(tiny, r=2, alpha=4, targets=["o_proj"])
    ids = [list(range(first, first + 8)) for first in (10, 20)]
    window = [to_batch([Example(row, row)], "cpu") for row in ids]
    precision = Precision(CPU, torch.float32)
    assert mend_overflow(tiny, window, precision).startswith("the gradients, not the activations")
    tiny.model.layers[1].self_attn.o_proj.weight.fill_(math.inf)
    assert mend_overflow(tiny, window, precision).startswith("the output of model.layers.1.self_attn.o_proj left")
    tiny.model.embed_tokens.weight[10] = math.inf  # a token of the first micro-batch alone
    assert mend_overflow(tiny, window, precision).startswith("the output of model.embed_tokens left")


def test_the_schedule_rises_then_falls_to_its_floor():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = make_schedule(optimizer, "cosine", steps=20, warmup=0.2, floor=0.1)
    rates = []
    for _ in range(20):
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    assert rates[:4] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert rates[3:] == sorted(rates[3:], reverse=True) and rates[-1] == pytest.approx(0.1)


def test_matrices_decay_and_vectors_do_not():
    groups = adamw(nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2)), lr=0.1, weight_decay=0.5).param_groups
    assert [(group["weight_decay"], {p.ndim for p in group["params"]}) for group in groups] == [(0.5, {2}), (0.0, {1})]


class HalfPrecision(Precision):
    """fp16 as on a GPU, which a CPU emulates slowly."""

    def __init__(self):
        super().__init__(CPU, torch.float32)
        self.dtype = torch.float16


def test_an_mlp_that_leaves_fp16_is_computed_in_fp32_from_then_on(tiny):
    for layer in (tiny.model.layers[1].mlp.gate_proj, tiny.model.layers[1].mlp.up_proj):
        layer.weight.data *= 3000  # what they multiply to is beyond 65,504
    tiny.model.layers[1].mlp.down_proj.weight.data *= 1e-3
    reference = tiny.half().float()(torch.arange(10, 18)[None])  # of the weights as fp16 rounds them
    inject(tiny.half(), r=2, alpha=4, targets=["down_proj", "up_proj", "gate_proj"])
    precision = HalfPrecision()
    window = [to_batch([Example(list(range(10, 18)), list(range(10, 18)))], "cpu")]
    said = mend_overflow(tiny, window, precision)
    assert "left the range of float16; model.layers.1.mlp is computed in fp32 from now on" in said
    assert precision.fp32_modules == ["model.layers.1.mlp"]
    with precision.autocast():
        assert torch.isfinite(tiny.hidden_states(window[0].input_ids)).all()
        assert (tiny(window[0].input_ids).float() - reference).abs().max() < 0.05 * reference.abs().max()
    assert mend_overflow(tiny, window, precision).startswith("the gradients, not the activations")


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
