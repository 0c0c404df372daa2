"""Parameter groups, the optimiser's step and the learning-rate schedule."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from common.console import UserError
from lora.inject import inject
from tests.methods import METHODS, put_in
from training.adam8bit import AdamW8bit
from training.optim import adamw, make_schedule
from training.precision import Precision


def rates(optimizer, network):
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    return {names[id(p)]: (g["lr"], g["weight_decay"]) for g in optimizer.param_groups for p in g["params"]}


@pytest.mark.parametrize("kind", ["adamw", "adamw8bit"])
def test_lora_plus_raises_the_rate_of_b_alone(tiny, kind):
    inject(tiny, r=2, alpha=4, targets=["q_proj"], dora=True)
    found = rates(adamw(tiny, kind, lr=1e-3, weight_decay=0.1, lora_plus_ratio=16), tiny)
    assert len(found) == 3 * tiny.config.num_hidden_layers  # nothing is left out, nothing twice
    for name, (lr, decay) in found.items():
        assert lr == (1.6e-2 if name.endswith("lora_B.weight") else 1e-3), name
        assert decay == (0.0 if name.endswith("magnitude_vector") else 0.1), name


@pytest.mark.parametrize("method", METHODS)
def test_matrices_decay_and_vectors_do_not_whatever_the_method(tiny, method):
    """IA3's l starts at 1 and a norm's weight near it: decay towards 0 would shrink what they multiply. Virtual tokens
    are vectors, too, one a row.
    """
    put_in(tiny, method)
    matrices = (
        "lora_A.weight",
        "lora_B.weight",
        "down.weight",
        "up.weight",
        "transform.0.weight",
        "transform.2.weight",
    )
    for name, (_, decay) in rates(adamw(tiny, lr=1e-3, weight_decay=0.1), tiny).items():
        assert decay == (0.1 if name.endswith(matrices) else 0.0), name


def test_the_kind_is_as_requested_and_an_unknown_one_is_refused():
    network = nn.Linear(3, 2)
    assert isinstance(adamw(network, "adamw8bit", lr=0.1, weight_decay=0), AdamW8bit)
    plain = adamw(network, lr=0.1, weight_decay=0)
    assert isinstance(plain, torch.optim.AdamW) and plain.defaults["fused"]
    with pytest.raises(UserError, match="unknown optimizer 'lion'; give adamw, adamw8bit"):
        adamw(network, "lion", lr=0.1, weight_decay=0)


def learnt(kind, factors):
    """Weights and moments after steps whose loss is multiplied by the factors, with fp16's loss scale on a CPU."""
    torch.manual_seed(1)
    network = nn.Linear(80, 60)
    precision = Precision(torch.device("cpu"), torch.float32)
    precision.scaler = torch.amp.GradScaler("cpu", enabled=True, init_scale=1024.0)
    optimizer = kind(network)
    moved = []
    for factor in factors:
        precision.backward(network(torch.ones(2, 80)).square().sum() * factor)
        moved.append(precision.step(optimizer, list(network.parameters()), max_norm=1.0)[0])
    moments = [t for _, state in sorted(optimizer.state_dict()["state"].items()) for t in state.values()]
    return [*network.parameters(), *moments], moved


@pytest.mark.parametrize("kind", ["adamw", "adamw8bit"])
def test_a_step_skipped_by_the_scaler_leaves_no_trace(kind):
    def build(network):
        return adamw(network, kind, lr=0.1, weight_decay=0.1)

    whole, moved = learnt(build, [math.inf, 1.0, math.inf, 1.0])
    without, _ = learnt(build, [1.0, 1.0])
    assert moved == [False, True, False, True]
    assert len(whole) > 6 and all(torch.equal(a, b) for a, b in zip(whole, without, strict=True))


def test_the_fused_kernel_equals_the_plain_loop():
    def plain(network):
        groups = [{"params": [network.weight], "weight_decay": 0.1}, {"params": [network.bias], "weight_decay": 0.0}]
        return torch.optim.AdamW(groups, lr=0.1, betas=(0.9, 0.95), foreach=False, fused=False)

    ours, _ = learnt(lambda network: adamw(network, lr=0.1, weight_decay=0.1), [1.0] * 5)
    theirs, _ = learnt(plain, [1.0] * 5)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b)


def test_the_schedule_moves_both_rates_in_step(tiny):
    inject(tiny, r=2, alpha=4, targets=["q_proj"])
    optimizer = adamw(tiny, lr=1e-3, weight_decay=0.0, lora_plus_ratio=4)
    schedule = make_schedule(optimizer, "cosine", steps=10, warmup=0.2)
    seen = []
    for _ in range(10):
        a, b = schedule.get_last_lr()
        assert b == pytest.approx(4 * a)
        seen.append(a)
        optimizer.step()
        schedule.step()
    assert max(seen) == 1e-3 and seen[0] == 5e-4 and seen[-1] < 2e-4


def test_matrices_decay_and_vectors_do_not():
    groups = adamw(nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2)), lr=0.1, weight_decay=0.5).param_groups
    assert [(group["weight_decay"], {p.ndim for p in group["params"]}) for group in groups] == [(0.5, {2}), (0.0, {1})]


def shape(kind, steps, warmup=0.0, **shares):
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=2.0)
    schedule = make_schedule(optimizer, kind, steps=steps, warmup=warmup, **shares)
    found = []
    for _ in range(steps):
        found.append(schedule.get_last_lr()[0] / 2.0)
        optimizer.step()
        schedule.step()
    return found


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("cosine", [0.5, 1, 1, 0.55 + 0.45 * math.sqrt(0.5), 0.55, 0.55 - 0.45 * math.sqrt(0.5), 0.1]),
        ("linear", [0.5, 1, 1, 0.775, 0.55, 0.325, 0.1]),
        ("constant", [0.5, 1, 1, 1, 1, 1, 1]),
    ],
)
def test_the_rate_rises_to_its_peak_and_falls_to_its_floor(kind, expected):
    assert shape(kind, 7, warmup=2 / 7) == pytest.approx(expected)
    assert shape(kind, 7, warmup=2 / 7)[1] == 1.0
    assert shape(kind, 7, warmup=1.0) == pytest.approx([n / 7 for n in range(1, 8)])
    assert shape(kind, 7, warmup=2 / 7, floor=0.0)[-1] == (1.0 if kind == "constant" else 0.0)


def test_short_runs_reach_the_peak_and_from_three_steps_on_the_floor():
    for kind in ("cosine", "linear"):
        assert [shape(kind, steps) for steps in (1, 2, 3)] == [[1], [1, 1], [1, 1, pytest.approx(0.1)]], kind
    assert [shape("constant", steps) for steps in (1, 2, 3)] == [[1], [1, 1], [1, 1, 1]]


def test_a_rewarmed_run_starts_above_the_rate_that_its_model_ended_with():
    again = shape("cosine", 10, warmup=0.4, start=0.2)
    assert again[:4] == pytest.approx([0.4, 0.6, 0.8, 1.0])
    assert again[4:] == shape("cosine", 10, warmup=0.4)[4:]


def test_an_unknown_schedule_or_share_is_refused():
    with pytest.raises(UserError, match="unknown schedule 'step'; give cosine, linear, constant"):
        shape("step", 3)
    for name in ("warmup", "floor", "start"):
        with pytest.raises(UserError, match=f"{name} is 1.5; it must be between 0 and 1"):
            shape("cosine", 3, **{name: 1.5})
