"""The optimiser and its schedule."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import nn

from common.console import UserError
from lora.inject import trainable
from training.adam8bit import AdamW8bit

OPTIMIZERS = {"adamw": partial(torch.optim.AdamW, fused=True), "adamw8bit": AdamW8bit}
STATE_BYTES = {"adamw": 8.0, "adamw8bit": 2.04}  # of its moments, for a number that learns

# How far above the floor the rate is, as a share of the way up to the peak, when a share `done` of the fall is behind.
SCHEDULES = {
    "cosine": lambda done: 0.5 * (1 + math.cos(math.pi * done)),
    "linear": lambda done: 1 - done,
    "constant": lambda done: 1.0,
}


def adamw(
    network: nn.Module, kind: str = "adamw", *, lr: float, weight_decay: float, lora_plus_ratio: float = 1.0
) -> torch.optim.Optimizer:
    """AdamW (arXiv:1711.05101) over what learns; matrices decay, biases, norms and DoRA's lengths do not.

    kind             "adamw": one kernel for all weights, 8 bytes of moments a weight; "adamw8bit": 2, see adam8bit.py
    lora_plus_ratio  LoRA+ (arXiv:2402.12354): every lora_B learns at this many times `lr`. It starts at zero while
                     lora_A does not, and at one rate for both lags behind the wider the layer is

    UserError for another kind.
    """
    _refuse_unknown("optimizer", kind, OPTIMIZERS)
    learning = list(trainable(network))
    raised = {name for name, _ in learning if name.endswith("lora_B.weight") and lora_plus_ratio != 1}
    groups = [
        {"params": [p for n, p in learning if p.ndim >= 2 and n not in raised], "weight_decay": weight_decay, "lr": lr},
        {"params": [p for n, p in learning if p.ndim < 2], "weight_decay": 0.0, "lr": lr},
        {"params": [p for n, p in learning if n in raised], "weight_decay": weight_decay, "lr": lr * lora_plus_ratio},
    ]
    return OPTIMIZERS[kind]([group for group in groups if group["params"]], lr=lr, betas=(0.9, 0.95))


def make_schedule(
    optimizer: torch.optim.Optimizer,
    kind: str,
    *,
    steps: int,
    warmup: float,
    floor: float = 0.1,
    start: float = 0.0,
) -> torch.optim.lr_scheduler.LambdaLR:
    """Linear warm-up from start · lr over a share of the steps, then down to floor · lr at the last step.

    kind     "cosine": half a wave; "linear": a line; "constant": the rate stays at lr and `floor` is without effect
    warmup   share of the steps with a rising rate, 0 to 1; the first step is already one part above `start`
    floor    share of lr, 0 to 1
    start    share of lr, 0 to 1, that stood before the first step. To go on with a model whose own training ended at a
             share of its peak, re-warm from there (arXiv:2308.04014, arXiv:2403.08763)

    Advance it only after a step that moved the weights. UserError for another kind, or a share that is none.
    """
    _refuse_unknown("schedule", kind, SCHEDULES)
    for name, share in (("warmup", warmup), ("floor", floor), ("start", start)):
        if not 0 <= share <= 1:
            raise UserError(f"the schedule's {name} is {share:g}; it is a share, from 0 to 1")
    rising = max(1, round(warmup * steps))

    def factor(step: int) -> float:
        if step < rising:
            return start + (1 - start) * ((step + 1) / rising)
        done = min(1.0, (step - rising) / max(1, steps - rising - 1))
        return floor + (1 - floor) * SCHEDULES[kind](done)

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def _refuse_unknown(what: str, kind: str, known: dict) -> None:
    if kind not in known:
        raise UserError(f"{what} {kind!r} is not known; give {', '.join(known)}")
