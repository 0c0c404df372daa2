"""A bottleneck adapter in the format of AdapterHub's library `adapters`: theirs load here, and ours there.

    adapter_config.json     {"config": {"mh_adapter", "output_adapter", "reduction_factor", …}, "name", "model_type", …}
    adapter.safetensors     ours    model.layers.0.attention_adapter.down.weight
                            theirs  model.layers.0.attention_adapters.adapters.NAME.adapter_down.0.weight

Its `save_adapter` writes a pickle unless it is called with use_safetensors=True. PEFT has no bottleneck adapters.
Checked against `adapters` 1.3 in tests/parity/test_bottleneck.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import cast

import torch
from torch import nn

from common.console import UserError
from lora.adapter import Adapter, Method
from lora.bottleneck import ACTIVATIONS, Bottleneck, make_bottleneck
from lora.peft_format import is_set
from model.decoder import Decoder

FILE = "adapter.safetensors"
THEIR_PLACES = {
    "attention_adapter": "attention_adapters", "mlp_adapter": "output_adapters", "layer_adapter": "output_adapters",
}  # fmt: skip
THEIR_PARTS = {"down": "adapter_down.0", "up": "adapter_up"}

# What tells the two placements apart: AdapterHub's DoubleSeqBnConfig and SeqBnConfig.
PLACEMENTS = {
    "houlsby": {"mh_adapter": True, "output_adapter": True, "original_ln_before": False},
    "pfeiffer": {"mh_adapter": False, "output_adapter": True, "original_ln_before": True},
}
# The settings of both, with the only value that is implemented.
IN_BOTH = {"original_ln_after": True, "residual_before_ln": True, "scaling": 1.0}
# They do not affect what the tensors compute, or only with a setting that is refused.
INERT = {
    "init_weights", "init_weights_seed", "adapter_residual_before_ln", "inv_adapter_reduction_factor", "phm_dim",
    "factorized_phm_W", "shared_W_phm", "shared_phm_rule", "factorized_phm_rule", "phm_c_init", "phm_init_range",
    "learn_phm", "hypercomplex_nonlinearity", "phm_rank", "phm_bias", "dropout",
}  # fmt: skip


def describe(adapter: Adapter) -> str:
    """Placement, size and activation."""
    first = cast(Bottleneck, next(iter(adapter.values())))
    return f"bottleneck ({_placement(adapter)}) of {first.down.out_features}, {first.activation}"


def _placement(adapter: Adapter) -> str:
    return "pfeiffer" if next(iter(adapter)).endswith("layer_adapter") else "houlsby"


def to_config(network: nn.Module, adapter: Adapter) -> dict:
    """All that `adapters` needs to build the same modules."""
    first, raw = cast(Bottleneck, next(iter(adapter.values()))), cast(Decoder, network).config.raw
    placement = _placement(adapter)
    return {
        "config": PLACEMENTS[placement] | IN_BOTH | {
            "reduction_factor": first.reduction_factor,
            "non_linearity": first.activation,
            "init_weights": "mam_adapter",
        },
        "name": first.label,
        "hidden_size": first.down.in_features,
        "model_type": raw.get("model_type"),
        "model_class": (raw.get("architectures") or [None])[0],
        "model_name": None,
        "version": "adapters.1.3.0",
    }  # fmt: skip


def from_config(network: nn.Module, config: dict, where: Path) -> Adapter:
    """Fresh modules, as adapter_config.json describes them."""
    # which of the two placements, if either
    settings, label = config.get("config"), config.get("name")
    if not isinstance(settings, dict) or not isinstance(label, str):
        raise UserError(f'{where}: adapter_config.json: "config" and "name" are required')
    settings = {"original_ln_before": False} | settings  # its default
    placement = next((name for name, needs in PLACEMENTS.items() if needs.items() <= settings.items()), None)
    if placement is None:
        given = {name: settings.get(name) for name in PLACEMENTS["houlsby"]}
        raise UserError(f"{where}: adapter_config.json: {given} is not implemented; Houlsby's and Pfeiffer's are")

    # anything else that changes the arithmetic
    read = {"reduction_factor", "non_linearity"} | PLACEMENTS[placement].keys()
    for name, value in settings.items():
        supported = value == IN_BOTH[name] if name in IN_BOTH else name in read | INERT or not is_set(value)
        if not supported:
            raise UserError(f"{where}: adapter_config.json: {name}={value!r} is not implemented")
    factor, activation = settings.get("reduction_factor"), settings.get("non_linearity")
    if not isinstance(factor, int | float) or factor <= 0:
        raise UserError(f"{where}: adapter_config.json: reduction_factor={factor!r}: only one for all layers is read")
    if activation not in ACTIVATIONS:
        known = ", ".join(ACTIVATIONS)
        raise UserError(f"{where}: adapter_config.json: non_linearity={activation!r} is not one of {known}")
    return make_bottleneck(network, placement=placement, reduction_factor=factor, activation=activation, label=label)


def to_tensors(adapter: Adapter) -> dict[str, torch.Tensor]:
    """Weights and biases of each module, under AdapterHub's names."""
    tensors = {}
    for name, module in adapter.items():
        owner, _, place = name.rpartition(".")
        for key, tensor in module.state_dict().items():
            part, _, attribute = key.partition(".")
            path = f"{owner}.{THEIR_PLACES[place]}.adapters.{cast(Bottleneck, module).label}"
            tensors[f"{path}.{THEIR_PARTS[part]}.{attribute}"] = tensor
    return tensors


BOTTLENECK = Method(Bottleneck, describe, to_config, from_config, to_tensors, file=FILE)
