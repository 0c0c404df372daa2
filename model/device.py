"""Choosing the device and a dtype that its hardware supports natively; modules that have shapes alone.

fp16 and bf16 are used only where the hardware computes them natively: a T4 (compute capability 7.5) accepts bf16 and
emulates it many times slower.
"""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import torch
from torch.overrides import TorchFunctionMode

from common.console import UserError

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def on_gpu(where: torch.Tensor | torch.device) -> bool:
    """Whether this is a GPU or a tensor on one. GPU-only paths branch here, so that tests can take them on a CPU."""
    return (where if isinstance(where, torch.device) else where.device).type == "cuda"


def choose_device(wanted: str = "auto") -> torch.device:
    """The named device; "auto": cuda if there is a GPU, else the CPU.

    A GPU given by number becomes the current device, on which CUDA creates streams and events. Prints to stderr, once
    per process, if "auto" falls back to the CPU with a CUDA build of PyTorch. UserError for a device that is not there.
    """
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", wanted):
        raise UserError(f"--device {wanted}: not a device; give auto, cpu, cuda or cuda:N")
    if wanted == "cpu":
        return torch.device("cpu")

    # CUDA's complaint first: PyTorch warns on the first call only
    complaint = _complaint()
    present = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not present and wanted == "auto":
        if torch.version.cuda:
            _say_once(f"using the CPU: {_why_no_gpu(complaint)}; --device cpu silences this message")
        return torch.device("cpu")

    # a GPU, which must be there
    device = torch.device("cuda" if wanted == "auto" else wanted)
    if not present:
        raise UserError(f"--device {wanted}: {_why_no_gpu(complaint)}; or use --device cpu")
    if device.index is not None:
        if device.index >= present:
            raise UserError(f"--device {wanted}: the last of {present} GPUs is cuda:{present - 1}; use --device cuda")
        torch.cuda.set_device(device)
    return device


def _why_no_gpu(complaint: str) -> str:
    """Which PyTorch build this is, why it finds no GPU, and what to do."""
    if not torch.version.cuda:
        return "this PyTorch is built without CUDA; install a CUDA build (README, Which PyTorch)"
    why = f" ({complaint})" if complaint else ""
    return (
        f"this PyTorch is built for CUDA {torch.version.cuda} and finds no GPU{why}; if there is one, install a build "
        "for a CUDA version that its driver supports (nvidia-smi prints it; README, Which PyTorch)"
    )


@cache
def _complaint() -> str:
    """CUDA's own reason, such as an outdated driver; PyTorch issues the warning once per process."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.is_available()
    words = next((str(w.message) for w in caught if "CUDA" in str(w.message)), "").removeprefix("CUDA initialization: ")
    return re.split(r"\.\s+(?=[A-Z])", words)[0]  # the first sentence


@cache
def _say_once(text: str) -> None:
    print(f"tritune: {text}", file=sys.stderr)


def choose_dtype(device: torch.device, wanted: str = "auto") -> torch.dtype:
    """The compute dtype: on CUDA bf16 from compute capability 8.0, fp16 below; on a CPU bf16 if that beats fp32.

    UserError for a dtype that the hardware would emulate.
    """
    if wanted not in ("auto", *DTYPES):
        raise UserError(f"--dtype {wanted}: give auto, {', '.join(DTYPES)}")
    # what the hardware computes itself; is_bf16_supported() is true on a T4, which emulates it
    if device.type == "cuda":
        has_bf16, has_fp16 = torch.cuda.get_device_capability(device) >= (8, 0), True
        best = torch.bfloat16 if has_bf16 else torch.float16  # bf16 has fp32's range and needs no loss scaling
    else:
        has_bf16, has_fp16 = cpu_has_bf16(), False
        best = torch.bfloat16 if cpu_is_faster_in_bf16() else torch.float32
    if wanted == "auto":
        return best
    if (wanted == "bf16" and not has_bf16) or (wanted == "fp16" and not has_fp16):
        raise UserError(f"--dtype {wanted}: this {device.type} device would only emulate it; use --dtype auto")
    return DTYPES[wanted]


def stored_dtype(config: dict, wanted: str = "auto") -> str:
    """The dtype to write weights in: `wanted` or, for "auto", what config.json names. A key of DTYPES, else fp32."""
    if wanted != "auto":
        return wanted
    named = config.get("dtype") or config.get("torch_dtype")  # the newer name, the older one
    return next((name for name, dtype in DTYPES.items() if str(dtype) == f"torch.{named}"), "fp32")


def cpu_has_bf16() -> bool:
    """Whether the CPU has native bf16 matrix products (AVX-512 BF16 or AMX)."""
    return any(getattr(torch.cpu, name, bool)() for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))


def cpu_is_faster_in_bf16() -> bool:
    """Whether the CPU multiplies faster in bf16 than in fp32: with AMX, or with AVX-512 BF16 unless it is Intel's.

    Without AMX, Intel's cores multiply bf16 at about half the rate of fp32 (bench/history.md).
    """
    if not cpu_has_bf16():
        return False
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    return capabilities.get("amx_tile", False) or "Intel" not in capabilities.get("cpu_name", "")


def available_memory() -> int | None:
    """Bytes of main memory that can be allocated without swapping; None where the system does not report them."""
    if sys.platform != "linux":
        return None
    lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith("MemAvailable:")))


@contextmanager
def shapes_alone() -> Iterator[None]:
    """Modules made here are on the meta device, without memory, and draw no initial values.

    To draw those of an embedding there, PyTorch would import its compiler: half of what a small model takes to load.
    """
    with torch.device("meta"), _NoInitialValues():
        yield


class _NoInitialValues(TorchFunctionMode):
    """torch.nn.init leaves every tensor as it is."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if getattr(func, "__module__", None) == "torch.nn.init":
            return kwargs["tensor"] if kwargs else args[0]
        return func(*args, **kwargs or {})
