"""Prompt tuning (Lester et al., arXiv:2104.08691): P learnt input vectors before every text.

    ▨ ▨ (fp32, [P, D]) ─────┐                                 P = 2
                            ├──> ▨ ▨ a b c ──> layers ──> · · h_a h_b h_c ──> head, loss
    a b c ──> embed_tokens ─┘    0 1 2 3 4                └ dropped
                                 positions

All layers read them like the embeddings of tokens, and the text begins at position P. There is nothing to predict at a
virtual token: it has no label, and its hidden state is dropped. P · D numbers are trained.

A vector is what the layers read: Gemma's scale, which belongs to its embeddings, is not applied to it. It is the same
in peft with transformers 5.24; with 4.x, Gemma 1 and 2 multiplied learnt vectors as well.
"""

from __future__ import annotations

import torch
from torch import nn

from lora.adapter import AdapterModule
from model.decoder import Decoder
from model.virtual_tokens import VirtualTokens


class Prompt(AdapterModule, VirtualTokens):
    """The input vectors of `count` virtual tokens."""

    peft_type, place = "PROMPT_TUNING", "model.prompt"
    unmergeable = "a learnt prompt is input vectors before the text, which no weight of the network can hold"

    def __init__(self, decoder: Decoder, count: int) -> None:
        """Random, as PEFT's."""
        super().__init__()
        self.count, self.layers = count, decoder.config.num_hidden_layers
        self.heads, width = decoder.config.num_attention_heads, decoder.config.hidden_size
        self.embedding = nn.Embedding(count, width, device=decoder.device, dtype=torch.float32)

    def forward(self) -> torch.Tensor:
        """[P, D] fp32."""
        return self.embedding.weight

    def folded(self) -> torch.Tensor:
        """The prompt as it is saved: [P, D] fp32."""
        return self.embedding.weight

    @torch.no_grad()
    def start_as_text(self, decoder: Decoder, ids: list[int]) -> None:
        """Start from the embeddings of P tokens: every text is then read as if these preceded it."""
        assert len(ids) == self.count
        self.embedding.weight.copy_(decoder.model.embedded(torch.tensor(ids, device=decoder.device)))

    def sizes(self) -> dict[str, int]:
        """What adapter_config.json records of the prompt and of the network that it is for."""
        of_network = {
            "num_layers": self.layers, "num_attention_heads": self.heads, "token_dim": self.embedding.embedding_dim
        }  # fmt: skip
        return {"num_virtual_tokens": self.count, "num_transformer_submodules": 1} | of_network
