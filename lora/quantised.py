"""A frozen matrix W [out, in] in fewer bits: what its formats have in common (lora/nf4.py, lora/int8.py)."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional as F


class QuantisedWeight(nn.Module):
    """A matrix in a format of its own. It moves with its network; `shape`, `dtype` and `device` are as a tensor's.

    dtype  of what `dense` returns; `to(dtype)` changes it, but not the stored bytes
    """

    label: ClassVar[str]  # the format's name, to be read

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        self.shape, self.dtype = weight.shape, weight.dtype

    @property
    def device(self) -> torch.device:
        """The device that it is stored on."""
        return next(self.buffers()).device

    def dense(self) -> torch.Tensor:
        """The matrix [out, in], computed in fp32 and rounded once to `dtype`: a new tensor in every call."""
        raise NotImplementedError

    def product(self, x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """x Wᵀ + bias: [..., in] -> [..., out]. A format that is multiplied as it is stored has its own."""
        return F.linear(x, self.dense(), bias)

    def product_back(self, grad: torch.Tensor, onto: torch.Tensor | None = None) -> torch.Tensor:
        """grad W, the gradient of x, added to `onto` [N, in] in place if given: [..., out] -> [..., in]."""
        return grad @ self.dense() if onto is None else onto.addmm_(grad, self.dense())

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> QuantisedWeight:
        """`to`, `cuda`, `half` …: they move the stored tensors as bytes, which no change of dtype rounds."""
        self.dtype = fn(torch.empty(0, dtype=self.dtype, device=self.device)).dtype
        for name, stored in self.named_buffers():
            setattr(self, name, fn(stored.view(torch.uint8)).view(stored.dtype))
        return self

    def extra_repr(self) -> str:
        """For print(network)."""
        return f"{list(self.shape)}, dequantised to {self.dtype}"


FrozenWeight = torch.Tensor | QuantisedWeight


def dense(weight: FrozenWeight) -> torch.Tensor:
    """The matrix as a tensor: itself, or dequantised for the moment."""
    return weight.dense() if isinstance(weight, QuantisedWeight) else weight


def divisor(largest: torch.Tensor) -> torch.Tensor:
    """The largest magnitude of some numbers, as their divisor: 1 if all are zero."""
    return largest.masked_fill(largest == 0, 1.0)
