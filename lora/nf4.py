"""4-bit NormalFloat with double quantisation: a frozen matrix in 4.13 bits a number (QLoRA, arXiv:2305.14314).

    W    64 numbers in a row, their largest magnitude a ──>  the nearest of 16 levels · a         4 bits a number
    a    less their mean, 256 in a row, their largest ──>    8-bit floats · the group's scale     8 / 64 bits a number
                                                             and that in fp32                    32 / 64 / 256

Weights are nearly normally distributed, so the levels cut a normal distribution into equal masses (section 3). A byte
holds two numbers; one lookup decodes both.
"""

from __future__ import annotations

import itertools
from statistics import NormalDist

import torch
from torch.nn import functional as F

from common.console import UserError
from lora.quantised import QuantisedWeight, divisor
from model.cached import cached_tensors
from model.device import on_gpu

BLOCK = 64  # numbers that share a magnitude
GROUP = 256  # magnitudes that share a scale
PIECE, PIECE_ON_GPU = 1 << 14, 1 << 17  # blocks processed at a time: within a CPU's cache; few kernels on a GPU
FLOAT8 = torch.float8_e4m3fn


def _levels() -> list[float]:
    """The 16 levels, rising from -1 to 1, with a zero: 7 below it and 8 above, each side cut evenly by probability.

    The outermost quantiles would be infinite. They are placed at the average of the middles of the outer cells of 15
    and of 16 levels, and all levels are divided by them. Appendix E of the paper prints these numbers in fp32.
    """
    half = 0.5 - (1 / 30 + 1 / 32) / 2  # of the probability, between zero and the outermost level
    quantile = NormalDist().inv_cdf
    below = [-quantile(0.5 + half * i / 7) for i in range(7, 0, -1)]
    above = [quantile(0.5 + half * i / 8) for i in range(1, 9)]
    return [level / above[-1] for level in [*below, 0.0, *above]]


LEVELS = tuple(_levels())
BETWEEN = tuple((low + high) / 2 for low, high in itertools.pairwise(LEVELS))


class NF4Weight(QuantisedWeight):
    """A matrix in NF4."""

    label = "NF4"
    codes: torch.Tensor  # [blocks, BLOCK / 2] uint8, two weights a byte
    mean: torch.Tensor  # [1] fp32, of the blocks' magnitudes
    scales: torch.Tensor  # [groups] fp32
    deviations: torch.Tensor  # [groups, GROUP] FLOAT8, of the magnitudes from their mean, over their group's scale

    def __init__(self, weight: torch.Tensor) -> None:
        """Quantise `weight`, which is not kept. UserError if its size is no multiple of BLOCK."""
        super().__init__(weight)
        if weight.numel() % BLOCK:
            raise UserError(f"NF4 stores blocks of {BLOCK} numbers, which do not fill a matrix of {list(weight.shape)}")

        # each block by itself: its largest magnitude, and 4 bits for each number
        blocks = weight.detach().reshape(-1, BLOCK)
        codes = torch.empty(len(blocks), BLOCK // 2, dtype=torch.uint8, device=weight.device)
        magnitudes = torch.empty(len(blocks), device=weight.device)
        for block, code, magnitude in _pieces(blocks, codes, magnitudes):
            block = block.float()
            magnitude.copy_(block.abs().amax(dim=1))
            code.copy_(_encode(block, magnitude))
        self.register_buffer("codes", codes)

        # the magnitudes again in 8 bits (double quantisation): their deviations from the mean, a group at a time
        self.register_buffer("mean", magnitudes.mean()[None])
        deviations = F.pad(magnitudes - self.mean, (0, -len(magnitudes) % GROUP)).view(-1, GROUP)
        scales = deviations.abs().amax(1) / torch.finfo(FLOAT8).max
        self.register_buffer("scales", scales)
        self.register_buffer("deviations", (deviations / divisor(scales)[:, None]).to(FLOAT8))

    @torch.no_grad()
    def dense(self) -> torch.Tensor:
        """The matrix [out, in], computed in fp32 and rounded once to `dtype`: a new tensor in every call."""
        # the magnitude of each block, without the padding of the last group: [blocks]
        magnitudes = (self.deviations.float() * self.scales[:, None]).flatten()[: len(self.codes)] + self.mean

        # one look-up decodes a byte to two levels: [n, BLOCK / 2] -> [n, BLOCK]
        dense = torch.empty(self.shape, dtype=self.dtype, device=self.device)
        pairs = _pairs(self.device)
        for codes, magnitude, piece in _pieces(self.codes, magnitudes, dense.view(-1, BLOCK)):
            levels = pairs.index_select(0, codes.flatten().int()).view(torch.float32)
            torch.mul(levels.view(-1, BLOCK), magnitude[:, None], out=piece)
        return dense


def _encode(weight: torch.Tensor, magnitudes: torch.Tensor) -> torch.Tensor:
    """The codes [n, BLOCK / 2] of blocks [n, BLOCK] in fp32 with these magnitudes [n]."""
    # the number of borders below it is a number's level; three times as fast as torch.bucketize on a CPU
    unit = weight / divisor(magnitudes)[:, None]
    nearest = torch.zeros_like(unit, dtype=torch.uint8)
    for border in BETWEEN:
        nearest += unit > border

    # two to a byte, the first in the high half
    first, second = nearest.unflatten(1, (-1, 2)).unbind(-1)
    return first * 16 + second


def _pieces(*tensors: torch.Tensor):
    """Corresponding slices of some rows of each tensor; of tensors without numbers (training/memory_plan.py) all."""
    rows = len(tensors[0]) if tensors[0].is_meta else PIECE_ON_GPU if on_gpu(tensors[0]) else PIECE
    return zip(*(tensor.split(rows) for tensor in tensors), strict=True)


@cached_tensors()
def _pairs(device: torch.device) -> torch.Tensor:
    """The two levels of every byte, the high half first, each two fp32 numbers as one word: [256] int64."""
    levels = torch.tensor(LEVELS, device=device)
    return torch.stack([levels.repeat_interleave(16), levels.repeat(16)], dim=1).view(torch.int64).flatten()
