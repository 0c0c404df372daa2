"""LoRA (Hu et al., arXiv:2106.09685): a frozen linear layer with a trainable path of low rank beside it.

         ┌──────────── W  [out, in]   frozen, dense or quantised ──┐
    x ───┤                                                         + ───( · m / ‖W + s B A‖ )─── + bias ─── y
         └─ dropout ── A  [r, in] ── B  [out, r] ── · s ───────────┘       DoRA only
                       random        zero: a fresh adapter changes nothing

    s = alpha / r         LoRA
        alpha / sqrt(r)   rsLoRA (arXiv:2312.03732): the size of the update does not shrink as r grows
    m   [out]             DoRA (arXiv:2402.09353): the length of each row of the matrix, trained apart from its
                          direction; initially that of W. ‖·‖ is a constant to the gradient (section 4.3)

A, B and m are fp32 whatever W is. A and B are cast to the input's dtype where they are used; their gradients arrive in
fp32. The names of the parameters are those of PEFT's files.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F

from lora.adapter import AdapterModule
from lora.fast import gated_lora, joint_lora
from lora.frozen_weight import QuantisedLinear, linear_layer, multiply
from lora.quantised import dense
from model.fast import FastForm
from model.linear import Projection, activate


class LoRALinear(AdapterModule, Projection):
    """Replaces a linear layer under the same name: the same `weight` and `bias` tensors, plus `lora_A` and `lora_B`."""

    peft_type = "LORA"

    def __init__(
        self,
        base: nn.Linear | QuantisedLinear,
        *,
        r: int,
        alpha: float,
        dropout: float = 0.0,
        rslora: bool = False,
        dora: bool = False,
    ) -> None:
        super().__init__()
        # the frozen layer: the same tensors, not copies
        self.weight, self.bias = base.weight, base.bias

        # the factor of B A, and what it is made of, for the adapter's file
        self.r, self.alpha, self.rslora = r, alpha, rslora
        self.scale = alpha / math.sqrt(r) if rslora else alpha / r
        self.dropout = nn.Dropout(dropout)

        # A is random and B zero, so that B A is zero and A gets no gradient before B has moved
        out_features, in_features = base.weight.shape
        self.lora_A = nn.Linear(in_features, r, bias=False, device=base.weight.device, dtype=torch.float32)
        self.lora_B = nn.Linear(r, out_features, bias=False, device=base.weight.device, dtype=torch.float32)
        nn.init.kaiming_uniform_(self.lora_A.weight, a=math.sqrt(5))  # as PEFT does
        nn.init.zeros_(self.lora_B.weight)

        # m is the length of each row of W, as long as B A is zero
        self.lora_magnitude_vector = nn.Parameter(self._updated_weight().norm(dim=1)) if dora else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x [..., in] -> [..., out]."""
        # the frozen path: W x + bias
        plain = multiply(x, self.weight, self.bias)

        # the trainable path beside it: s B A x, [..., in] -> [..., r] -> [..., out]
        low_rank = F.linear(self.dropout(x), self.lora_A.weight.to(x.dtype))
        delta = self.scale * F.linear(low_rank, self.lora_B.weight.to(x.dtype))
        if self.lora_magnitude_vector is None:
            return plain + delta

        # DoRA: scale each row of W + s B A to length m; the bias is not scaled
        stretch = self.lora_magnitude_vector / self._updated_weight().norm(dim=1)  # [out], exactly 1 while fresh
        unbiased = plain if self.bias is None else plain - self.bias
        # as a change to `plain`, so that a fresh adapter leaves it the same to the last bit
        return plain + (stretch - 1).to(plain.dtype) * unbiased + stretch.to(plain.dtype) * delta

    def forward_with(self, x: torch.Tensor, *others: Projection) -> tuple[torch.Tensor, ...]:
        """This layer and others on the same input, by lora/fast.py while they train: x [..., in] -> [..., out] each."""
        # one product for all A, if every one of them is a LoRALinear that trains
        layers = [layer for layer in (self, *others) if isinstance(layer, LoRALinear)]
        if len(layers) == 1 + len(others) and all(layer.suits(joint_lora, Projection.forward_with) for layer in layers):
            return joint_lora(x, layers)
        return super().forward_with(x, *others)

    def forward_gated(self, gate: torch.Tensor, up: torch.Tensor, activation: str) -> torch.Tensor:
        """This layer on activation(gate) · up, by lora/fast.py while it trains: two of [..., in] -> [..., out]."""
        if self.suits(gated_lora, Projection.forward_gated, activate):
            return gated_lora(self, gate, up, activation)
        return super().forward_gated(gate, up, activation)

    def suits(self, form: FastForm, *plain) -> bool:
        """Whether this layer's part in `form` is what `forward` and the functions `plain` compute.

        Only with gradients: without them, forward hooks must see each layer (training/precision.py finds overflows so).
        """
        has_dropout = self.training and self.dropout.p > 0
        is_lora = self.lora_magnitude_vector is None and not has_dropout
        return torch.is_grad_enabled() and is_lora and form.fits(self.forward, *plain)

    def base(self) -> nn.Linear | QuantisedLinear:
        """The layer of W and bias."""
        return linear_layer(self.weight, self.bias)

    def merged(self) -> nn.Linear | QuantisedLinear:
        """The layer of the merged weight and bias."""
        return linear_layer(nn.Parameter(self.merged_weight(), requires_grad=False), self.bias)

    @torch.no_grad()
    def merged_weight(self) -> torch.Tensor:
        """W + s B A, its rows scaled to length m for DoRA: computed in fp32, cast once to W's dtype. [out, in]."""
        merged = self._updated_weight()
        # DoRA: the lengths that the rows of the sum have, against those that they should have
        if self.lora_magnitude_vector is not None:
            merged *= (self.lora_magnitude_vector / merged.norm(dim=1))[:, None]
        return merged.to(self.weight.dtype)

    @torch.no_grad()
    def _updated_weight(self) -> torch.Tensor:
        """W + s B A in fp32: [out, in]."""
        # autocast would multiply B A in half precision
        with torch.autocast(self.weight.device.type, enabled=False):
            return dense(self.weight).float() + self.scale * (self.lora_B.weight.float() @ self.lora_A.weight.float())
