"""The optimiser and its schedule."""

from __future__ import annotations

import math

import torch
from torch import nn

from lora.inject import trainable

STATE_BYTES = {"adamw": 8}  # of each optimiser, for a number that learns
SCHEDULES = ("cosine",)


def make_optimizer(network, kind, **settings):
    """The optimiser of that name."""
    return adamw(network, **settings)


def make_schedule(optimizer, kind, *, steps, warmup, start, floor):
    """The schedule of that name."""
    return cosine_schedule(optimizer, steps=steps, warmup=warmup, floor=floor)


def adamw(network: nn.Module, *, lr: float, weight_decay: float, lora_plus_ratio: float = 1.0) -> torch.optim.AdamW:
    """AdamW (arXiv:1711.05101) over what learns; matrices decay, biases, norms and DoRA's lengths do not.

    lora_plus_ratio  LoRA+ (arXiv:2402.12354): every lora_B learns at this many times `lr`. It starts at zero while
                     lora_A does not, and at one rate for both lags behind the wider the layer is
    """
    learning = list(trainable(network))
    raised = {name for name, _ in learning if name.endswith("lora_B.weight") and lora_plus_ratio != 1}
    groups = [
        {"params": [p for n, p in learning if p.ndim >= 2 and n not in raised], "weight_decay": weight_decay, "lr": lr},
        {"params": [p for n, p in learning if p.ndim < 2], "weight_decay": 0.0, "lr": lr},
        {"params": [p for n, p in learning if n in raised], "weight_decay": weight_decay, "lr": lr * lora_plus_ratio},
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
