"""The optimiser and the learning-rate schedule."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import nn

from common.console import UserError
from lora.adapter import trainable
from training.adam8bit import AdamW8bit

OPTIMIZERS = {"adamw": partial(torch.optim.AdamW, fused=True), "adamw8bit": AdamW8bit}
VIRTUAL = ("prefix.embedding.weight", "prompt.embedding.weight")  # a row of vectors for each virtual token
STATE_BYTES = {"adamw": 8.0, "adamw8bit": 2.04}  # of moments, per trainable parameter

# progress 0 … 1 of the decay -> height above the floor, as a share of the peak's height above it
SCHEDULES = {
    "cosine": lambda progress: 0.5 * (1 + math.cos(math.pi * progress)),
    "linear": lambda progress: 1 - progress,
    "constant": lambda progress: 1.0,
}


def adamw(
    network: nn.Module, kind: str = "adamw", *, lr: float, weight_decay: float, lora_plus_ratio: float = 1.0
) -> torch.optim.Optimizer:
    """AdamW (arXiv:1711.05101) over the trainable parameters.

    kind             "adamw": fused, 8 bytes of moments per parameter; "adamw8bit": 2 bytes (adam8bit.py)
    lora_plus_ratio  LoRA+ (arXiv:2402.12354): lora_B's learning rate is this multiple of `lr`. B starts at zero and A
                     does not; at equal rates, B learns too slowly in wide layers

    Raises UserError for an unknown kind.
    """
    _refuse_unknown("optimizer", kind, OPTIMIZERS)
    # LoRA+: B in a group of its own
    parameters = list(trainable(network))
    faster = {name for name, _ in parameters if name.endswith("lora_B.weight") and lora_plus_ratio != 1}

    # weight decay for matrices, lora_B included; none for biases, norms, DoRA's magnitudes, and for virtual tokens: a
    # text that is shrunk says something else
    vectors = [p for name, p in parameters if p.ndim < 2 or name.endswith(VIRTUAL)]
    matrices = [p for name, p in parameters if p.ndim >= 2 and not name.endswith(VIRTUAL) and name not in faster]
    lora_b = [p for name, p in parameters if name in faster]
    groups = [
        {"params": matrices, "weight_decay": weight_decay, "lr": lr},
        {"params": vectors, "weight_decay": 0.0, "lr": lr},
        {"params": lora_b, "weight_decay": weight_decay, "lr": lr * lora_plus_ratio},
    ]

    # beta2 0.95 averages over some 20 steps; 0.999 would average over 1,000, more than a whole run has
    return OPTIMIZERS[kind]([group for group in groups if group["params"]], lr=lr, betas=(0.9, 0.95))


def make_schedule(
    optimizer: torch.optim.Optimizer, kind: str, *, steps: int, warmup: float, floor: float = 0.1, start: float = 0.0
) -> torch.optim.lr_scheduler.LambdaLR:
    """Linear warm-up to lr, then decay to floor · lr at the last step. Do not advance it after a skipped step.

    kind    "cosine", "linear" or "constant" (which ignores `floor`)
    warmup  share of the steps, 0 to 1, that warm up; the first step is already above `start`
    floor   share of lr, 0 to 1
    start   share of lr, 0 to 1, at which warm-up begins: to re-warm a model whose own training ended at that share
            of its peak (arXiv:2308.04014, arXiv:2403.08763)

    Raises UserError for an unknown kind and for a share outside 0 to 1.
    """
    _refuse_unknown("schedule", kind, SCHEDULES)
    for name, share in (("warmup", warmup), ("floor", floor), ("start", start)):
        if not 0 <= share <= 1:
            raise UserError(f"the schedule's {name} is {share:g}; it must be between 0 and 1")
    rising = max(1, round(warmup * steps))  # steps of warm-up

    def factor(step: int) -> float:  # of lr, at steps 0, 1, …
        # from `start`, which no step uses, to 1 at the last step of the warm-up
        if step < rising:
            return start + (1 - start) * ((step + 1) / rising)
        # from 1 at the first step after it to `floor` at the last one of the run
        progress = min(1.0, (step - rising) / max(1, steps - rising - 1))
        return floor + (1 - floor) * SCHEDULES[kind](progress)

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def _refuse_unknown(what: str, kind: str, known: dict) -> None:
    if kind not in known:
        raise UserError(f"unknown {what} {kind!r}; give {', '.join(known)}")
