from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from training.precision import Precision

CPU = torch.device("cpu")


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
