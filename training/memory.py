"""How much memory there is, how much was taken at most, and keeping what was freed for the next step."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import resource
import sys
from pathlib import Path

import torch

from common.console import UserError


def keep_freed_memory() -> None:
    """Let the C library keep what a step frees, for the next one; where it is not glibc, nothing happens.

    It would give large pieces back to the system, which clears each page before it is given anew: a sixth of a training
    step on a CPU. The peak stays what it is, but memory does not fall between the steps.
    """
    trim_threshold, mmap_threshold = -1, -3  # as malloc.h numbers them
    with contextlib.suppress(AttributeError, OSError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(trim_threshold, 2**31 - 1)
        mallopt(mmap_threshold, 2**30)


def peak_memory(device: torch.device) -> int:
    """Bytes held at most since the start or `reset_peak`: by tensors on a GPU, by the whole process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "linux":
        return _status("VmHWM")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # never falls: `reset_peak` does nothing


def held_memory(device: torch.device) -> int:
    """Bytes held now."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    return _status("VmRSS") if sys.platform == "linux" else peak_memory(device)


def reset_peak(device: torch.device) -> None:
    """Count the peak from here on."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif sys.platform == "linux":
        Path("/proc/self/clear_refs").write_text("5")


def release_memory(device: torch.device) -> None:
    """Give back to the device what no tensor uses any more. An exception that still is at hand keeps its frames'."""
    gc.collect()  # a traceback may be part of a circle
    if device.type == "cuda":
        torch.cuda.empty_cache()


def free_memory(device: torch.device) -> int:
    """Bytes that could still be taken without pushing anything out. UserError where a CPU's system does not tell."""
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + cached
    if sys.platform == "linux":
        return _table("/proc/meminfo", "MemAvailable")
    raise UserError("--fit: only Linux tells how much memory is free beside a CPU; give --micro-batch, --checkpointing")


def _status(key: str) -> int:
    return _table("/proc/self/status", key)


def _table(path: str, key: str) -> int:
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith(key + ":")))
