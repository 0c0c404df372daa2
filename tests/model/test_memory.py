"""Freed memory is kept for reuse, and the peak is measured."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from common.console import UserError
from model.memory import free_memory

CPU = torch.device("cpu")
KEPT = """
import torch
from model.memory import held_memory, keep_freed_memory
cpu = torch.device("cpu")

def held_by_a_freed_tensor():
    before = held_memory(cpu)
    torch.ones(1 << 24)  # 64 MiB, freed at once
    return held_memory(cpu) - before

held_by_a_freed_tensor()  # warm-up: one-time allocations
returned = held_by_a_freed_tensor()
keep_freed_memory()
print(returned, held_by_a_freed_tensor())
"""
PEAK = """
import torch
from model.memory import free_memory, held_memory, peak_memory, reset_peak
cpu = torch.device("cpu")
reset_peak(cpu)
held = held_memory(cpu)
torch.ones(1 << 26)  # 256 MiB, freed at once
risen = peak_memory(cpu) - held
reset_peak(cpu)
print(risen, peak_memory(cpu) - held_memory(cpu), free_memory(cpu))
"""


def in_a_new_process(program: str) -> list[int]:
    """The numbers that the program prints, unaffected by memory that other tests have freed."""
    root = Path(__file__).resolve().parents[2]
    run = [sys.executable, "-c", program]
    return [int(n) for n in subprocess.run(run, check=True, capture_output=True, text=True, cwd=root).stdout.split()]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_freed_memory_stays_with_the_process():
    returned, kept = in_a_new_process(KEPT)
    assert returned < 8 << 20 and kept > 56 << 20


@pytest.mark.skipif(sys.platform != "linux", reason="read from Linux's /proc")
def test_the_peak_is_measured_from_its_reset():
    risen, after_reset, free = in_a_new_process(PEAK)
    assert 250 << 20 < risen < 400 << 20
    assert after_reset < 100 << 20
    assert 0 < free < 1 << 50


def test_fit_is_refused_where_free_memory_cannot_be_read(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(UserError, match="--fit: free memory is known on Linux only"):
        free_memory(CPU)
