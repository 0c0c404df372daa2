"""4-bit NormalFloat with double quantisation: a frozen matrix in 4.13 bits a number (QLoRA, arXiv:2305.14314).

    W    64 numbers in a row, their largest magnitude a ──>  the nearest of 16 levels · a         4 bits a number
    a    less their mean, 256 in a row, their largest ──>    8-bit floats · the group's scale     8 / 64 bits a number
                                                             and that in fp32                    32 / 64 / 256

Weights are nearly normal, so the levels lie where a normal distribution has equal mass between them (section 3). A byte
holds two numbers, and is looked up as two.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from statistics import NormalDist

import torch
from torch import nn
from torch.nn import functional as F

from common.console import UserError
from model.cached import cached_tensors

BLOCK = 64  # numbers that share a magnitude
GROUP = 256  # magnitudes that share a scale
PIECE = 1 << 14  # blocks worked on at a time: few enough to stay in a cache, enough to keep a GPU busy
FLOAT8 = torch.float8_e4m3fn


def _levels() -> list[float]:
    """The 16 levels, rising from -1 to 1, with a zero: 7 below it and 8 above, each side cut evenly by probability.

    The outermost would lie at infinity. They stand where the middle of the outer cells of 15 and of 16 levels would be,
    on average, and all are divided by them. The paper's appendix E prints these numbers, of lower precision.
    """
    half = 0.5 - (1 / 30 + 1 / 32) / 2  # of the probability, between zero and the outermost level
    quantile = NormalDist().inv_cdf
    below = [-quantile(0.5 + half * i / 7) for i in range(7, 0, -1)]
    above = [quantile(0.5 + half * i / 8) for i in range(1, 9)]
    return [level / above[-1] for level in [*below, 0.0, *above]]


LEVELS = tuple(_levels())
BETWEEN = tuple((low + high) / 2 for low, high in itertools.pairwise(LEVELS))


class NF4Weight(nn.Module):
    """A matrix in NF4. It moves with the network that it is part of; `shape`, `dtype` and `device` are as a tensor's.

    dtype  that of `dense`; `to(dtype)` changes it, and nothing that is stored
    """

    def __init__(self, weight: torch.Tensor) -> None:
        """Quantise `weight`, which is not kept. UserError when blocks do not fill it."""
        super().__init__()
        if weight.numel() % BLOCK:
            raise UserError(f"NF4 stores {BLOCK} numbers at a time, which do not fill a matrix of {list(weight.shape)}")
        self.shape, self.dtype = weight.shape, weight.dtype
        blocks = weight.detach().reshape(-1, BLOCK)
        codes = torch.empty(len(blocks), BLOCK // 2, dtype=torch.uint8, device=weight.device)
        magnitudes = torch.empty(len(blocks), device=weight.device)
        for of_weight, of_codes, of_magnitudes in _pieces(blocks, codes, magnitudes):
            _encode(of_weight.float(), of_codes, of_magnitudes)
        self.register_buffer("codes", codes)
        self.register_buffer("mean", magnitudes.mean()[None])
        deviations = F.pad(magnitudes - self.mean, (0, -len(magnitudes) % GROUP)).view(-1, GROUP)
        scales = deviations.abs().amax(1) / torch.finfo(FLOAT8).max
        self.register_buffer("scales", scales)  # [groups] fp32
        self.register_buffer("deviations", (deviations / _divisor(scales)[:, None]).to(FLOAT8))  # [groups, GROUP]

    @property
    def device(self) -> torch.device:
        """Where it is stored."""
        return self.codes.device

    @torch.no_grad()
    def dense(self) -> torch.Tensor:
        """The matrix [out, in], computed in fp32 and rounded once to `dtype`: a new tensor at every call."""
        magnitudes = (self.deviations.float() * self.scales[:, None]).flatten()[: len(self.codes)] + self.mean
        dense = torch.empty(self.shape, dtype=self.dtype, device=self.device)
        pairs = _pairs(self.device)
        for codes, magnitude, piece in _pieces(self.codes, magnitudes, dense.view(-1, BLOCK)):
            levels = pairs.index_select(0, codes.flatten().int()).view(torch.float32)
            torch.mul(levels.view(-1, BLOCK), magnitude[:, None], out=piece)
        return dense

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> NF4Weight:
        """`to`, `cuda`, `half` …: all are told that the scales are bytes, which have no precision to lose."""
        self.dtype = fn(torch.empty(0, dtype=self.dtype, device=self.device)).dtype
        for name, stored in self.named_buffers():
            setattr(self, name, fn(stored.view(torch.uint8)).view(stored.dtype))
        return self

    def extra_repr(self) -> str:
        """For print(network)."""
        return f"{list(self.shape)}, multiplied out to {self.dtype}"


FrozenWeight = nn.Parameter | NF4Weight


def dense(weight: FrozenWeight) -> torch.Tensor:
    """The matrix as a tensor: itself, or dequantised for the moment."""
    return weight.dense() if isinstance(weight, NF4Weight) else weight


def _encode(weight: torch.Tensor, codes: torch.Tensor, magnitudes: torch.Tensor) -> None:
    """Write the codes [n, BLOCK / 2] and magnitudes [n] of blocks [n, BLOCK] in fp32."""
    torch.amax(weight.abs(), dim=1, out=magnitudes)
    unit = weight / _divisor(magnitudes)[:, None]
    nearest = torch.zeros_like(unit, dtype=torch.uint8)
    for border in BETWEEN:  # on a CPU three times as fast as torch.bucketize
        nearest += unit > border
    torch.add(nearest[:, ::2] * 16, nearest[:, 1::2], out=codes)


def _divisor(largest: torch.Tensor) -> torch.Tensor:
    """The largest of some numbers, to divide them by: where all are zero they stay it."""
    return largest.masked_fill(largest == 0, 1.0)


def _pieces(*tensors: torch.Tensor):
    """The same PIECE rows of each, in turn."""
    return zip(*(tensor.split(PIECE) for tensor in tensors), strict=True)


@cached_tensors()
def _pairs(device: torch.device) -> torch.Tensor:
    """The two levels of every byte, the high half first, each two fp32 numbers as one word: [256] int64."""
    levels = torch.tensor(LEVELS, device=device)
    return torch.stack([levels.repeat_interleave(16), levels.repeat(16)], dim=1).view(torch.int64).flatten()
