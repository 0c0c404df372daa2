"""Which device, and which numbers its hardware multiplies itself.

fp16 and bf16 are decided by what the hardware does in silicon, not by what it accepts: a T4 (compute capability 7.5)
says yes to bf16 and emulates it many times slower.
"""

from __future__ import annotations

import re
import sys
import warnings
from functools import cache

import torch

from common.console import UserError

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def on_gpu(where: torch.Tensor | torch.device) -> bool:
    """Whether this is a GPU or a tensor on one. Code that computes another way there asks here, so that a test can walk
    that way on a CPU.
    """
    return (where if isinstance(where, torch.device) else where.device).type == "cuda"


def choose_device(wanted: str = "auto") -> torch.device:
    """cuda if there is a GPU, else the CPU, unless a device is named. A GPU that is named by number becomes the current
    one, where CUDA makes streams and events.

    Says on stderr, once a process, when "auto" means the CPU although PyTorch is built for CUDA. UserError for a device
    that is not there.
    """
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", wanted):
        raise UserError(f"--device {wanted}: not a device; give auto, cpu, cuda or cuda:N")
    if wanted == "cpu":
        return torch.device("cpu")
    complaint = _complaint()
    present = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not present and wanted == "auto":
        if torch.version.cuda:
            _say_once(f"computing on the CPU: {_why_no_gpu(complaint)}; --device cpu hides this line")
        return torch.device("cpu")
    device = torch.device("cuda" if wanted == "auto" else wanted)
    if not present:
        raise UserError(f"--device {wanted}: {_why_no_gpu(complaint)}; or use --device cpu")
    if device.index is not None:
        if device.index >= present:
            raise UserError(
                f"--device {wanted}: the last of {present} GPUs here is cuda:{present - 1}; use --device cuda"
            )
        torch.cuda.set_device(device)
    return device


def _why_no_gpu(complaint: str) -> str:
    """What kind of PyTorch this is, why it sees no GPU, and what to do."""
    if not torch.version.cuda:
        return "this PyTorch is built without CUDA; install one that has it (README, Which PyTorch)"
    why = f" ({complaint})" if complaint else ""
    return (
        f"this PyTorch is built for CUDA {torch.version.cuda} and sees no GPU{why}; if there is one, install a PyTorch "
        "built for a CUDA version that its driver supports, which nvidia-smi prints (README, Which PyTorch)"
    )


@cache
def _complaint() -> str:
    """What CUDA found wrong, in its words, such as a driver that is too old; PyTorch warns of it once a process."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.is_available()
    words = next((str(w.message) for w in caught if "CUDA" in str(w.message)), "").removeprefix("CUDA initialization: ")
    return re.split(r"\.\s+(?=[A-Z])", words)[0]  # the first sentence


@cache
def _say_once(text: str) -> None:
    print(f"tritune: {text}", file=sys.stderr)


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
