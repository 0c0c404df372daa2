"""The optimiser and its schedule."""

from __future__ import annotations

import math

import torch
from torch import nn


def adamw(network: nn.Module, *, lr: float, weight_decay: float) -> torch.optim.AdamW:
    """AdamW (arXiv:1711.05101) over what learns; matrices decay, biases and norms do not."""
    learning = [parameter for parameter in network.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in learning if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in learning if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=lr, betas=(0.9, 0.95))


def cosine_schedule(optimizer: torch.optim.Optimizer, *, steps: int, warmup: float, floor: float = 0.1):
    """Linear warm-up over a share of the steps, then half a cosine down to floor · lr at the last step.

    Advance it only after a step that moved the weights.
    """
    rising = max(1, round(warmup * steps))

    def factor(step: int) -> float:
        if step < rising:
            return (step + 1) / rising
        turned = min(1.0, (step - rising) / max(1, steps - rising - 1))
        return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * turned))

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
