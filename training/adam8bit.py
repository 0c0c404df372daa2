"""AdamW with both moments in 8 bits: 2.03 bytes per weight instead of 8 (Dettmers et al., arXiv:2110.02861).

A moment is divided into blocks of 256 numbers. A block stores its largest magnitude in fp32, and each number as a
fraction of it, rounded to one of the 256 values of the dynamic tree type: fine near 1, and down to a millionth.

    s 0 0 1 f f f f      s    sign; the second moment has none, and one more bit for f
                         0 0  two zeros: the decade below 10^-2
                         1    ends the zeros
                         f    k of 2^F equal parts of that decade, at its centre: 10^-2 (0.1 + 0.9 (k + 1/2) / 2^F)

The two remaining patterns stand for 0 and 1. A code is a value's rank among the 256 sorted values, not its bits.
"""

# torch._foreach_*: what torch.optim itself uses
# pyright: reportPrivateImportUsage=false

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from model.cached import cached_tensors

BLOCK = 256  # numbers that share a scale
CHUNK = 2**20  # weights whose moments are in fp32 at a time: about 30 MB, whatever the size of a matrix
MOMENTS = ("exp_avg", "exp_avg_sq")
SMALLEST = 4096  # smaller parameters keep fp32 moments: it costs nothing, and norms are sensitive


