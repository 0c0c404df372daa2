"""8-bit moments: the type, the rounding, the step, and bit-identical resumption."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from model.config import ModelConfig
from model.decoder import Decoder
from model.device import choose_device
from model.loss import causal_lm_loss
from training import adam8bit
from training.adam8bit import BLOCK, AdamW8bit, dequantise, dynamic_tree, quantise_
from training.checkpoint import latest_checkpoint, load_checkpoint, save_checkpoint
from training.optim import adamw, make_schedule
from training.precision import Precision

CPU = torch.device("cpu")
SETTINGS = {"lr": 1e-2, "betas": (0.9, 0.95), "weight_decay": 0.1}


def meaning(pattern: int, bits: int) -> float:
    """What a pattern of that many bits stands for, read from its left: zeros, a one, a fraction."""
    text = f"{pattern:0{bits}b}"
    zeros, fraction = text.index("1"), text[text.index("1") + 1 :]
    return 10.0**-zeros * (0.1 + 0.9 * (int(fraction or "0", 2) + 0.5) / 2 ** len(fraction))


@pytest.mark.parametrize("signed", [True, False])
def test_the_values_are_those_of_the_paper_s_bit_patterns(signed):
    values = dynamic_tree(signed, CPU).values.double().numpy()
    bits = 7 if signed else 8
    expected = [meaning(pattern, bits) for pattern in range(1 if signed else 2, 2**bits)]
    expected = [0.0, 1.0, *expected, *(-x for x in expected if signed)]
    assert len(expected) == 256
    np.testing.assert_allclose(values, sorted(expected), rtol=1e-7)


@pytest.mark.parametrize(
    ("signed", "least", "last_gaps"), [(True, 5.5e-7, (0.9 / 64, 0.45 / 64)), (False, 3.25e-7, (0.9 / 128, 0.45 / 128))]
)
def test_the_values_are_finest_near_the_largest_and_reach_a_millionth(signed, least, last_gaps):
    values, borders, _ = dynamic_tree(signed, CPU)
    assert len(values) == 256 and (values.diff() > 0).all() and 0 in values and values[-1] == 1
    assert values[values > 0][0] == pytest.approx(least)
    assert values[-3:].diff().tolist() == pytest.approx(last_gaps, rel=1e-4)
    assert (values <= borders).all() and (borders[:-1] < values[1:]).all()


def stored(x, signed):
    codes, absmax = torch.empty(len(x), dtype=torch.uint8), torch.empty(-(-len(x) // BLOCK))
    quantise_(codes, absmax, x, signed=signed)
    return dequantise(codes, absmax, signed=signed)


@pytest.mark.parametrize("signed", [True, False])
def test_a_number_becomes_the_nearest_value_of_its_block(signed):
    x = torch.randn(5 * BLOCK + 77) * torch.exp(4 * torch.randn(5 * BLOCK + 77))  # the last block is not full
    x = (x if signed else x.abs()) * torch.logspace(-20, 20, 5 * BLOCK + 77)
    x[3 * BLOCK : 4 * BLOCK] = 0
    values, found = dynamic_tree(signed, CPU).values.double().numpy(), stored(x, signed)
    assert (found[3 * BLOCK : 4 * BLOCK] == 0).all() and (signed or (found[x > 0] > 0).all())
    for start in range(0, len(x), BLOCK):
        one, got = (t[start : start + BLOCK].double().numpy() for t in (x, found))
        largest = np.abs(one).max()
        distance = np.abs(one[:, None] - largest * values)  # [256, 256]
        least = np.where((one > 0) & (not signed), distance[:, 1:].min(1), distance.min(1))  # what is positive stays so
        rounding = 3e-7 * np.maximum(np.abs(one), 1e-6 * largest)
        assert (np.abs(np.abs(one - got) - least) <= rounding).all()


@pytest.mark.parametrize("signed", [True, False])
def test_the_error_is_at_most_half_a_part_of_the_decade(signed):
    x = 10 ** (-7 * torch.rand(100 * BLOCK))
    x[::BLOCK] = 1
    off = (x - stored(x, signed)).abs()
    for zeros in range(7):
        parts = 2 ** (6 - zeros) if signed else 2 ** (7 - zeros)
        decade = (x <= 10.0**-zeros) & (x > 10.0 ** -(zeros + 1))
        part = 10.0**-zeros * 0.9 / parts
        assert 0.48 * part < off[decade].max() <= 0.5001 * part, zeros  # so large is it, and no larger


@pytest.mark.parametrize("signed", [True, False])
def test_blocks_of_zeros_and_of_the_smallest_numbers_survive(signed):
    x = torch.cat([torch.zeros(BLOCK), torch.full((BLOCK,), 1e-42), torch.full((BLOCK,), 3e38)])
    codes, absmax = torch.empty(len(x), dtype=torch.uint8), torch.empty(3)
    quantise_(codes, absmax, x, signed=signed)
    assert torch.equal(dequantise(codes, absmax, signed=signed), x)
    values = dynamic_tree(signed, CPU).values
    assert values[codes[:BLOCK].int()].unique().tolist() == [0] and (codes[BLOCK:] == 255).all()


@pytest.mark.parametrize("signed", [True, False])
def test_the_code_is_the_one_that_bisection_finds_on_either_side_of_every_border(signed):
    borders = dynamic_tree(signed, CPU).borders[:-1]
    below, above = (torch.nextafter(borders, torch.tensor(to)) for to in (-math.inf, math.inf))
    x = torch.cat([below if signed else below[1:], borders, above, torch.logspace(-45, 0, 9999), torch.tensor([1.0])])
    padded = torch.cat([torch.ones(len(x), 1), x[:, None].expand(-1, BLOCK - 1)], dim=1).flatten()  # share = x
    codes, absmax = torch.empty(len(padded), dtype=torch.uint8), torch.empty(len(x))
    quantise_(codes, absmax, padded, signed=signed)
    assert torch.equal(codes.view(-1, BLOCK)[:, 1].int(), torch.bucketize(x, borders, out_int32=True))


def parameters_with_gradients(shapes, steps):
    generator = torch.Generator().manual_seed(3)
    weights = [torch.randn(shape, generator=generator) for shape in shapes]
    scales = [torch.exp(2 * torch.randn(shape, generator=generator)) for shape in shapes]
    gradients = [[torch.randn(s.shape, generator=generator) * s for s in scales] for _ in range(steps)]
    return weights, gradients


def run(kind, weights, gradients):
    parameters = [nn.Parameter(w.clone()) for w in weights]
    optimizer = kind(parameters, **SETTINGS)
    for step in gradients:
        for parameter, gradient in zip(parameters, step, strict=True):
            parameter.grad = gradient.clone()
        optimizer.step()
    return parameters, optimizer


def moments(optimizer, parameter):
    state = optimizer.state[parameter]
    return [
        dequantise(state[f"{name}_codes"], state[f"{name}_absmax"], signed=signed).view_as(parameter)
        for name, signed in (("exp_avg", True), ("exp_avg_sq", False))
    ]


def test_a_step_from_the_same_moments_is_bit_identical_to_adamw():
    weights, gradients = parameters_with_gradients([(70, 71)], 5)
    (ours,), optimizer = run(AdamW8bit, weights, gradients[:4])
    theirs = nn.Parameter(ours.detach().clone())
    reference = torch.optim.AdamW([theirs], **SETTINGS, foreach=False)
    m, v = moments(optimizer, ours)
    reference.state[theirs] = {"step": torch.tensor(4.0), "exp_avg": m.clone(), "exp_avg_sq": v.clone()}
    ours.grad, theirs.grad = gradients[4][0].clone(), gradients[4][0].clone()
    optimizer.step()
    reference.step()
    assert torch.equal(ours, theirs) and not torch.equal(m, moments(optimizer, ours)[0])
    for found, name, signed in zip(moments(optimizer, ours), ("exp_avg", "exp_avg_sq"), (True, False), strict=True):
        assert torch.equal(found.flatten(), stored(reference.state[theirs][name].flatten(), signed))


def test_the_first_step_is_bit_identical_to_adamw():
    weights, gradients = parameters_with_gradients([(70, 71), (4, 4)], 1)
    ours, _ = run(AdamW8bit, weights, gradients)
    theirs, _ = run(torch.optim.AdamW, weights, gradients)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    assert not torch.equal(ours[0], weights[0])


def test_below_4096_numbers_every_step_is_bit_identical_to_adamw():
    weights, gradients = parameters_with_gradients([(4095,), (63, 65), (64, 64)], 6)
    ours, optimizer = run(AdamW8bit, weights, gradients)
    theirs, _ = run(torch.optim.AdamW, weights, gradients)
    assert [torch.equal(a, b) for a, b in zip(ours, theirs, strict=True)] == [True, True, False]
    assert optimizer.state[ours[2]]["exp_avg_codes"].dtype == torch.uint8


class Largest(TorchDispatchMode):
    """The bytes of the largest tensor that came into being, views aside."""

    def __init__(self, known):
        super().__init__()
        self.known, self.bytes = {t.untyped_storage().data_ptr() for t in known}, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and result.untyped_storage().data_ptr() not in self.known:
            self.bytes = max(self.bytes, result.untyped_storage().nbytes())
        return result


def test_chunking_a_large_parameter_changes_nothing(monkeypatch):
    weights, gradients = parameters_with_gradients([(83, 101)], 4)
    (whole,), _ = run(AdamW8bit, weights, gradients)
    monkeypatch.setattr(adam8bit, "CHUNK", 1024)
    (chunked,), optimizer = run(AdamW8bit, weights, gradients)
    assert torch.equal(whole, chunked)
    chunked.grad = gradients[0][0]
    with Largest([chunked, chunked.grad, *optimizer.state[chunked].values()]) as largest:
        optimizer.step()
    assert 0 < largest.bytes <= 4 * 1024


def test_a_weight_whose_gradient_vanishes_does_not_jump():
    parameter = nn.Parameter(torch.zeros(4096))
    optimizer = AdamW8bit([parameter], lr=1e-3, betas=(0.9, 0.95), weight_decay=0.0)
    for step in range(6):
        parameter.grad = torch.zeros(4096)
        parameter.grad[0] = 1.0
        parameter.grad[1] = 1e-4 if step == 0 else 0.0  # squared 1e-8 of the largest: the nearest value is 0
        before = parameter.detach().clone()
        optimizer.step()
        assert (parameter - before).abs().max() <= 1.5e-3
    assert parameter[1] < 0


def small_decoder():
    config = {
        "model_type": "llama", "vocab_size": 256, "hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 4, "max_position_embeddings": 64, "tie_word_embeddings": True,
    }  # fmt: skip
    decoder = Decoder(ModelConfig.from_dict(config))
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in decoder.parameters():
            if parameter.ndim > 1:
                parameter.copy_(0.05 * torch.randn(parameter.shape, generator=generator))
            else:
                parameter.fill_(1.0)
    return decoder


def texts(steps=60, rows=4, length=24):
    """Token ids [steps, rows, length] that rise by 1, 2 or 3, round 64: the two before tell the next."""
    generator = torch.Generator().manual_seed(6)
    start, rise = (torch.randint(*span, (steps, rows, 1), generator=generator) for span in ((0, 64), (1, 4)))
    return (start + rise * torch.arange(length)) % 64


def train(decoder, optimizer, schedule, precision, steps):
    for ids in texts()[steps.start : steps.stop]:
        loss = causal_lm_loss(decoder.hidden_states(ids), decoder.head_weight, ids) / ids[:, 1:].numel()
        precision.backward(loss)
        precision.step(optimizer, list(decoder.parameters()), max_norm=1.0)
        schedule.step()
    return loss.item()


def state_for(kind, steps=60):
    decoder = small_decoder()
    optimizer = adamw(decoder, kind, lr=3e-3, weight_decay=0.01)
    schedule = make_schedule(optimizer, "cosine", steps=steps, warmup=0.1)
    return decoder, optimizer, schedule, Precision(choose_device("cpu"), torch.float32)


def test_training_matches_fp32_moments_in_a_quarter_of_the_memory():
    losses, sizes = {}, {}
    for kind in ("adamw", "adamw8bit"):
        state = state_for(kind)
        first = train(*state, range(1))
        losses[kind] = train(*state, range(1, 60))
        tensors = [t for moments in state[1].state.values() for t in moments.values() if t.ndim]
        sizes[kind] = sum(t.numel() * t.element_size() for t in tensors)
    assert first > 5 and losses["adamw"] < 3
    assert losses["adamw8bit"] == pytest.approx(losses["adamw"], abs=0.005)
    matrices = sum(p.numel() for p in state[0].parameters() if p.ndim > 1)
    norms = sum(p.numel() for p in state[0].parameters() if p.ndim == 1)
    assert sizes == {"adamw": 8 * (matrices + norms), "adamw8bit": (2 + 8 / BLOCK) * matrices + 8 * norms}


def assert_same_state(one, other):
    a, b = (optimizer.state_dict()["state"] for optimizer in (one, other))
    assert a.keys() == b.keys() and all(a[index].keys() == b[index].keys() for index in a)
    for x, y in ((a[index][key], b[index][key]) for index in a for key in a[index]):
        assert x.dtype == y.dtype and torch.equal(x, y)


@pytest.mark.parametrize("kind", ["adamw", "adamw8bit"])
def test_a_resumed_run_is_bit_identical(kind, tmp_path):
    whole, parts = state_for(kind, 12), state_for(kind, 12)
    train(*whole, range(12))
    train(*parts, range(5))
    save_checkpoint(tmp_path, 5, *parts)
    resumed = state_for(kind, 12)
    assert load_checkpoint(latest_checkpoint(tmp_path), *resumed) == 5
    assert_same_state(parts[1], resumed[1])
    types = {t.dtype for moments in resumed[1].state.values() for t in moments.values()}
    assert types == ({torch.float32, torch.uint8} if kind == "adamw8bit" else {torch.float32})
    train(*resumed, range(5, 12))
    assert all(torch.equal(a, b) for a, b in zip(whole[0].parameters(), resumed[0].parameters(), strict=True))
    assert_same_state(whole[1], resumed[1])


def test_many_parameters_step_together_as_each_would_alone(monkeypatch):
    monkeypatch.setattr(adam8bit, "CHUNK", 64 * BLOCK)  # several batches, and a parameter of several pieces
    shapes = [(70, 71), (32, 256), (64, 80), (7, 9), (300, 256), (16, 320), (90, 100), (3,), (20, 256)]
    weights, gradients = parameters_with_gradients(shapes, 4)
    gradients[1][1:3] = [torch.zeros(shapes[1]), torch.zeros(shapes[2])]
    together, joined = run(AdamW8bit, weights, gradients)
    for number, found in enumerate(together):
        (alone,), optimizer = run(AdamW8bit, [weights[number]], [[step[number]] for step in gradients])
        assert torch.equal(found, alone)
        for name, value in optimizer.state[alone].items():
            assert torch.equal(value, joined.state[found][name]), name


def test_a_step_of_many_parameters_takes_few_operators():
    class Operators(TorchDispatchMode):
        count = 0

        def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
            Operators.count += not operator.is_view
            return operator(*args, **(kwargs or {}))

    weights, gradients = parameters_with_gradients([(16, 256)] * 200 + [(32,)] * 100, 2)
    parameters, optimizer = run(AdamW8bit, weights, gradients[:1])
    for parameter, gradient in zip(parameters, gradients[1], strict=True):
        parameter.grad = gradient
    with Operators():
        optimizer.step()
    assert Operators.count < 2 * 300 + 100  # two for each parameter count its steps, on the host
