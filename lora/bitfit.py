"""BitFit (Ben Zaken et al., arXiv:2106.10199): the biases are trained, or the weights of the norms if there are none.

    a linear layer    x ── W ── + bias ── + b ── y      b  [out]   starts at 0
    a norm            x ── x / rms(x) ── · w ── y       w  [D]     starts as the norm's own weight

Of the published models of the families here only Qwen2's have biases, those of q, k and v. In the others the weights of
the norms are the only vectors: training these is what remains of the idea (LN tuning, arXiv:2312.11420), under its own
name in the output and in the file. Either way a fresh adapter changes nothing, and merging gives a plain network.

b and w are fp32. b is apart from the bias that it is added to: in half precision, Qwen2's biases of several hundred
would round small steps away. PEFT reads both: the biases as BEFT (src/peft/tuners/beft, since 0.20), the norms as
LN_TUNING.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from common.console import UserError
from lora.adapter import Adapter, AdapterModule, Method, linears, plain_modules
from lora.frozen_weight import QuantisedLinear, linear_layer, multiply
from lora.peft_format import INERT, prefixed_tensors, refuse_missing, refuse_unread, target_modules
from lora.targets import is_target
from model.linear import Projection
from model.norm import RMSNorm, rms_norm


class TunedBias(AdapterModule, Projection):
    """Replaces a linear layer with a bias under the same name: the same tensors, plus `beft_bias`."""

    peft_type = "BEFT"

    def __init__(self, base: nn.Linear | QuantisedLinear) -> None:
        super().__init__()
        assert base.bias is not None
        self.weight, self.bias = base.weight, base.bias
        self.beft_bias = nn.Parameter(torch.zeros(base.weight.shape[0], device=base.weight.device))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x [..., in] -> [..., out]."""
        y = multiply(x, self.weight, self.bias)
        return (y + self.beft_bias).to(y.dtype)

    def base(self) -> nn.Linear | QuantisedLinear:
        """The layer of W and bias."""
        return linear_layer(self.weight, self.bias)

    @torch.no_grad()
    def merged(self) -> nn.Linear | QuantisedLinear:
        """The layer of W and bias + b: added in fp32, cast once."""
        bias = (self.bias.float() + self.beft_bias).to(self.bias.dtype)
        return linear_layer(self.weight, nn.Parameter(bias, requires_grad=False))


class TunedNorm(AdapterModule):
    """Replaces an RMSNorm under the same name: its `weight` stays, `tuned` is used instead."""

    peft_type = "LN_TUNING"

    def __init__(self, base: RMSNorm) -> None:
        super().__init__()
        self.weight, self.eps, self.offset = base.weight, base.eps, base.offset
        self.tuned = nn.Parameter(base.weight.detach().float().clone())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., D] -> [..., D]."""
        return rms_norm(x, self.tuned + self.offset, self.eps, self.weight.dtype)

    def base(self) -> RMSNorm:
        """The norm of the untrained weight."""
        return self._norm(self.weight)

    @torch.no_grad()
    def merged(self) -> RMSNorm:
        """The norm of the trained weight, cast to the other's dtype."""
        return self._norm(nn.Parameter(self.tuned.to(self.weight.dtype), requires_grad=False))

    def _norm(self, weight: nn.Parameter) -> RMSNorm:
        norm = RMSNorm(len(weight), self.eps, self.offset)
        norm.weight = weight
        return norm


def make_bitfit(network: nn.Module) -> Adapter:
    """A fresh adapter, not yet in use: every bias or, in a network without any, every norm."""
    biased = {name: layer for name, layer in linears(network).items() if layer.bias is not None}
    if biased:
        return {name: TunedBias(layer) for name, layer in biased.items()}
    return {name: TunedNorm(norm) for name, norm in _norms(network).items()}


def _norms(network: nn.Module) -> dict[str, RMSNorm]:
    return {name: module for name, module in plain_modules(network).items() if isinstance(module, RMSNorm)}


def describe_biases(adapter: Adapter) -> str:
    """The layers whose biases are trained."""
    return f"BitFit, biases of {_last_names(adapter)}"


def describe_norms(adapter: Adapter) -> str:
    """The norms whose weights are trained."""
    return f"BitFit, weights of {_last_names(adapter)} (the model has no biases)"


def _last_names(adapter: Adapter) -> str:
    return " ".join(sorted({name.rpartition(".")[2] for name in adapter}))


def biases_to_config(network: nn.Module, adapter: Adapter) -> dict:
    """All that PEFT needs to build the same layers."""
    targets = target_modules(network, adapter, linears(network))
    return {"target_modules": targets, "init_weights": True, "modules_to_save": None}


def norms_to_config(network: nn.Module, adapter: Adapter) -> dict:
    """All that PEFT needs to build the same norms."""
    return {"target_modules": target_modules(network, adapter, _norms(network)), "modules_to_save": None}


def biases_from_config(network: nn.Module, config: dict, where: Path) -> Adapter:
    """Fresh layers, as adapter_config.json describes them."""
    chosen = _chosen(config, {"init_weights"}, list(linears(network)), where)
    without = [name for name, layer in linears(network).items() if name in chosen and layer.bias is None]
    if without:  # PEFT trains such a bias too, but no plain network of this family could have it
        raise UserError(f"{where}: it adds a bias to {without[0]}, which has none in this model; use it with peft")
    return {name: TunedBias(layer) for name, layer in linears(network).items() if name in chosen}


def norms_from_config(network: nn.Module, config: dict, where: Path) -> Adapter:
    """Fresh norms, as adapter_config.json describes them."""
    chosen = _chosen(config, set(), list(_norms(network)), where)
    return {name: TunedNorm(norm) for name, norm in _norms(network).items() if name in chosen}


def _chosen(config: dict, also_read: set[str], names: list[str], where: Path) -> set[str]:
    """Names that the configuration selects. UserError for a setting that is not implemented."""
    refuse_unread(config, also_read | {"peft_type", "target_modules", "exclude_modules"} | INERT, where)
    refuse_missing(config, {"target_modules": str | list}, where)
    exclude = config.get("exclude_modules") or ()
    return {name for name in names if is_target(name, config["target_modules"], exclude=exclude)}


def biases_to_tensors(adapter: Adapter) -> dict[str, torch.Tensor]:
    """beft_bias of each layer, in PEFT's shape: [1, out]."""
    return {key: bias.view(1, -1) for key, bias in prefixed_tensors(adapter, "beft_").items()}


def norms_to_tensors(adapter: Adapter) -> dict[str, torch.Tensor]:
    """The trained weight of each norm, under PEFT's name for it."""
    tuned = prefixed_tensors(adapter, "tuned")
    return {key.removesuffix("tuned") + "ln_tuning_layers.weight": tensor for key, tensor in tuned.items()}


BIASES = Method(TunedBias, describe_biases, biases_to_config, biases_from_config, biases_to_tensors)
NORMS = Method(TunedNorm, describe_norms, norms_to_config, norms_from_config, norms_to_tensors)
