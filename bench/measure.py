"""How every comparison here is made: in turn, so that a machine that slows down slows both; the ratio from one run."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import torch

from model.files import write_json
from training.run import environment


def in_turn(ours: Callable[[], float], theirs: Callable[[], float], runs: int) -> tuple[list[float], list[float]]:
    """Call one after the other `runs` times, each side first every second time. Returns what they measured."""
    figures: tuple[list[float], list[float]] = ([], [])
    for run in range(runs):
        for side in (0, 1) if run % 2 == 0 else (1, 0):
            figures[side].append((ours, theirs)[side]())
    return figures


def row(name: str, unit: str, ours: list[float], theirs: list[float], *, note: str = "") -> dict:
    """One line of the result: medians, and their ratio as "how many times theirs"."""
    median_ours, median_theirs = statistics.median(ours), statistics.median(theirs)
    return {
        "name": name,
        "ours": median_ours,
        "theirs": median_theirs,
        "unit": unit,
        "ratio": median_ours / median_theirs,
        "runs": [{"ours": a, "theirs": b} for a, b in zip(ours, theirs, strict=True)],
        "note": note,
    }


def report(rows: list[dict], *, device: torch.device, dtype: torch.dtype, peers: list[str], out: Path | None) -> None:
    """Print the table, and write it with what it depends on."""
    for line in rows:
        spread = [run["ours"] / run["theirs"] for run in line["runs"]]
        print(
            f"{line['name']:44}  ours {line['ours']:8.1f}  theirs {line['theirs']:8.1f} {line['unit']:9}"
            f"  ratio {line['ratio']:.2f}  (each run: {', '.join(f'{ratio:.2f}' for ratio in spread)})"
            + (f"  {line['note']}" if line["note"] else "")
        )
    if out is not None:
        versions = {peer: version(peer) for peer in peers}
        write_json(out, {"rows": rows, "environment": environment(device, dtype) | versions})


class Memory:
    """What a process takes above what it has taken when this begins."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.before = self._bytes()
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        else:  # the highest resident size, counted from here on
            Path("/proc/self/clear_refs").write_text("5")

    def now(self) -> float:
        """GiB at this moment."""
        return (self._bytes() - self.before) / 2**30

    def peak(self) -> float:
        """GiB at the most."""
        if self.device.type == "cuda":
            return (torch.cuda.max_memory_allocated(self.device) - self.before) / 2**30
        return (_status("VmHWM") - self.before) / 2**30

    def _bytes(self) -> int:
        return torch.cuda.memory_allocated(self.device) if self.device.type == "cuda" else _status("VmRSS")


def _status(key: str) -> int:
    """Bytes, from the system's table of this process."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith(key + ":")))
