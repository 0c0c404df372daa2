"""What learns at which rate."""

from __future__ import annotations

import pytest

from lora.inject import inject
from training.optim import adamw, cosine_schedule


def rates(optimizer, network):
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    return {names[id(p)]: (g["lr"], g["weight_decay"]) for g in optimizer.param_groups for p in g["params"]}


def test_lora_plus_raises_the_rate_of_b_alone(tiny):
    inject(tiny, r=2, alpha=4, targets=["q_proj"], dora=True)
    found = rates(adamw(tiny, lr=1e-3, weight_decay=0.1, lora_plus_ratio=16), tiny)
    assert len(found) == 3 * tiny.config.num_hidden_layers  # nothing is left out, nothing twice
    for name, (lr, decay) in found.items():
        assert lr == (1.6e-2 if name.endswith("lora_B.weight") else 1e-3), name
        assert decay == (0.0 if name.endswith("magnitude_vector") else 0.1), name


def test_the_schedule_moves_both_rates_in_step(tiny):
    inject(tiny, r=2, alpha=4, targets=["q_proj"])
    optimizer = adamw(tiny, lr=1e-3, weight_decay=0.0, lora_plus_ratio=4)
    schedule = cosine_schedule(optimizer, steps=10, warmup=0.2)
    seen = []
    for _ in range(10):
        a, b = schedule.get_last_lr()
        assert b == pytest.approx(4 * a)
        seen.append(a)
        optimizer.step()
        schedule.step()
    assert max(seen) == 1e-3 and seen[0] == 5e-4 and seen[-1] < 2e-4
