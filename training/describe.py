"""What a run prints at its start: the model and its adapter."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import nn

from lora.adapter_file import adapter_tensors
from lora.inject import Adapter, lora_layers, trainable
from lora.nf4 import NF4Weight


def describe_model(name: str, network: nn.Module, dtype: torch.dtype) -> str:
    """Two lines: the model, and its trainable parameters."""
    quantised = sum(module.shape.numel() for module in network.modules() if isinstance(module, NF4Weight))
    total = quantised + sum(parameter.numel() for parameter in network.parameters())
    learning = sum(parameter.numel() for _, parameter in trainable(network))
    layers = lora_layers(network)
    adapted = sum(tensor.numel() for tensor in adapter_tensors(layers).values())
    precision = str(dtype).removeprefix("torch.") + (f", {quantised / 1e6:.1f} M of them in NF4" if quantised else "")
    subject = f"adapter  {describe_adapter(layers)} · " if layers else "weights  "
    return (
        f"model    {name} · {(total - adapted) / 1e6:.1f} M parameters · {precision}\n"
        f"{subject}{learning / 1e6:.2f} M trainable ({100 * learning / total:.1f} %)"
    )


def describe_adapter(layers: Adapter) -> str:
    """The kind of adapter, its rank and alpha, and the layers that have one."""
    first = next(iter(layers.values()))
    kind = ("rsLoRA" if first.rslora else "LoRA") + (" (DoRA)" if first.lora_magnitude_vector is not None else "")
    ranks, alphas = {layer.r for layer in layers.values()}, {layer.alpha for layer in layers.values()}
    names = " ".join(sorted({name.rpartition(".")[2] for name in layers}))
    return f"{kind} r={_range(ranks)} alpha={_range(alphas)} on {names}"


def _range(values: Collection[float]) -> str:
    return "-".join(f"{value:g}" for value in sorted({min(values), max(values)}))
