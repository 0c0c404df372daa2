"""Matrix products on a CPU with AVX-512, without gradients, by oneDNN: up to twice as fast as F.linear there.

F.linear in fp32 is MKL's, which limits itself to AVX2 on AMD processors; oneDNN uses every instruction set. On an AMD
EPYC with AVX-512 that is 410 against 183 GFLOP/s on two cores; without AVX-512, oneDNN is slower (76 against 85 on one
core). It is reached through the operator that torch.compile substitutes for a linear layer, which has no gradient.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F

from model import fast

HAS_ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
USES_ONEDNN = HAS_ONEDNN and torch.backends.cpu.get_cpu_capability() == "AVX512"


@fast.written_for("78570ed6")
def onednn_linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """model/linear.py: linear. x [..., in], weight [out, in], bias [out] -> [..., out]."""
    on_cpu_in_fp32 = x.device.type == "cpu" and x.dtype == weight.dtype == torch.float32
    if USES_ONEDNN and on_cpu_in_fp32 and not torch.is_grad_enabled() and not torch.is_autocast_enabled("cpu"):
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return F.linear(x, weight, bias)
