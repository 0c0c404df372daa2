"""Free, held and peak memory of a GPU or a process, and reuse of freed memory between steps."""

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
    """Make glibc keep the memory that a step frees, for the next one. Does nothing with another C library.

    By default it returns large blocks to the system, which zeroes every page before handing it out again: a sixth of a
    training step on a CPU. Peak memory is unchanged, but memory does not fall between steps.
    """
    trim_threshold, mmap_threshold = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h
    with contextlib.suppress(AttributeError, OSError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(trim_threshold, 2**31 - 1)
        mallopt(mmap_threshold, 2**30)


def peak_memory(device: torch.device) -> int:
    """Peak bytes since the start or `reset_peak`: of tensors on a GPU, of the whole process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    # high-water mark of the resident memory
    if sys.platform == "linux":
        return _status("VmHWM")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # never falls: `reset_peak` does nothing


def held_memory(device: torch.device) -> int:
    """Bytes held now: by tensors on a GPU, by the whole process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    return _status("VmRSS") if sys.platform == "linux" else peak_memory(device)


def reset_peak(device: torch.device) -> None:
    """Measure the peak from here on."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif sys.platform == "linux":
        # 5: resets the high-water mark of this process (proc(5))
        Path("/proc/self/clear_refs").write_text("5")


def release_memory(device: torch.device) -> None:
    """Release memory that no tensor uses. Call it outside `except`: an exception's frames keep their tensors alive."""
    gc.collect()  # a traceback may be part of a reference cycle
    if device.type == "cuda":
        torch.cuda.empty_cache()


def free_memory(device: torch.device) -> int:
    """Bytes that can be allocated without swapping. UserError on a CPU whose system does not report it."""
    if device.type == "cuda":
        # PyTorch's own cache counts as free: it is reused before the driver is asked
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + cached
    if sys.platform == "linux":
        return _table("/proc/meminfo", "MemAvailable")
    raise UserError("--fit: free memory is known on Linux only; give --micro-batch and --checkpointing instead")


def _status(key: str) -> int:
    return _table("/proc/self/status", key)


def _table(path: str, key: str) -> int:
    # "VmRSS:     123456 kB"
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith(key + ":")))
