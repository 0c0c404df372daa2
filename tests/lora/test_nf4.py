"""NF4: what is stored."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from common.console import UserError
from lora.frozen_weight import QuantisedLinear
from lora.nf4 import LEVELS, NF4Weight

PAPER = [  # arXiv:2305.14314, appendix E
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
]  # fmt: skip


def test_the_levels_are_those_of_the_paper():
    assert_close(torch.tensor(LEVELS), torch.tensor(PAPER), atol=2e-7, rtol=0)
    assert LEVELS[0] == -1 and LEVELS[7] == 0 and LEVELS[15] == 1  # exactly: zeros and extremes stay what they are


def float8_values() -> np.ndarray:
    """All finite numbers of 1 sign, 4 exponent and 3 mantissa bits (arXiv:2209.05433, table 1), rising."""
    positive = [mantissa / 8 * 2.0**-6 for mantissa in range(8)]
    positive += [(1 + mantissa / 8) * 2.0 ** (exponent - 7) for exponent in range(1, 16) for mantissa in range(8)]
    positive = np.array(positive[:-1])  # the last one is NaN
    return np.unique(np.concatenate([-positive, positive]))


def slowly(weight: np.ndarray) -> np.ndarray:
    """What NF4 makes of a matrix, number by number, by trying all levels and all floats."""
    blocks, floats, levels = weight.reshape(-1, 64), float8_values(), np.array(LEVELS)
    largest = [max(abs(float(value)) for value in block) for block in blocks]
    mean = sum(largest) / len(largest)
    out = []
    for start in range(0, len(blocks), 256):
        group = [a - mean for a in largest[start : start + 256]]
        scale = max(abs(deviation) for deviation in group) / 448 or 1.0
        for i, deviation in enumerate(group):
            stored = floats[np.abs(floats - deviation / scale).argmin()] * scale + mean
            for value in blocks[start + i]:
                out.append(levels[np.abs(levels - value / (largest[start + i] or 1.0)).argmin()] * stored)
    return np.array(out).reshape(weight.shape)


@pytest.mark.parametrize("shape", [(96, 64), (300, 64)], ids=["one group", "more than a group"])
def test_every_number_becomes_the_nearest_level(shape):
    weight = torch.randn(shape) * torch.rand(shape[0], 1)
    weight[3] = 0
    found = NF4Weight(weight).dense()
    assert_close(found, torch.tensor(slowly(weight.numpy()), dtype=torch.float32), atol=1e-6, rtol=1e-5)
    assert (found[3] == 0).all() and NF4Weight(torch.zeros(4, 64)).dense().abs().max() == 0


def test_the_error_is_at_most_half_a_gap_and_that_of_the_magnitude():
    weight = torch.randn(2048, 128) * torch.rand(2048, 1)
    largest = weight.view(-1, 64).abs().amax(1, keepdim=True)
    of_magnitude = (largest - largest.mean()).abs() / 16 + 1e-3 * largest.mean()  # 3 bits of mantissa; denormals
    levels = torch.tensor(LEVELS)
    half_a_gap = (levels[1:] - levels[:-1]).max() / 2
    error = (NF4Weight(weight).dense() - weight).view(-1, 64).abs()
    assert (error <= half_a_gap * largest + of_magnitude).all()
    assert error.square().mean().sqrt() < 0.1 * weight.square().mean().sqrt()  # far less than that on average


def test_it_takes_a_little_more_than_four_bits_a_number():
    weight = NF4Weight(torch.randn(1024, 1024, dtype=torch.bfloat16))
    bits = 8 * sum(buffer.numel() * buffer.element_size() for buffer in weight.buffers()) / weight.shape.numel()
    assert 4 + 8 / 64 + 32 / 64 / 256 <= bits < 4.128


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_it_moves_with_its_network_and_loses_nothing_to_another_dtype(dtype):
    weight = NF4Weight(torch.randn(96, 64))
    exact = weight.dense()
    assert (weight.shape, weight.dtype, weight.device) == ((96, 64), torch.float32, torch.device("cpu"))
    network = nn.Sequential(QuantisedLinear(weight, None)).to(dtype)
    assert weight.dtype == dtype and torch.equal(weight.dense(), exact.to(dtype))
    assert torch.equal(network.float()[0].weight.dense(), exact)
    assert {copy.deepcopy(network).to("meta")[0].weight.device.type, weight.device.type} == {"meta", "cpu"}
    other = NF4Weight(torch.randn(96, 64))
    other.load_state_dict(weight.state_dict())
    assert torch.equal(other.dense(), exact)


def test_a_matrix_that_blocks_do_not_fill_is_refused():
    with pytest.raises(UserError, match=r"do not fill a matrix of \[3, 50\]"):
        NF4Weight(torch.zeros(3, 50))
