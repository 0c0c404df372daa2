"""Prefix tuning (Li & Liang, arXiv:2101.00190; P-Tuning v2, arXiv:2110.07602): learnt keys and values before every text.

      keys and values of one layer         P = 2; H_kv heads of D numbers
                │
    ▨  ▨  a  b  c                          the weights of the network are frozen, and no token is added: its P virtual
    └──┬──┘                                tokens exist inside attention alone
    a  ■  ■  ■                             softmax(q [▨ ▨ a …]ᵀ) over learnt and real keys together
    b  ■  ■  ■  ■
    c  ■  ■  ■  ■  ■                       positions 0 … P - 1 are the prefix's, the text begins at P

A learnt key is neither normalised nor rotated. As transformers sees it, it is a token that was read before: a sliding
window, which counts back from each token, leaves it behind. The same in every document of a packed row, and stored once
for all rows while answers are generated (model/cache.py).

Training can make the prefix from fewer numbers (Li & Liang, section 4.3), which steadies it at high learning rates:

    E [P, H_kv · D]  ─── W₁ ─── tanh ─── W₂ ──>  [P, L · 2 · H_kv · D]

E, W₁ and W₂ are then what is trained. Only their result is saved, so a file does not tell. The parameters are fp32, have
the names and the layout of PEFT's PrefixEncoder, and are cast where they meet the keys and values of the text.

A checkpointed layer gets its keys and values as an argument, and recomputes from it like from its input. In peft they
travel in a KV cache that the layer appends to, so that recomputing would append twice: it refuses the combination.
"""

from __future__ import annotations

import torch
from torch import nn

from model.decoder import Decoder


class Prefix(nn.Module):
    """Stands at `model.prefix` of a decoder: keys and values of `count` virtual tokens in each layer."""

    def __init__(self, decoder: Decoder, count: int, *, hidden: int = 0) -> None:
        """hidden: width of the MLP that makes the prefix while it is trained; 0: none. As PEFT starts: random."""
        super().__init__()
        config, like = decoder.config, {"device": decoder.device, "dtype": torch.float32}
        self.count, self.hidden = count, hidden
        self.shape = count, config.num_hidden_layers, 2, config.num_key_value_heads, config.head_dim

        # one row for each virtual token: of all its keys and values, or of what the MLP makes them from
        key_width = config.num_key_value_heads * config.head_dim
        all_layers = config.num_hidden_layers * 2 * key_width
        self.embedding = nn.Embedding(count, key_width if hidden else all_layers, **like)
        self.transform = None
        if hidden:
            first, second = nn.Linear(key_width, hidden, **like), nn.Linear(hidden, all_layers, **like)
            self.transform = nn.Sequential(first, nn.Tanh(), second)

    def forward(self) -> tuple[torch.Tensor, ...]:
        """Keys and values of each layer: [2, H_kv, P, D] each, in fp32."""
        # [P, L · 2 · H_kv · D], then an axis for each: [L, 2, H_kv, P, D]
        return self.folded().view(self.shape).permute(1, 2, 3, 0, 4).unbind(0)

    def folded(self) -> torch.Tensor:
        """The prefix as it is saved, without the MLP: [P, L · 2 · H_kv · D] fp32."""
        flat = self.embedding.weight
        # autocast would round what the saved prefix, which has no MLP, holds in fp32
        with torch.autocast(flat.device.type, enabled=False):
            return flat if self.transform is None else self.transform(flat)


class _Recorder:
    """Takes the place of a KV cache in one pass, and keeps what it is given."""

    def __init__(self) -> None:
        self.layers: list[torch.Tensor] = []

    def fill(self, layer: int, k: torch.Tensor, v: torch.Tensor) -> None:
        """k, v [1, H_kv, P, D] of the next layer."""
        self.layers.append(torch.cat((k, v)))


@torch.no_grad()
def start_as_text(prefix: Prefix, decoder: Decoder, ids: list[int]) -> None:
    """Make the prefix what the base computes for P tokens: a text then reads as if they preceded it.

    Li & Liang, section 7.4. Their keys are rotated by their positions, 0 … P - 1, as those of a text are.
    """
    recorder = _Recorder()
    decoder.hidden_states(torch.tensor([ids], device=decoder.device), [len(ids)], recorder)
    # [L, 2, H_kv, P, D] -> [P, L · 2 · H_kv · D]
    prefix.embedding.weight.copy_(torch.stack(recorder.layers).permute(3, 0, 1, 2, 4).flatten(1))
