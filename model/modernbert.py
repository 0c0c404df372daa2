"""The network of ModernBERT (arXiv:2412.13663): BERT with what decoders have since introduced.

    ids ─ embed ─ norm ─┬─ norm ─ attention ─┬─ + ─ norm ─ GeGLU ─┬─ + … norm ─ hidden states
                        └────────────────────┘ └──────────────────┘

Rotary positions instead of learnt ones, pre-norm instead of post-norm, and a sliding window in two of three layers: a
token attends to its neighbours there, and to the whole text in every third layer. Module names are those of Hugging
Face's ModernBertModel; checked against transformers' modeling_modernbert.py in tests/parity.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from model.attention import document_attention
from model.encoder_config import ModernBertConfig
from model.linear import Linear
from model.rope import rope_cos_sin, rotate


def _norm(config: ModernBertConfig) -> nn.LayerNorm:
    return nn.LayerNorm(config.hidden_size, eps=config.norm_eps, bias=config.norm_bias)


class Embeddings(nn.Module):
    """Word embeddings, normalised; positions enter with the rotations of each layer."""

    def __init__(self, config: ModernBertConfig) -> None:
        super().__init__()
        self.tok_embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.norm = _norm(config)
        self.drop = nn.Dropout(config.embedding_dropout)

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        """[B, T] -> [B, T, D]."""
        return self.drop(self.norm(self.tok_embeddings(input_ids)))


class Attention(nn.Module):
    """Bidirectional multi-head attention inside each text, or inside a window of it."""

    def __init__(self, config: ModernBertConfig, window: int | None) -> None:
        super().__init__()
        self.heads, self.window, self.dropout = config.num_attention_heads, window, config.attention_dropout
        self.Wqkv = Linear(config.hidden_size, 3 * config.hidden_size, bias=config.attention_bias)
        self.Wo = Linear(config.hidden_size, config.hidden_size, bias=config.attention_bias)
        self.out_drop = nn.Dropout(config.attention_dropout)

    def forward(self, x: torch.Tensor, rope, lengths: list[int] | None) -> torch.Tensor:
        """x [B, T, D] -> [B, T, D]."""
        # one product for q, k and v, split into heads: [B, H, T, D_head] each
        q, k, v = self.Wqkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        q, k = rotate(q, *rope), rotate(k, *rope)

        # attend in both directions, inside the window if the layer has one; join the heads
        dropout = self.dropout if self.training else 0.0
        out = document_attention(q, k, v, lengths, causal=False, dropout=dropout, window=self.window)
        return self.out_drop(self.Wo(out.transpose(1, 2).flatten(2)))


class MLP(nn.Module):
    """GeGLU (arXiv:2002.05202): Wo(gelu(a) · b), where Wi computes a and b side by side."""

    def __init__(self, config: ModernBertConfig) -> None:
        super().__init__()
        self.Wi = Linear(config.hidden_size, 2 * config.intermediate_size, bias=config.mlp_bias)
        self.Wo = Linear(config.intermediate_size, config.hidden_size, bias=config.mlp_bias)
        self.drop = nn.Dropout(config.mlp_dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., D] -> [..., D]."""
        # [..., I] each
        a, b = self.Wi(x).chunk(2, dim=-1)
        return self.Wo(self.drop(F.gelu(a) * b))


class Layer(nn.Module):
    """Pre-norm attention and pre-norm MLP, each added to the residual stream."""

    def __init__(self, config: ModernBertConfig, layer: int) -> None:
        super().__init__()
        # the embeddings end in a norm, so the first layer begins without one
        self.attn_norm = _norm(config) if layer > 0 else nn.Identity()
        self.attn = Attention(config, config.windows[layer])
        self.mlp_norm = _norm(config)
        self.mlp = MLP(config)

    def forward(self, x: torch.Tensor, rope, lengths: list[int] | None) -> torch.Tensor:
        """x [B, T, D] -> [B, T, D]."""
        x = x + self.attn(self.attn_norm(x), rope, lengths)
        return x + self.mlp(self.mlp_norm(x))


class ModernBert(nn.Module):
    """Token ids in, last hidden states out."""

    def __init__(self, config: ModernBertConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config)
        self.layers = nn.ModuleList(Layer(config, layer) for layer in range(config.num_hidden_layers))
        self.final_norm = _norm(config)

    def hidden_states(self, input_ids: torch.Tensor, lengths: list[int] | None = None) -> torch.Tensor:
        """The last layer's output after the final norm [B, T, D].

        input_ids  [B, T] int64, special tokens included
        lengths    of the row's texts, one after another (B = 1, they sum to T); None: every row is one text
        """
        # positions restart at each text: [T]
        texts = [input_ids.shape[1]] if lengths is None else lengths
        positions = torch.cat([torch.arange(n, device=input_ids.device) for n in texts])

        # cos, sin [T, D_head], the same for all heads; layers with a window have a base of their own
        rope = rope_cos_sin(positions, self.config.rope)
        local_rope = rope_cos_sin(positions, self.config.local_rope)

        # [B, T, D] through every layer
        x = self.embeddings(input_ids)
        for layer, window in zip(self.layers, self.config.windows, strict=True):
            x = layer(x, rope if window is None else local_rope, lengths)
        return self.final_norm(x)
