"""What PEFT's adapters of all methods have in common: names of tensors, layers by name, settings that must be known.

PEFT wraps the network twice, so its names are ours behind a prefix:

    ours    model.layers.0.self_attn.q_proj.lora_A.weight
    PEFT's  base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from types import UnionType

import torch
from torch import nn

from common.console import UserError
from lora.adapter import Adapter
from model.encoder import Encoder

PREFIX = "base_model.model."

# Keys of adapter_config.json, of any method, that do not affect what the tensors compute.
INERT = {
    "task_type", "auto_mapping", "base_model_name_or_path", "inference_mode", "peft_version", "revision",
    "ensure_weight_tying", "runtime_config",
}  # fmt: skip


def prefixed_tensors(adapter: Adapter, start: str) -> dict[str, torch.Tensor]:
    """The tensors whose own name begins with `start`, under PEFT's names, not copied."""
    return {
        f"{PREFIX}{name}.{key}": tensor
        for name, module in adapter.items()
        for key, tensor in module.state_dict().items()
        if key.startswith(start)
    }


def target_modules(network: nn.Module, chosen: Collection[str], candidates: Collection[str]) -> list[str]:
    """Last names if, among the candidates, they identify the chosen modules exactly, else full names.

    An encoder always gets full names: other libraries' networks have a pooler with a `dense` layer, ours have not.
    """
    # exact if every candidate of such a name is chosen
    short = {name.rpartition(".")[2] for name in chosen}
    is_exact = all(name in chosen for name in candidates if name.rpartition(".")[2] in short)
    is_exact = is_exact and not isinstance(network, Encoder)
    return sorted(short if is_exact else chosen)


def refuse_unread(config: dict, known: Collection[str], where: Path | str) -> None:
    """UserError for a setting that is used and not known: it might change what the tensors compute."""
    for key, value in config.items():
        if key not in known and is_set(value):
            raise UserError(
                f"{where}: adapter_config.json: {key}={value!r} is not implemented; merge it with peft "
                "(merge_and_unload) and load the model"
            )


def refuse_missing(config: dict, required: dict[str, type | UnionType], where: Path | str) -> None:
    """UserError for a required setting that is missing, empty or of another type."""
    for key, kind in required.items():
        if not isinstance(config.get(key), kind) or not config[key]:
            raise UserError(f"{where}: adapter_config.json: {key} is {config.get(key)!r}; it is required")


def is_set(value) -> bool:
    """Whether a setting of adapter_config.json is used, in any of PEFT's ways of writing that it is not."""
    return value not in (None, False, {}, [], 0, "none")
