"""The AMP step: what learns is fp32, matrix products are in the compute dtype (model/device.py chooses it).

Frozen weights are kept in the compute dtype, trainable ones in fp32 and cast where they are used.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager

import torch
from torch import nn

from data.packing import Batch
from model.decoder import Decoder


class Precision:
    """Autocast, and in fp16 a loss scale.

    The scale starts at 2^12 rather than PyTorch's 2^16: a run of fifty steps cannot lose its first four to finding it.
    """

    def __init__(self, device: torch.device, dtype: torch.dtype, *, initial_scale: float = 2.0**12) -> None:
        self.device, self.dtype = device, dtype
        enabled = dtype == torch.float16
        self.scaler = torch.amp.GradScaler(device.type, enabled=enabled, init_scale=initial_scale, growth_interval=200)

    def autocast(self) -> AbstractContextManager:
        """Matrix products in the compute dtype, everything delicate in fp32."""
        return torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32)

    def backward(self, loss: torch.Tensor) -> None:
        """Gradients of the loss, times the scale in fp16."""
        self.scaler.scale(loss).backward()

    def step(
        self, optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter], max_norm: float
    ) -> tuple[bool, float]:
        """Unscale, clip to `max_norm` (0: no clipping), step, and forget the gradients.

        Returns whether the weights moved, and the gradient norm before clipping. With inf or NaN in a gradient nothing
        moves, in any dtype.
        """
        self.scaler.unscale_(optimizer)
        norm = torch.nn.utils.clip_grad_norm_(parameters, max_norm or math.inf).item()
        stepped = math.isfinite(norm)
        if stepped or self.scaler.is_enabled():  # the scaler itself skips the step, and lowers its scale
            self.scaler.step(optimizer)
        self.scaler.update()
        optimizer.zero_grad(set_to_none=True)
        return stepped, norm


def what_overflowed(decoder: Decoder, window: list[Batch], precision: Precision) -> str:
    """A sentence that names where numbers left their range in a step that was skipped, for its log."""
    with precision.autocast():
        name = first_overflow(decoder, lambda: [decoder.hidden_states(b.input_ids, b.lengths) for b in window])
    where = f"the output of {name}" if name else "the gradients, not the activations,"
    return f"{where} left the range of {str(precision.dtype).removeprefix('torch.')}"


@torch.no_grad()
def first_overflow(network: nn.Module, forward) -> str | None:
    """Name of the first module whose output is not finite when `forward()` runs once more; None if all are.

    A module's hook runs after those of its children, so that the first one found is the innermost.
    """
    found: list[str] = []

    def watch(name: str):
        def hook(module, inputs, output) -> None:
            if not found and isinstance(output, torch.Tensor) and not torch.isfinite(output).all():
                found.append(name)

        return hook

    handles = [module.register_forward_hook(watch(name)) for name, module in network.named_modules()]
    try:
        forward()
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else None
