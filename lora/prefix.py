"""Prefix tuning (Li & Liang, arXiv:2101.00190; P-Tuning v2, 2110.07602): learnt keys and values before every text.

    keys and values of a layer       P = 2 virtual tokens ▨, in each of H_kv heads; they take the positions 0 … P - 1
              │
    ▨ ▨ a b c                        nothing is added to the text, whose positions begin at P: virtual tokens exist
    └───┬───┘                        inside attention alone
    a ■ ■ ■                          softmax(q [▨ ▨ a …]ᵀ) · [▨ ▨ a …]: one softmax over learnt and computed ones
    b ■ ■ ■ ■
    c ■ ■ ■ ■ ■                      the same ▨ before every document of a packed row, and before every row

A learnt key is neither normalised nor rotated. A sliding window, which counts back from each token, leaves it behind
like any other key. While answers are generated the prefix is stored once for all of them (model/cache.py).

While it is trained, the prefix may be made by an MLP (Li & Liang, section 4.3), which shares numbers between layers:

    E [P, H_kv · D] ─── W₁ ─── tanh ─── W₂ ──> [P, L · 2 · H_kv · D]

Its result alone is saved. All parameters are fp32, with the names and the layout of PEFT's PrefixEncoder, and are cast
where they meet the keys and values of the text.

Activation checkpointing recomputes a layer from its input and its part of the prefix, which are arguments. In peft the
prefix travels in the KV cache, which a layer extends, and a layer that is computed twice would extend it twice.
transformers takes the cache away from a checkpointed layer, and peft refuses the combination.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import nn

from lora.adapter import AdapterModule
from model.cache import KVCache
from model.decoder import Decoder
from model.virtual_tokens import VirtualTokens


class Prefix(AdapterModule, VirtualTokens):
    """Keys and values of `count` virtual tokens in each layer."""

    peft_type, place = "PREFIX_TUNING", "model.prefix"
    unmergeable = "a prefix is keys and values beside those of the text, which no weight of the network can hold"

    def __init__(self, decoder: Decoder, count: int, *, hidden: int = 0) -> None:
        """Random, as PEFT's. hidden: width of the MLP that makes the prefix while it is trained; 0: none."""
        super().__init__()
        config, like = decoder.config, {"device": decoder.device, "dtype": torch.float32}
        self.count, self.hidden = count, hidden
        self.shape = count, config.num_hidden_layers, 2, config.num_key_value_heads, config.head_dim

        # a row for each virtual token: all its keys and values, or what the MLP makes them from
        key_width = config.num_key_value_heads * config.head_dim
        all_layers = config.num_hidden_layers * 2 * key_width
        self.embedding = nn.Embedding(count, key_width if hidden else all_layers, **like)
        self.transform = None
        if hidden:
            inner, outer = nn.Linear(key_width, hidden, **like), nn.Linear(hidden, all_layers, **like)
            self.transform = nn.Sequential(inner, nn.Tanh(), outer)

    def forward(self) -> tuple[torch.Tensor, ...]:
        """Keys and values for each layer: [2, H_kv, P, D] fp32 each."""
        # an axis for each factor of [P, L · 2 · H_kv · D], then layers first: [L, 2, H_kv, P, D]
        return self.folded().view(self.shape).permute(1, 2, 3, 0, 4).unbind(0)

    def folded(self) -> torch.Tensor:
        """The prefix without its MLP, as it is saved: [P, L · 2 · H_kv · D] fp32."""
        rows = self.embedding.weight
        if self.transform is None:
            return rows
        # autocast would compute in half precision what the file holds in fp32
        with torch.autocast(rows.device.type, enabled=False):
            return self.transform(rows)

    @torch.no_grad()
    def start_as_text(self, decoder: Decoder, ids: list[int]) -> None:
        """Start from the keys and values that the base computes for P tokens (Li & Liang, section 7.4).

        Every text is then read as if these tokens preceded it: their keys are rotated by the positions 0 … P - 1,
        which are the prefix's.
        """
        assert len(ids) == self.count and not self.hidden
        recorder = _Recorder()
        decoder.hidden_states(torch.tensor([ids], device=decoder.device), [len(ids)], cast("KVCache", recorder))
        # [L, 2, H_kv, P, D] -> [P, L · 2 · H_kv · D]
        self.embedding.weight.copy_(torch.stack(recorder.layers).permute(3, 0, 1, 2, 4).flatten(1))

    def sizes(self) -> dict[str, int]:
        """What adapter_config.json records of the prefix and of the network that it is for."""
        count, layers, _, key_heads, head_dim = self.shape
        of_network = {"num_layers": layers, "num_attention_heads": key_heads, "token_dim": key_heads * head_dim}
        return {"num_virtual_tokens": count, "num_transformer_submodules": 1} | of_network


class _Recorder:
    """Takes a KV cache's place for one pass, and keeps what it is given to store."""

    def __init__(self) -> None:
        self.layers: list[torch.Tensor] = []

    def fill(self, layer: int, k: torch.Tensor, v: torch.Tensor) -> None:
        """k, v [1, H_kv, P, D] of the next layer."""
        self.layers.append(torch.cat((k, v)))
