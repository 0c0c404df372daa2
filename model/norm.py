"""RMSNorm (arXiv:1910.07467): every vector divided by its root mean square."""

from __future__ import annotations

import torch
from torch import nn

from model import fast
from model.fast.norm import fused_rms_norm


@fast.has_twin(fused_rms_norm)
def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float, dtype: torch.dtype) -> torch.Tensor:
    """x / rms(x) · weight, computed in fp32: x [..., D], weight [D] -> [..., D] in dtype."""
    # the root of the mean of the squares, in fp32: [..., 1]
    x = x.float()
    rms = torch.sqrt(x.square().mean(dim=-1, keepdim=True) + eps)
    return (x / rms * weight).to(dtype)


class RMSNorm(nn.Module):
    """`rms_norm` with a weight; the result has the weight's dtype, ready for the next matrix product.

    offset  added to the weight: Gemma's files store it minus 1
    """

    def __init__(self, size: int, eps: float, offset: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((size,), 1.0 - offset))
        self.eps, self.offset = eps, offset

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., D] -> [..., D]."""
        weight = self.weight.float() + self.offset if self.offset else self.weight
        return rms_norm(x, weight, self.eps, self.weight.dtype)
