from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from common.console import UserError
from model import device as device_module
from model.device import choose_device, choose_dtype
from training.precision import Precision

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


def test_an_unavailable_device_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for name in ("cuda", "toaster"):
        with pytest.raises(UserError, match=name):
            choose_device(name)


def scaled(network):
    """fp16's loss scaling on a CPU."""
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


def test_a_nan_updates_nothing_in_fp32_either():
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


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_finite_gradients_whose_norm_overflows_move_no_weight_by_decay_either(dtype):
    network = nn.Linear(3, 1, bias=False)
    precision, _, _ = scaled(network)
    precision = precision if dtype == torch.float16 else Precision(CPU, dtype)
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.1, weight_decay=0.5)
    before = network.weight.clone()
    precision.backward(network(torch.ones(1, 3)).sum())
    network.weight.grad = torch.full((1, 3), 1e30)  # each is finite, the sum of their squares is not
    assert precision.step(optimizer, list(network.parameters()), max_norm=1.0) == (False, math.inf)
    assert torch.equal(network.weight, before)
