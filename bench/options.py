"""Options that the benches share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from common.options import option


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
