"""IA3 (Liu et al., arXiv:2205.05638): activations rescaled by trained vectors, and nothing else.

    k_proj, v_proj    x ──── W ── + bias ──( · l )── y          l  [out], of keys and of values
    down_proj         x ──( · l )── W ── + bias ─────── y       l  [in], of the MLP's hidden activations

    l starts at 1: a fresh adapter changes nothing. Folded in, it rescales the rows of W and the bias, or W's columns.

Three vectors a layer: a few ten-thousandths of the network. l is fp32, and so is its product, rounded once. Names and
defaults are those of PEFT (src/peft/tuners/ia3), in whose format it is written.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import cast

import torch
from torch import nn

from lora.adapter import Adapter, AdapterModule, Method, linears
from lora.frozen_weight import QuantisedLinear, linear_layer, multiply
from lora.peft_format import INERT, PREFIX, refuse_missing, refuse_unread, target_modules
from lora.quantised import dense
from lora.targets import is_target
from model.linear import Projection

# As in the paper, and in PEFT for Llama and Mistral. For other families PEFT rescales the queries, not the keys.
TARGETS = ("k_proj", "v_proj", "down_proj")
FEEDFORWARD = ("down_proj",)  # those of them whose input is rescaled
READ = {"peft_type", "target_modules", "feedforward_modules", "exclude_modules", "init_ia3_weights"}


class IA3Linear(AdapterModule, Projection):
    """Replaces a linear layer under the same name: the same `weight` and `bias` tensors, plus `ia3_l`."""

    peft_type = "IA3"

    def __init__(self, base: nn.Linear | QuantisedLinear, *, of_input: bool) -> None:
        super().__init__()
        self.weight, self.bias, self.of_input = base.weight, base.bias, of_input
        out_features, in_features = base.weight.shape
        self.ia3_l = nn.Parameter(torch.ones(in_features if of_input else out_features, device=base.weight.device))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x [..., in] -> [..., out]."""
        if self.of_input:
            return multiply((x * self.ia3_l).to(x.dtype), self.weight, self.bias)
        y = multiply(x, self.weight, self.bias)
        return (y * self.ia3_l).to(y.dtype)

    def as_matrix(self) -> torch.Tensor:
        """l in PEFT's shape, in which it rescales W's columns [1, in] or rows [out, 1]; not copied."""
        return self.ia3_l.detach().view((1, -1) if self.of_input else (-1, 1))

    def base(self) -> nn.Linear | QuantisedLinear:
        """The layer of W and bias."""
        return linear_layer(self.weight, self.bias)

    @torch.no_grad()
    def merged(self) -> nn.Linear | QuantisedLinear:
        """The layer of W · l and, if it is the output that l rescales, bias · l: in fp32, cast once."""
        weight = dense(self.weight).float() * self.as_matrix()
        bias = self.bias
        if bias is not None and not self.of_input:
            bias = nn.Parameter((bias.float() * self.ia3_l).to(bias.dtype), requires_grad=False)
        return linear_layer(nn.Parameter(weight.to(self.weight.dtype), requires_grad=False), bias)


def make_ia3(network: nn.Module, names: list[str], feedforward: list[str]) -> Adapter:
    """A fresh adapter for the linear layers `names`, not yet in use; of those in `feedforward` l rescales the input."""
    layers = linears(network)
    return {name: IA3Linear(layers[name], of_input=name in feedforward) for name in names}


def default_ia3(network: nn.Module) -> Adapter:
    """A fresh adapter for keys, values and the MLPs' hidden activations, as in the paper."""
    names = [name for name in linears(network) if is_target(name, TARGETS)]
    return make_ia3(network, names, [name for name in names if is_target(name, FEEDFORWARD)])


def describe(adapter: Adapter) -> str:
    """The layers whose output is rescaled, and those whose input is."""
    layers = cast(dict[str, IA3Linear], adapter)
    of_output, of_input = (
        " ".join(sorted({name.rpartition(".")[2] for name, layer in layers.items() if layer.of_input is side}))
        for side in (False, True)
    )
    return f"IA3 on {of_output or 'no outputs'}, inputs of {of_input or 'none'}"


def to_config(network: nn.Module, adapter: Adapter) -> dict:
    """All that PEFT needs to build the same layers."""
    layers = cast(dict[str, IA3Linear], adapter)
    of_input = [name for name, layer in layers.items() if layer.of_input]
    targets, feedforward = target_modules(network, layers, linears(network)), target_modules(network, of_input, layers)
    # PEFT asks for a subset: full names in one, last names in the other would be none
    if not set(feedforward) <= set(targets):
        targets, feedforward = sorted(layers), sorted(of_input)
    return {
        "target_modules": targets,
        "feedforward_modules": feedforward,
        "fan_in_fan_out": False,
        "init_ia3_weights": True,
        "modules_to_save": None,
    }


def from_config(network: nn.Module, config: dict, where: Path) -> Adapter:
    """Fresh layers, as adapter_config.json describes them."""
    refuse_unread(config, READ | INERT, where)
    refuse_missing(config, {"target_modules": str | list}, where)
    chosen = {"exclude": config.get("exclude_modules") or ()}
    names = [name for name in linears(network) if is_target(name, config["target_modules"], **chosen)]
    inputs = config.get("feedforward_modules") or []
    return make_ia3(network, names, [name for name in names if _is_feedforward(name, inputs)])


def _is_feedforward(name: str, wanted: str | list[str]) -> bool:
    """As PEFT matches it: without the dot that must precede the last part of a target's name."""
    return bool(re.fullmatch(wanted, name)) if isinstance(wanted, str) else name.endswith(tuple(wanted))


def to_tensors(adapter: Adapter) -> dict[str, torch.Tensor]:
    """ia3_l of each layer."""
    return {f"{PREFIX}{name}.ia3_l": layer.as_matrix() for name, layer in cast(dict[str, IA3Linear], adapter).items()}


IA3 = Method(IA3Linear, describe, to_config, from_config, to_tensors)
