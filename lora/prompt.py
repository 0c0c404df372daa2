"""Prompt tuning (Lester et al., arXiv:2104.08691): P learnt input vectors before every text.

    virtual tokens  e₁ e₂ ───────┐
                                 ├──> [e₁ e₂ a b c] ──> layers ──> [· · h_a h_b h_c] ──> head, loss
    a b c ──> embed_tokens ──────┘       0  1 2 3 4                    dropped
                                         positions

All layers read them like the embeddings of tokens. There is nothing to be learnt about them: they have no label, and
their hidden states are dropped. P · D numbers are all that is trained, fewer than in any other method here.

e is what the layers read, that is, *after* the scale by which Gemma multiplies its embeddings: PEFT, and transformers
from 5.0 on, see it so. It starts as the embeddings of a text's tokens, or at random.
"""

from __future__ import annotations

import torch
from torch import nn

from model.decoder import Decoder


class Prompt(nn.Module):
    """Stands at `model.prompt` of a decoder: the input vectors of `count` virtual tokens, in fp32."""

    def __init__(self, decoder: Decoder, count: int) -> None:
        """Random, as PEFT's RANDOM."""
        super().__init__()
        self.count = count
        width = decoder.config.hidden_size
        self.embedding = nn.Embedding(count, width, device=decoder.device, dtype=torch.float32)

    def forward(self) -> torch.Tensor:
        """[P, D] fp32."""
        return self.embedding.weight
