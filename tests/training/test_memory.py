"""What was freed is kept, and the peak is counted."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from common.console import UserError
from training.memory import free_memory

CPU = torch.device("cpu")
FAULTS = """
import resource, torch
from training.memory import keep_freed_memory

def faults():
    for _ in range(12):  # the first ones leave splinters between them
        torch.ones(1 << 24)  # 64 MiB
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        torch.ones(1 << 24)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

left = faults()
keep_freed_memory()
print(left, faults())
"""


PEAK = """
import torch
from training.memory import free_memory, held_memory, peak_memory, reset_peak
cpu = torch.device("cpu")
reset_peak(cpu)
held = held_memory(cpu)
torch.ones(1 << 26)  # 256 MiB, freed at once
risen = peak_memory(cpu) - held
reset_peak(cpu)
print(risen, peak_memory(cpu) - held_memory(cpu), free_memory(cpu))
"""


def in_a_new_process(program: str) -> list[int]:
    """The numbers that it prints; what other tests left freed and kept in this process cannot touch them."""
    root = Path(__file__).resolve().parents[2]
    run = [sys.executable, "-c", program]
    return [int(n) for n in subprocess.run(run, check=True, capture_output=True, text=True, cwd=root).stdout.split()]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_memory_that_was_freed_is_not_cleared_again():
    left, kept = in_a_new_process(FAULTS)
    assert kept < 100 < left


@pytest.mark.skipif(sys.platform != "linux", reason="read from Linux's /proc")
def test_the_peak_is_that_since_it_was_reset():
    risen, after_reset, free = in_a_new_process(PEAK)
    assert 250 << 20 < risen < 400 << 20
    assert after_reset < 100 << 20
    assert 0 < free < 1 << 50


def test_fit_is_refused_where_free_memory_cannot_be_read(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(UserError, match="--fit: free memory is known on Linux only"):
        free_memory(CPU)
