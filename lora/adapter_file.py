"""An adapter's file, in the format of PEFT: adapter_config.json and adapter_model.safetensors.

PEFT wraps the network twice, so its names are ours behind a prefix:

    ours    model.layers.0.self_attn.q_proj.lora_A.weight
    PEFT's  base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight
"""

from __future__ import annotations

from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import nn

from lora.inject import adapt, lora_layers
from lora.layer import LoRALinear
from model.console import UserError
from model.encoder import Encoder
from model.files import new_folder, read_json, write_json

PREFIX = "base_model.model."

# Keys of adapter_config.json that do not change what is computed from the two matrices.
INERT = {
    "auto_mapping", "base_model_name_or_path", "inference_mode", "init_lora_weights", "lora_dropout", "peft_type",
    "peft_version", "revision", "target_modules", "task_type", "r", "lora_alpha", "exclude_modules", "megatron_core",
    "ensure_weight_tying", "runtime_config", "loftq_config", "corda_config", "eva_config", "layers_to_transform",
    "layers_pattern", "qalora_group_size",
}  # fmt: skip


def save_adapter(network: nn.Module, folder: Path | str, *, base_model: str, task_type: str) -> None:
    """Write what was learnt, atomically.

    base_model  the name the base was loaded by, for the reader
    task_type   "CAUSAL_LM" or "FEATURE_EXTRACTION"
    """
    layers = lora_layers(network)
    first = next(iter(layers.values()))
    rank = first.lora_A.out_features
    tensors = {
        f"{PREFIX}{name}.{part}.weight": getattr(layer, part).weight.detach().cpu().contiguous()
        for name, layer in layers.items()
        for part in ("lora_A", "lora_B")
    }
    config = {
        "peft_type": "LORA",
        "task_type": task_type,
        "base_model_name_or_path": base_model,
        "r": rank,
        "lora_alpha": first.alpha,
        "lora_dropout": first.dropout.p,
        "target_modules": _target_modules(network, layers),
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "modules_to_save": None,
        "use_rslora": False,
        "use_dora": False,
    }
    with new_folder(folder) as target:
        safetensors.torch.save_file(tensors, target / "adapter_model.safetensors", metadata={"format": "pt"})
        write_json(target / "adapter_config.json", config)


def load_adapter(network: nn.Module, folder: Path | str) -> None:
    """Put a saved adapter into a network that carries none.

    The file's tensor names say which layers are adapted. UserError for anything else than plain LoRA, and for a name
    or a shape that does not fit the network.
    """
    folder = Path(folder)
    config = read_json(folder / "adapter_config.json")
    _refuse_unsupported(config, folder)
    if lora_layers(network):
        raise UserError("the network already carries an adapter; merge it or remove it first")
    try:
        tensors = safetensors.torch.load_file(folder / "adapter_model.safetensors")
    except (safetensors.SafetensorError, OSError) as error:
        raise UserError(f"{folder}/adapter_model.safetensors: not readable ({error})") from None
    pairs = _pairs(tensors, folder)
    linears = {name: module for name, module in network.named_modules() if isinstance(module, nn.Linear)}
    for name, (a, b) in pairs.items():
        fits = (
            name in linears
            and a.shape[1:] == linears[name].weight.shape[1:]
            and b.shape[:1] == linears[name].weight.shape[:1]
        )
        if not fits or a.shape[0] != config["r"] or b.shape[1] != config["r"]:
            raise UserError(f"{folder}: the adapter does not fit this model at {name}")
    for name, (a, b) in pairs.items():
        layer = adapt(network, name, r=config["r"], alpha=config["lora_alpha"], dropout=config.get("lora_dropout", 0.0))
        with torch.no_grad():
            layer.lora_A.weight.copy_(a)
            layer.lora_B.weight.copy_(b)


def _pairs(tensors: dict[str, torch.Tensor], folder: Path) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Layer name -> (A, B). A key that is no LoRA weight, or one without its partner, is an error."""
    parts: dict[str, dict[str, torch.Tensor]] = {}
    for key, tensor in tensors.items():
        name, _, part = key.removeprefix(PREFIX).removesuffix(".weight").rpartition(".")
        if not key.startswith(PREFIX) or part not in ("lora_A", "lora_B"):
            raise UserError(f"{folder}: tensor {key!r} is not known here")
        parts.setdefault(name, {})[part] = tensor
    for name, found in parts.items():
        if len(found) != 2:
            raise UserError(f"{folder}: {name} has only {', '.join(found)}")
    if not parts:
        raise UserError(f"{folder}: the adapter file is empty")
    return {name: (found["lora_A"], found["lora_B"]) for name, found in parts.items()}


def _refuse_unsupported(config: dict, folder: Path) -> None:
    if config.get("peft_type") != "LORA":
        raise UserError(f"{folder}: adapter type {config.get('peft_type')!r} is not supported, only LORA is")
    for key, value in config.items():
        if key not in INERT and value not in (None, False, {}, [], 0, "none"):
            raise UserError(f"{folder}: adapter_config.json: {key}={value!r} is not implemented")


def _target_modules(network: nn.Module, layers: dict[str, LoRALinear]) -> list[str]:
    """Last names when they say exactly which layers are adapted, whole names when they do not.

    An encoder always gets whole names: other libraries' networks have a pooler whose `dense` ours has not.
    """
    short = {name.rpartition(".")[2] for name in layers}
    linears = [name for name, module in network.named_modules() if isinstance(module, nn.Linear | LoRALinear)]
    is_exact = all(name in layers for name in linears if name.rpartition(".")[2] in short)
    is_exact = is_exact and not isinstance(network, Encoder)
    return sorted(short if is_exact else layers)
