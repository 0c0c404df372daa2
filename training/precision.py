"""Which numbers are computed in which dtype, and the AMP step around them.

fp16 and bf16 are decided by what the hardware does in silicon, not by what it accepts: a T4 (compute capability 7.5)
says yes to bf16 and emulates it many times slower. What learns is always fp32; frozen weights are kept in the
compute dtype.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager

import torch
from torch import nn

from model.console import UserError

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def choose_device(wanted: str = "auto") -> torch.device:
    """cuda where there is one, else the CPU, unless a device is named."""
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(wanted)
    except RuntimeError:
        raise UserError(f"--device {wanted}: not a device; give auto, cpu, cuda or cuda:N") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"--device {wanted}: PyTorch sees no CUDA device here; use --device cpu")
    return device


def choose_dtype(device: torch.device, wanted: str = "auto") -> torch.dtype:
    """The compute dtype: on CUDA bf16 from compute capability 8.0 on, fp16 below; on a CPU bf16 where it has the
    instructions, else fp32. A dtype that the hardware would emulate is refused.
    """
    if wanted not in ("auto", *DTYPES):
        raise UserError(f"--dtype {wanted}: give auto, {', '.join(DTYPES)}")
    if device.type == "cuda":
        has_bf16, has_fp16 = torch.cuda.get_device_capability(device) >= (8, 0), True
    else:
        has_bf16, has_fp16 = cpu_has_bf16(), False
    if wanted == "auto":
        return torch.bfloat16 if has_bf16 else torch.float16 if has_fp16 else torch.float32
    if (wanted == "bf16" and not has_bf16) or (wanted == "fp16" and not has_fp16):
        raise UserError(f"--dtype {wanted}: this {device.type} device would only emulate it; use --dtype auto")
    return DTYPES[wanted]


def cpu_has_bf16() -> bool:
    """Whether the processor multiplies bf16 matrices itself (AVX-512 BF16 or AMX)."""
    return any(
        getattr(torch.cpu, name, bool)() for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    )


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

    def step(self, optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter], max_norm: float) -> tuple[bool, float]:
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


@torch.no_grad()
def first_overflow(network: nn.Module, forward) -> str | None:
    """Name of the first module whose output is not finite when `forward()` runs once more; None if all are.

    Called after a skipped step, so that the cause has a name: `--dtype fp32`, or keeping that module in fp32, mends it.
    """
    found: list[str] = []

    def watch(name: str):
        def hook(module, inputs, output) -> None:
            if not found and isinstance(output, torch.Tensor) and not torch.isfinite(output).all():
                found.append(name)

        return hook

    leaves = [(name, module) for name, module in network.named_modules() if name and not list(module.children())]
    handles = [module.register_forward_hook(watch(name)) for name, module in leaves]
    try:
        forward()
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else None
