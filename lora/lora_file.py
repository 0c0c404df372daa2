"""A LoRA, rsLoRA or DoRA adapter in PEFT's format.

Checked against peft's LoraConfig, PeftModel.from_pretrained and save_pretrained in tests/parity/test_adapter.py.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import cast

import torch
from torch import nn

from common.console import UserError
from lora.adapter import Adapter, Method, linears
from lora.inject import make_lora
from lora.layer import LoRALinear
from lora.peft_format import INERT as INERT_IN_ALL
from lora.peft_format import prefixed_tensors, refuse_missing, refuse_unread, target_modules
from lora.targets import as_pattern, is_target

# The keys of adapter_config.json that this file reads …
READ = {
    "peft_type", "r", "lora_alpha", "lora_dropout", "rank_pattern", "alpha_pattern", "use_rslora", "use_dora",
    "target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "init_lora_weights",
}  # fmt: skip
# … and those that do not affect what the matrices compute. Any other key that is set is refused.
INERT = INERT_IN_ALL | {
    "megatron_core", "loftq_config", "corda_config", "eva_config", "lora_ga_config", "qalora_group_size",
    "velora_config",
}  # fmt: skip
# Initialisations that also change the base's weights: the matrices alone are not the whole adapter.
CHANGES_BASE = ("pissa", "olora", "corda", "lora_ga", "loftq")


def describe(adapter: Adapter) -> str:
    """The kind of adapter, its rank and alpha, and the layers that have one."""
    # all layers have the same kind; rank and alpha may differ by layer (--rank-pattern)
    layers = cast(dict[str, LoRALinear], adapter)
    first = next(iter(layers.values()))
    kind = ("rsLoRA" if first.rslora else "LoRA") + (" (DoRA)" if first.lora_magnitude_vector is not None else "")
    ranks, alphas = {layer.r for layer in layers.values()}, {layer.alpha for layer in layers.values()}
    names = " ".join(sorted({name.rpartition(".")[2] for name in layers}))
    return f"{kind} r={_range(ranks)} alpha={_range(alphas)} on {names}"


def _range(values: Collection[float]) -> str:
    return "-".join(f"{value:g}" for value in sorted({min(values), max(values)}))


def to_config(network: nn.Module, adapter: Adapter) -> dict:
    """All that PEFT needs to build the same layers."""
    # one rank and one alpha, and the layers that have others
    layers = cast(dict[str, LoRALinear], adapter)
    first = next(iter(layers.values()))
    rank, rank_pattern = as_pattern({name: layer.r for name, layer in layers.items()})
    alpha, alpha_pattern = as_pattern({name: whole(layer.alpha) for name, layer in layers.items()})
    return {
        "r": rank,
        "lora_alpha": alpha,
        "lora_dropout": first.dropout.p,
        "target_modules": target_modules(network, layers, linears(network)),
        "rank_pattern": rank_pattern,
        "alpha_pattern": alpha_pattern,
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "modules_to_save": None,
        "use_rslora": first.rslora,
        "use_dora": first.lora_magnitude_vector is not None,
    }


def from_config(network: nn.Module, config: dict, where: Path) -> Adapter:
    """Fresh layers, as adapter_config.json describes them."""
    refuse_unsupported(config, where)
    chosen = {
        "exclude": config.get("exclude_modules") or (),
        "layers": config.get("layers_to_transform"),
        "layers_pattern": config.get("layers_pattern"),
    }
    return make_lora(
        network,
        [name for name in linears(network) if is_target(name, config["target_modules"], **chosen)],
        r=config["r"],
        alpha=config["lora_alpha"],
        dropout=config.get("lora_dropout", 0.0),
        rank_pattern=config.get("rank_pattern") or {},
        alpha_pattern=config.get("alpha_pattern") or {},
        rslora=config.get("use_rslora", False),
        dora=config.get("use_dora", False),
    )


def refuse_unsupported(config: dict, where: Path | str) -> None:
    """UserError for the first setting of adapter_config.json that is not implemented, or is missing."""
    refuse_unread(config, READ | INERT, where)
    initialisation = str(config.get("init_lora_weights", True)).lower()
    if initialisation.startswith(CHANGES_BASE):
        raise UserError(
            f"{where}: adapter_config.json: init_lora_weights={initialisation!r} changed the base's weights too; "
            "convert it with peft (save_pretrained with path_initial_model_for_weight_conversion)"
        )
    refuse_missing(config, {"r": int, "lora_alpha": int | float, "target_modules": str | list}, where)


def to_tensors(adapter: Adapter) -> dict[str, torch.Tensor]:
    """lora_A.weight, lora_B.weight and lora_magnitude_vector of each layer."""
    return prefixed_tensors(adapter, "lora_")


def whole(alpha: float) -> int | float:
    """As an integer if it is one: PEFT declares alpha an int, but the alpha of a folded rsLoRA is fractional."""
    return int(alpha) if alpha == int(alpha) else alpha


LORA = Method(LoRALinear, describe, to_config, from_config, to_tensors)
