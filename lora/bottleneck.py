"""Bottleneck adapters: a small network after the branches of a layer, or after the layer, with a residual around it.

    y ─┬─────────────────────────────────────────┬ + ── y'      down  [m, D]   random      m = D / reduction factor
       └─ down ── + ── f ── up ── + ─────────────┘              up    [D, m]   zero: a fresh adapter changes nothing

    houlsby    Houlsby et al. (arXiv:1902.00751): on each branch, before it is added to the residual stream
    pfeiffer   Pfeiffer et al. (arXiv:2005.00247): one a layer, on the residual stream after the MLP

               x ─┬─ norm ─ attention ─ A ─┬─ + ─┬─ norm ─ MLP ─ A ─┬─ + ─ x        A: houlsby
                  └────────────────────────┘     └──────────────────┘
               x ─┬─ norm ─ attention ─────┬─ + ─┬─ norm ─ MLP ─────┬─ + ─ A ─ x    A: pfeiffer
                  └────────────────────────┘     └──────────────────┘

The activation stands between the two matrices, so that no matrix of the network could take the adapter up: it is never
merged, and costs time at every token. Weights are fp32, cast to the input's dtype where they are used; the residual
stream is fp32, and so is the product with it. Places, initialisation and formulas are those of AdapterHub's library
`adapters`; lora/bottleneck_file.py reads and writes its files.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F

from common.console import UserError
from lora.adapter import Adapter, AdapterModule
from model.decoder import Decoder

# f, by AdapterHub's names; "gelu" is the exact one
ACTIVATIONS = {
    "relu": F.relu,
    "gelu": F.gelu,
    "gelu_new": lambda x: F.gelu(x, approximate="tanh"),
    "swish": F.silu,
    "silu": F.silu,
    "tanh": torch.tanh,
    "leakyrelu": F.leaky_relu,
}
PLACES = {"houlsby": ("attention_adapter", "mlp_adapter"), "pfeiffer": ("layer_adapter",)}  # of a layer of the decoder
DEFAULT_ACTIVATION = {"houlsby": "swish", "pfeiffer": "relu"}  # AdapterHub's


class Bottleneck(AdapterModule):
    """Takes a place that is empty in a plain network.

    reduction_factor  width / size of the bottleneck, which is at least 1
    label             a part of the tensors' names in AdapterHub's files
    """

    peft_type = "BOTTLENECK"  # not one of PEFT's
    unmergeable = "a bottleneck has an activation between its matrices, which no matrix of the network can take up"

    def __init__(
        self, width: int, reduction_factor: float, activation: str, *, device: torch.device, label: str = "tritune"
    ) -> None:
        super().__init__()
        self.reduction_factor, self.activation, self.label = reduction_factor, activation, label
        size = max(1, int(width // reduction_factor))
        self.down = nn.Linear(width, size, device=device, dtype=torch.float32)
        self.up = nn.Linear(size, width, device=device, dtype=torch.float32)
        # AdapterHub's "mam_adapter" (arXiv:2110.04366): up is zero, so that down gets no gradient before up has moved
        nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5))
        for zero in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(zero)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x [..., D] -> [..., D] in x's dtype: half precision on a branch, fp32 on the residual stream."""
        # autocast would round the residual stream, whose few huge channels leave fp16
        with torch.autocast(x.device.type, enabled=False):
            hidden = F.linear(x, self.down.weight.to(x.dtype), self.down.bias.to(x.dtype))  # [..., m]
            hidden = ACTIVATIONS[self.activation](hidden)
            return x + F.linear(hidden, self.up.weight.to(x.dtype), self.up.bias.to(x.dtype))


def make_bottleneck(
    decoder: nn.Module,
    *,
    placement: str,
    reduction_factor: float,
    activation: str | None = None,
    label: str = "tritune",
) -> Adapter:
    """A fresh adapter for every layer, not yet in use.

    placement         "houlsby" or "pfeiffer"
    reduction_factor  width of the network / size of the bottleneck
    activation        one of ACTIVATIONS (None: AdapterHub's default for the placement)

    Raises UserError for an encoder, and for pfeiffer in a family with a norm after each branch (Gemma 2 and 3), where
    AdapterHub's adapter computes something else.
    """
    if not isinstance(decoder, Decoder):
        raise UserError("a bottleneck adapter is for a causal LM; an encoder takes LoRA")
    if placement == "pfeiffer" and decoder.config.post_norms:
        raise UserError("this family has a norm after each branch: a bottleneck goes with --placement houlsby there")

    shape = decoder.config.hidden_size, reduction_factor, activation or DEFAULT_ACTIVATION[placement]
    return {
        f"model.layers.{layer}.{place}": Bottleneck(*shape, device=decoder.device, label=label)
        for layer in range(decoder.config.num_hidden_layers)
        for place in PLACES[placement]
    }