class AdamW8bit(torch.optim.Optimizer):
    """AdamW (arXiv:1711.05101) over fp32 parameters; moments are in 8 bits between steps and in fp32 within one.

    The state of a parameter of N numbers: `exp_avg_codes` and `exp_avg_sq_codes` [N] uint8, `exp_avg_absmax` and
    `exp_avg_sq_absmax` [ceil(N / 256)] fp32. Below 4096 numbers: `exp_avg` and `exp_avg_sq` [N] fp32, plain AdamW.
    """

    def __init__(
        self,
        params: Iterable,
        lr: float,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self) -> None:
        """Update every parameter that has a gradient: those with the same number of steps together."""
        for group in self.param_groups:
            settings = {key: group[key] for key in ("lr", "betas", "eps", "weight_decay")}
            by_step: dict[int, list[nn.Parameter]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    # the state is made at a parameter's first step, as torch.optim does
                    state = self.state[parameter]
                    if not state:
                        state.update(_fresh_state(parameter))
                    state["step"] += 1
                    by_step[int(state["step"])].append(parameter)
            for step, parameters in by_step.items():
                small = [parameter for parameter in parameters if "exp_avg" in self.state[parameter]]
                large = [parameter for parameter in parameters if "exp_avg" not in self.state[parameter]]
                if small:
                    weights, grads = map(list, zip(*map(_flat, small), strict=True))
                    m, v = ([self.state[parameter][name] for parameter in small] for name in MOMENTS)
                    adamw_step(weights, grads, m, v, step, **settings)
                pieces = [piece for parameter in large for piece in _pieces(parameter, self.state[parameter])]
                for together in _batches(pieces):
                    _step(together, step, settings)

    def load_state_dict(self, state_dict: dict) -> None:
        """Restore a `state_dict()`, each tensor in its own dtype: the base class would cast the codes to fp32."""
        # the base class restores the groups, this method the state: parameters are numbered in the order of the groups
        super().load_state_dict(state_dict | {"state": {}})
        indices = chain.from_iterable(group["params"] for group in state_dict["param_groups"])
        parameters = chain.from_iterable(group["params"] for group in self.param_groups)
        for index, parameter in zip(indices, parameters, strict=True):
            for key, value in state_dict["state"].get(index, {}).items():
                self.state[parameter][key] = value if key == "step" else value.to(parameter.device)


def _fresh_state(parameter: nn.Parameter) -> dict[str, torch.Tensor]:
    size, device = parameter.numel(), parameter.device
    state = {"step": torch.zeros(())}  # on the CPU: reading it does not synchronise with the device
    for name in MOMENTS:
        if size < SMALLEST:
            state[name] = torch.zeros(size, device=device)
        else:
            state[f"{name}_codes"] = torch.zeros(size, dtype=torch.uint8, device=device)
            state[f"{name}_absmax"] = torch.zeros(-(-size // BLOCK), device=device)
    return state


class Piece(NamedTuple):
    """A part of a large parameter, at most CHUNK numbers: views, so that what is written to them is stored."""

    weight: torch.Tensor  # [n] fp32
    grad: torch.Tensor  # [n] fp32
    m_codes: torch.Tensor  # [n] uint8
    m_absmax: torch.Tensor  # [ceil(n / 256)] fp32
    v_codes: torch.Tensor
    v_absmax: torch.Tensor


def _flat(parameter: nn.Parameter) -> tuple[torch.Tensor, torch.Tensor]:
    assert parameter.grad is not None
    return parameter.view(-1), parameter.grad.reshape(-1)


def _pieces(parameter: nn.Parameter, state: dict[str, torch.Tensor]) -> list[Piece]:
    weight, grad = (x.split(CHUNK) for x in _flat(parameter))
    codes = [state[f"{name}_codes"].split(CHUNK) for name in MOMENTS]
    absmax = [state[f"{name}_absmax"].split(CHUNK // BLOCK) for name in MOMENTS]
    return [Piece(*views) for views in zip(weight, grad, codes[0], absmax[0], codes[1], absmax[1], strict=True)]


def _batches(pieces: list[Piece]) -> Iterator[list[Piece]]:
    """Pieces of at most CHUNK numbers together: a GPU starts as many kernels for a batch as for a piece.

    A piece whose last block is not full can only be the last of its batch.
    """
    batch: list[Piece] = []
    for piece in pieces:
        is_whole = not batch or len(batch[-1].weight) % BLOCK == 0
        if batch and (not is_whole or sum(len(one.weight) for one in batch) + len(piece.weight) > CHUNK):
            yield batch
            batch = []
        batch.append(piece)
    if batch:
        yield batch


def _step(pieces: list[Piece], step: int, settings: dict) -> None:
    """One step over pieces, in place. Only their moments are in fp32 meanwhile."""
    columns = [list(column) for column in zip(*pieces, strict=True)]
    weight, grad, m_codes, m_absmax, v_codes, v_absmax = joined = [
        column[0] if len(column) == 1 else torch.cat(column) for column in columns
    ]
    m = dequantise(m_codes, m_absmax, signed=True)
    v = dequantise(v_codes, v_absmax, signed=False)
    adamw_step([weight], [grad], [m], [v], step, **settings)
    quantise_(m_codes, m_absmax, m, signed=True)
    quantise_(v_codes, v_absmax, v, signed=False)
    if len(pieces) > 1:
        for column, changed in zip(columns, joined, strict=True):
            if changed is not grad:
                torch._foreach_copy_(column, changed.split([len(one) for one in column]))


def adamw_step(
    weights: list[torch.Tensor], grads: list[torch.Tensor], m: list[torch.Tensor], v: list[torch.Tensor], step: int,
    *, lr: float, betas: tuple[float, float], eps: float, weight_decay: float,
) -> None:  # fmt: skip
    """AdamW's step number `step` (from 1) on fp32 tensors; updates weights, m and v in place.

    The same operations in the same order as torch.optim.AdamW's plain loop: bit-identical results.
    """
    # decay the weight itself, not the gradient
    beta1, beta2 = betas
    torch._foreach_mul_(weights, 1 - lr * weight_decay)

    # moving averages of the gradient and of its square
    torch._foreach_lerp_(m, grads, 1 - beta1)
    torch._foreach_mul_(v, beta2)
    torch._foreach_addcmul_(v, grads, grads, value=1 - beta2)

    # both start at 0: divided by 1 - beta^step they are unbiased
    denominators = torch._foreach_sqrt(v)
    torch._foreach_div_(denominators, (1 - beta2**step) ** 0.5)
    torch._foreach_add_(denominators, eps)
    torch._foreach_addcdiv_(weights, m, denominators, value=-lr / (1 - beta1**step))


def quantise_(codes: torch.Tensor, absmax: torch.Tensor, x: torch.Tensor, *, signed: bool) -> None:
    """Overwrite codes [N] uint8 and absmax [ceil(N / 256)] fp32 with those of x [N] fp32, non-negative unless signed.

    In place, as torch's functions with an underscore: returned and copied, they took 6 % more launches a step.
    """
    # each number as a share of the largest magnitude in its block, -1 … 1
    tree = dynamic_tree(signed, x.device)
    blocks = F.pad(x, (0, -len(x) % BLOCK)).view(-1, BLOCK)
    torch.amax(blocks.abs(), dim=1, out=absmax)
    scale = absmax.masked_fill(absmax == 0, 1)  # a block of zeros stays zero
    shares = (blocks / scale[:, None]).view(-1)[: len(x)]

    # the nearest value: the lowest that these upper bits allow, or the one after it
    upper_half = shares.view(torch.int32) >> 16  # of each number's bits
    lowest = tree.lowest.index_select(0, upper_half + 2**15)
    codes.copy_(lowest + (shares > tree.borders.index_select(0, lowest)))


def dequantise(codes: torch.Tensor, absmax: torch.Tensor, *, signed: bool) -> torch.Tensor:
    """x [N] fp32 from its codes [N] and absmax [ceil(N / 256)]."""
    shares = dynamic_tree(signed, codes.device).values.index_select(0, codes.int())
    return F.pad(shares, (0, -len(codes) % BLOCK)).view(-1, BLOCK).mul_(absmax[:, None]).view(-1)[: len(codes)]


class DynamicTree(NamedTuple):
    """The type's sorted values, and tables that find the nearest one ten times as fast as bisection on a CPU."""

    values: torch.Tensor  # [256] fp32
    borders: torch.Tensor  # [256] fp32: above borders[c] the nearest value comes after values[c]
    lowest: torch.Tensor  # [65536] int32: the lowest possible code, indexed by the upper half of an fp32 number's bits.
    # Numbers that share those bits have at most one border between them, so the code is this one or the next.


@cached_tensors()
def dynamic_tree(signed: bool, device: torch.device) -> DynamicTree:
    """The type of the first moment (signed) or the second, on a device."""
    # the 256 values: 0, 1, and every decade's parts at their centres
    shares = [0.0, 1.0]
    for zeros in range(7):
        parts = 2 ** (6 - zeros) if signed else 2 ** (7 - zeros)
        shares += [10.0**-zeros * (0.1 + 0.9 * (k + 0.5) / parts) for k in range(parts)]
    if signed:
        shares += [-share for share in shares if share not in (0, 1)]

    # a border is halfway between neighbours
    values = torch.tensor(sorted(shares), dtype=torch.float64)
    borders = F.pad((values[1:] + values[:-1]) / 2, (0, 1), value=torch.inf).float()
    if not signed:
        # A small second moment must not become 0: if its gradient then vanishes, the remaining first moment would be
        # divided by eps alone. Rounded up it is 3e-7 of the largest: the step is too small instead of enormous.
        borders[0] = 0

    # for each upper half, the smallest number that has it, and its code
    upper = torch.arange(-(2**15), 2**15, dtype=torch.int32) << 16
    least = torch.minimum(upper.view(torch.float32), (upper | 0xFFFF).view(torch.float32))
    lowest = torch.bucketize(least, borders, out_int32=True).clamp(max=255)  # 256: patterns of NaN
    return DynamicTree(values.float().to(device), borders.to(device), lowest.to(device))
