"""What was freed is kept, and the peak is counted."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from model.console import UserError
from training.memory import free_memory, held_memory, peak_memory, reset_peak

CPU = torch.device("cpu")
FAULTS = """
import resource, sys, torch
from training.memory import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
for _ in range(12):  # the first ones leave splinters between them
    torch.ones(1 << 24)  # 64 MiB
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    torch.ones(1 << 24)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_memory_that_was_freed_is_not_cleared_again():
    faults = {
        kind: int(
            subprocess.run(
                [sys.executable, "-c", FAULTS, kind], check=True, capture_output=True, text=True,
                cwd=Path(__file__).resolve().parents[2],
            ).stdout
        )
        for kind in ("keep", "leave")
    }  # fmt: skip
    assert faults["keep"] < 100 < faults["leave"]


@pytest.mark.skipif(sys.platform != "linux", reason="read from Linux's /proc")
def test_the_peak_is_that_since_it_was_reset():
    reset_peak(CPU)
    held = held_memory(CPU)
    torch.ones(1 << 26)  # 256 MiB, freed at once
    assert 250 << 20 < peak_memory(CPU) - held < 400 << 20
    reset_peak(CPU)
    assert peak_memory(CPU) - held_memory(CPU) < 100 << 20
    assert 0 < free_memory(CPU) < 1 << 50


def test_fit_is_refused_where_free_memory_cannot_be_read(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(UserError, match="--fit: only Linux tells"):
        free_memory(CPU)
