"""A matrix product that takes, on a CPU, the faster of the two libraries that PyTorch brings for it.

F.linear in fp32 is MKL's, which holds itself to AVX2 on an AMD processor; oneDNN's kernels take whatever instructions
there are. With AVX-512 on an AMD EPYC that is 410 against 183 GFLOP/s on two cores; where there is none, oneDNN is the
slower one (76 against 85 on a core). It is reached by the operator that torch.compile puts in a compiled network's
place for a linear layer, which has no gradient.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

HAS_ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
TAKES_ONEDNN = HAS_ONEDNN and torch.backends.cpu.get_cpu_capability() == "AVX512"


def product(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """x Wᵀ + bias, as F.linear: x [..., in], weight [out, in], bias [out] -> [..., out]."""
    on_cpu_in_fp32 = x.device.type == "cpu" and x.dtype == weight.dtype == torch.float32
    if TAKES_ONEDNN and on_cpu_in_fp32 and not torch.is_grad_enabled() and not torch.is_autocast_enabled("cpu"):
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return F.linear(x, weight, bias)


class Linear(nn.Linear):
    """nn.Linear by `product`."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x [..., in] -> [..., out]."""
        return product(x, self.weight, self.bias)
