"""Mixed precision: matrix products in the compute dtype, trainable weights and everything delicate in fp32.

Frozen weights are stored in the compute dtype (model/device.py chooses it), trainable ones in fp32 and cast where they
are used. Layers that overflow fp16 are computed in fp32: training/overflow.py.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import nn

from lora.adapter import adapter_in_use
from model.decoder import Decoder
from training.parallel import clip_gradients


class Precision:
    """Autocast and, in fp16, a dynamic loss scale.

    The scale starts at 2^12 instead of PyTorch's 2^16: a run of fifty steps cannot afford to skip its first four.
    """

    def __init__(self, device: torch.device, dtype: torch.dtype, *, initial_scale: float = 2.0**12) -> None:
        self.device, self.dtype = device, dtype
        enabled = dtype == torch.float16  # bf16 has the exponent range of fp32: nothing underflows
        self.scaler = torch.amp.GradScaler(device.type, enabled=enabled, init_scale=initial_scale, growth_interval=200)
        self.fp32_modules: list[str] = []  # names of decoder modules computed in fp32

    @property
    def scale(self) -> float:
        """The loss scale; 1 without scaling."""
        return self.scaler.get_scale()

    # ── the forward pass ──

    def autocast(self) -> AbstractContextManager:
        """Matrix products in the compute dtype. Wrap it around the forward pass only: backward follows its dtypes.

        The cache is off: with it, cast weights live until the outermost block ends, so an optimiser step inside that
        block would be missed. Each weight is cast once per pass in any case.
        """
        enabled = self.dtype != torch.float32
        return torch.autocast(self.device.type, dtype=self.dtype, enabled=enabled, cache_enabled=False)

    @contextmanager
    def as_loaded(self, decoder: Decoder) -> Iterator[None]:
        """Inside the block the decoder computes what it would after being saved and loaded in the compute dtype.

        Trainable fp32 weights (--method full) are rounded to the compute dtype and restored afterwards. Modules kept in
        fp32 are left as they are, and so is an adapter, whose base is in the compute dtype already.
        """
        # parameters that stay in fp32: layers that overflowed, the adapter
        kept = [decoder.get_submodule(name) for name in self.fp32_modules] + list(adapter_in_use(decoder).values())
        stays = {parameter for module in kept for parameter in module.parameters()}

        # all others are rounded for the duration of the block; their fp32 master weights are kept
        masters = {p: p.data for p in decoder.parameters() if p.is_floating_point() and p not in stays}
        for parameter, master in masters.items():
            parameter.data = master.to(self.dtype)
        try:
            yield
        finally:
            for parameter, master in masters.items():
                parameter.data = master

    # ── the backward pass and the step ──

    def backward(self, loss: torch.Tensor) -> None:
        """Accumulate gradients of the loss, multiplied by the loss scale in fp16."""
        self.scaler.scale(loss).backward()

    def step(
        self, optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter], max_norm: float
    ) -> tuple[bool, float]:
        """Unscale, clip to `max_norm` (0: no clipping), update the weights, clear the gradients.

        Returns whether the weights were updated, and the gradient norm before clipping. A gradient with inf or NaN
        updates nothing, in any dtype.
        """
        self.scaler.unscale_(optimizer)
        norm = clip_gradients(parameters, max_norm or math.inf).item()  # the host waits for the device here
        stepped = math.isfinite(norm)
        if stepped:
            self.scaler.step(optimizer)
        self.scaler.update()  # lowers the scale after an overflow, which unscale_ has recorded
        optimizer.zero_grad(set_to_none=True)
        return stepped, norm
