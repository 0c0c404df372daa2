"""An adapter of every method, for the tests of what holds for all of them."""

from __future__ import annotations

import torch

from lora.adapter import Adapter, adapter_in_use, plain_modules, train_adapter, trainable
from lora.bitfit import TunedNorm, make_bitfit
from lora.bottleneck import make_bottleneck
from lora.ia3 import default_ia3
from lora.inject import DECODER_TARGETS, inject
from lora.prefix import Prefix
from lora.prompt import Prompt
from model.norm import RMSNorm


def _lora(network) -> None:
    inject(network, r=4, alpha=8, targets=DECODER_TARGETS)


def _norms(network) -> None:
    """BitFit, as in a family without biases."""
    norms = {name: module for name, module in plain_modules(network).items() if isinstance(module, RMSNorm)}
    train_adapter(network, {name: TunedNorm(norm) for name, norm in norms.items()})


METHODS = {
    "lora": _lora,
    "ia3": lambda network: train_adapter(network, default_ia3(network)),
    "bitfit": lambda network: train_adapter(network, make_bitfit(network)),
    "bitfit of norms": _norms,
    "houlsby": lambda net: train_adapter(net, make_bottleneck(net, placement="houlsby", reduction_factor=5)),
    "pfeiffer": lambda net: train_adapter(net, make_bottleneck(net, placement="pfeiffer", reduction_factor=8)),
    "prefix": lambda network: train_adapter(network, {Prefix.place: Prefix(network, 5)}),
    "prefix by an MLP": lambda network: train_adapter(network, {Prefix.place: Prefix(network, 5, hidden=7)}),
    "prompt": lambda network: train_adapter(network, {Prompt.place: Prompt(network, 5)}),
}
VIRTUAL = ("prefix", "prefix by an MLP", "prompt")  # a fresh one changes the network (test_virtual_tokens.py)
MERGEABLE = [method for method in METHODS if method not in ("houlsby", "pfeiffer", *VIRTUAL)]


def put_in(network, method: str) -> Adapter:
    """Freeze the network and use a fresh adapter."""
    METHODS[method](network)
    return adapter_in_use(network)


def stir(network, seed: int = 1, size: float = 0.1) -> None:
    """Change every trainable parameter, as some training would."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, parameter in trainable(network):
            parameter += size * torch.randn(parameter.shape, generator=generator)
