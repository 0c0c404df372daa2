"""How comparisons are made, and the options that the benches share.

The two sides take turns, so that a machine that slows down slows both alike.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar

import torch

from common.console import UserError
from common.files import write_json
from common.options import option
from eval.environment import environment
from model.memory import held_memory, peak_memory, reset_peak

Figures = TypeVar("Figures")


@dataclass(frozen=True, kw_only=True)
class ReportOptions:
    """Where the figures go."""

    out: Path | None = option(None, "JSON file to write", metavar="FILE")


@dataclass(frozen=True, kw_only=True)
class RunOptions(ReportOptions):
    """Of a comparison whose sides take turns."""

    runs: int = option(3, "runs of each side, in turn", least=1)


@dataclass(frozen=True, kw_only=True)
class DeviceOptions(ReportOptions):
    """Where to measure."""

    device: str = option("auto", "auto, cpu, cuda or cuda:N")
    seed: int = option(0, "seed of weights and data")


@dataclass(frozen=True, kw_only=True)
class GPUOptions(DeviceOptions):
    """Where to measure, or as on which GPU."""

    turing: bool = option(False, "restrict all sides to what a T4 has: its memory and its kernels")


def in_turn(
    ours: Callable[[], Figures], theirs: Callable[[], Figures], runs: int
) -> tuple[list[Figures], list[Figures]]:
    """Call both sides `runs` times, alternating which goes first. Returns what each measured."""
    figures: tuple[list[Figures], list[Figures]] = ([], [])
    for run in range(runs):
        for side in (0, 1) if run % 2 == 0 else (1, 0):
            figures[side].append((ours, theirs)[side]())
    return figures


def be_turing(device: torch.device) -> None:
    """Restrict this process to what a T4 offers: fp16, no flash, cuDNN or Triton kernels, 15 GB."""
    if device.type != "cuda":
        raise UserError("--turing restricts a GPU; this machine has none")
    torch.cuda.get_device_capability = lambda device=None: (7, 5)  # decides the dtype of both sides
    torch.backends.cuda.enable_flash_sdp(False)
    torch.backends.cuda.enable_cudnn_sdp(False)
    torch._inductor.config.max_autotune_gemm_backends = "ATEN"
    share = 15e9 / torch.cuda.mem_get_info(device)[1]
    torch.cuda.set_per_process_memory_fraction(min(1.0, share))  # of the current device: `device` may have no number


def row(name: str, unit: str, ours: list[float], theirs: list[float], *, note: str = "") -> dict:
    """One row of the result: medians, and ratio = ours ÷ theirs. `theirs` is empty without a peer."""
    median_ours, median_theirs = statistics.median(ours), statistics.median(theirs) if theirs else None
    return {
        "name": name,
        "ours": median_ours,
        "theirs": median_theirs,
        "unit": unit,
        "ratio": median_ours / median_theirs if theirs else None,
        "runs": [{"ours": a, "theirs": b} for a, b in zip(ours, theirs or [None] * len(ours), strict=True)],
        "note": note,
    }


def report(rows: list[dict], *, device: torch.device, dtype: torch.dtype, peers: list[str], out: Path | None) -> None:
    """Print the table, and write it to `out` with the environment and the versions of the peers."""
    for line in rows:
        shown = f"{line['name']:44}  ours {line['ours']:8.1f}"
        if line["theirs"] is None:
            shown += f" {line['unit']:9}"
        else:
            spread = ", ".join(f"{run['ours'] / run['theirs']:.2f}" for run in line["runs"])
            shown += f"  theirs {line['theirs']:8.1f} {line['unit']:9}  ratio {line['ratio']:.2f}  (each run: {spread})"
        print(shown + (f"  {line['note']}" if line["note"] else ""))
    if out is not None:
        versions = {peer: version(peer) for peer in peers}
        write_json(out, {"rows": rows, "environment": environment(device, dtype) | versions})


class Memory:
    """Memory above what was held when this was created, in GiB."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.before = device, held_memory(device)
        reset_peak(device)

    def now(self) -> float:
        """Held now."""
        return (held_memory(self.device) - self.before) / 2**30

    def peak(self) -> float:
        """Peak."""
        return (peak_memory(self.device) - self.before) / 2**30
