"""Which device, and which numbers its hardware multiplies itself.

fp16 and bf16 are decided by what the hardware does in silicon, not by what it accepts: a T4 (compute capability 7.5)
says yes to bf16 and emulates it many times slower.
"""

from __future__ import annotations

import re

import torch

from model.console import UserError

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def choose_device(wanted: str = "auto") -> torch.device:
    """cuda where there is one, else the CPU, unless a device is named."""
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not re.fullmatch(r"cpu|cuda(:\d+)?", wanted):
        raise UserError(f"--device {wanted}: not a device; give auto, cpu, cuda or cuda:N")
    device = torch.device(wanted)
    present = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device.type == "cuda" and (device.index or 0) >= present:
        raise UserError(f"--device {wanted}: PyTorch sees no such CUDA device here; use --device cpu")
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
    return any(getattr(torch.cpu, name, bool)() for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
