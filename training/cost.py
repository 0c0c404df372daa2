"""What a run cost, beside what it brought: parameters, bytes, seconds, memory, tokens."""

from __future__ import annotations

import statistics
from pathlib import Path

from torch import nn

from common.files import read_jsonl
from lora.adapter import trainable


def count_trainable(network: nn.Module) -> int:
    """The number of trainable parameters."""
    return sum(parameter.numel() for _, parameter in trainable(network))


def cost_of(folder: Path, trainable_parameters: int) -> dict[str, float]:
    """The cost of a finished run, from its files.

    Returns {"trainable_parameters", "file_bytes" (of the adapter, or of the whole model), "steps", "seconds_per_step"
    (median), "memory_gib" (peak), "tokens" and, of a causal LM, "supervised_tokens"}: the last four if a step was made.
    """
    weights = folder / "adapter" if (folder / "adapter").is_dir() else folder / "model"
    cost: dict[str, float] = {
        "trainable_parameters": trainable_parameters,
        "file_bytes": sum(file.stat().st_size for file in weights.glob("*.safetensors")),
    }
    steps = [row for row in read_jsonl(folder / "metrics.jsonl") if "loss" in row]
    cost["steps"] = len(steps)
    if not steps:
        return cost

    # the duration of a step is in its throughput: the clock in `seconds` starts again when a run is resumed
    cost["seconds_per_step"] = round(statistics.median(row["tokens"] / row["tokens_per_second"] for row in steps), 3)
    cost["memory_gib"] = max(row["memory_gib"] for row in steps)
    cost["tokens"] = sum(row["tokens"] for row in steps)
    if "supervised" in steps[0]:
        cost["supervised_tokens"] = sum(row["supervised"] for row in steps)
    return cost


def cost_line(cost: dict[str, float]) -> str:
    """One line for people."""
    parts = [f"{cost['trainable_parameters'] / 1e6:.2f} M trainable", f"{cost['file_bytes'] / 1e6:.1f} MB"]
    if "seconds_per_step" in cost:
        parts += [
            f"{cost['steps']:,} steps of {cost['seconds_per_step']:.2f} s",
            f"peak {cost['memory_gib']:.2f} GiB",
            f"{cost['tokens']:,} tokens",
        ]
    if "supervised_tokens" in cost:
        parts[-1] += f", {cost['supervised_tokens']:,} supervised"
    return " · ".join(parts)
