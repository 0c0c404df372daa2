"""The network of BERT (arXiv:1810.04805) and RoBERTa (arXiv:1907.11692): e5, bge, gte, MiniLM, multilingual-e5.

    ids ─ embed + position ─ norm ─┬─ attention ─ + ─ norm ─┬─ GELU MLP ─ + ─ norm ─ …
                                   └──────────────┘         └─────────────┘

The two differ in the position of a text's first token. Module names are those of Hugging Face's BertModel; checked
against transformers in tests/parity. The pooler is omitted: no embedding model uses it.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from model.attention import document_attention
from model.encoder_config import BertConfig
from model.linear import Linear


class Embeddings(nn.Module):
    """Word + position + token type (always 0), normalised."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, input_ids: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """input_ids [B, T], positions [T] -> [B, T, D]."""
        # [B, T, D]; one text, so all tokens are of type 0
        x = self.word_embeddings(input_ids) + self.position_embeddings(positions) + self.token_type_embeddings.weight[0]
        return self.dropout(self.LayerNorm(x))


class SelfAttention(nn.Module):
    """Bidirectional multi-head attention inside each text."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.heads, self.dropout = config.num_attention_heads, config.attention_probs_dropout_prob
        self.query = Linear(config.hidden_size, config.hidden_size)
        self.key = Linear(config.hidden_size, config.hidden_size)
        self.value = Linear(config.hidden_size, config.hidden_size)

    def forward(self, x: torch.Tensor, lengths: list[int] | None) -> torch.Tensor:
        """x [B, T, D] -> [B, T, D]."""
        # project, split into heads: [B, H, T, D_head] each
        q, k, v = (
            part(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (self.query, self.key, self.value)
        )

        # attend in both directions, join the heads; the output projection is in AddAndNorm
        dropout = self.dropout if self.training else 0.0
        return document_attention(q, k, v, lengths, causal=False, dropout=dropout).transpose(1, 2).flatten(2)


class AddAndNorm(nn.Module):
    """Dense, dropout, residual, LayerNorm: the end of both halves of a BERT layer."""

    def __init__(self, inputs: int, config: BertConfig) -> None:
        super().__init__()
        self.dense = Linear(inputs, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, x: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        """x [B, T, inputs], residual [B, T, D] -> [B, T, D]."""
        return self.LayerNorm(self.dropout(self.dense(x)) + residual)


class Layer(nn.Module):
    """Attention and feed-forward, post-norm. The modules nest as the weight names do."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.attention = nn.ModuleDict(
            {"self": SelfAttention(config), "output": AddAndNorm(config.hidden_size, config)}
        )
        self.intermediate = nn.ModuleDict({"dense": Linear(config.hidden_size, config.intermediate_size)})
        self.output = AddAndNorm(config.intermediate_size, config)

    def forward(self, x: torch.Tensor, lengths: list[int] | None) -> torch.Tensor:
        """x [B, T, D] -> [B, T, D]."""
        # each half: what it computes, then dense, dropout, residual and norm
        x = self.attention["output"](self.attention["self"](x, lengths), x)
        return self.output(F.gelu(self.intermediate["dense"](x)), x)


class Bert(nn.Module):
    """Token ids in, last hidden states out."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config)
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))})

    def hidden_states(self, input_ids: torch.Tensor, lengths: list[int] | None = None) -> torch.Tensor:
        """The last layer's output [B, T, D].

        input_ids  [B, T] int64, special tokens included
        lengths    of the row's texts, one after another (B = 1, they sum to T); None: every row is one text
        """
        # positions restart at each text: [T]
        texts = [input_ids.shape[1]] if lengths is None else lengths
        positions = torch.cat([torch.arange(n, device=input_ids.device) for n in texts])
        x = self.embeddings(input_ids, positions + self.config.first_position)

        # [B, T, D] through every layer
        for layer in self.encoder["layer"]:  # pyright: ignore[reportGeneralTypeIssues]
            x = layer(x, lengths)
        return x
