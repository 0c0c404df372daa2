"""A BERT encoder and what makes an embedding of it: prefix, pooling, unit length.

    "query: where is …" ─ tokenize ─ encoder ─ hidden states ─ pool ─ normalize ─ vector

Texts are packed one after another without padding and attend only to themselves. Module names are those of Hugging
Face's BertModel (arXiv:1810.04805); checked against transformers and sentence-transformers in tests/parity.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from model.attention import document_attention
from model.console import UserError, progress
from model.encoder_config import EncoderConfig


@dataclass(frozen=True)
class Embedding:
    """How a model's vectors are meant to be made; read from its own files (model/weights.py) or given by the user."""

    pooling: str  # "mean" or "cls"
    query_prefix: str
    passage_prefix: str
    max_length: int  # tokens, special tokens included; longer texts are cut

    def __post_init__(self) -> None:
        if self.pooling not in ("mean", "cls"):
            raise UserError(f"pooling {self.pooling!r} is not supported; supported are mean and cls")

    def prefix(self, kind: str) -> str:
        """The text to put before a "query" or a "passage"."""
        if kind not in ("query", "passage"):
            raise ValueError(f'kind must be "query" or "passage", not {kind!r}')
        return self.query_prefix if kind == "query" else self.passage_prefix


class Embeddings(nn.Module):
    """Word + position + token type (always 0), normalised."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, input_ids: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """input_ids [B, T], positions [T] -> [B, T, D]."""
        x = self.word_embeddings(input_ids) + self.position_embeddings(positions) + self.token_type_embeddings.weight[0]
        return self.dropout(self.LayerNorm(x))


class SelfAttention(nn.Module):
    """Bidirectional multi-head attention inside each text."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.heads, self.dropout = config.num_attention_heads, config.attention_probs_dropout_prob
        self.query = nn.Linear(config.hidden_size, config.hidden_size)
        self.key = nn.Linear(config.hidden_size, config.hidden_size)
        self.value = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, x: torch.Tensor, lengths: list[int] | None) -> torch.Tensor:
        """x [B, T, D] -> [B, T, D]."""
        q, k, v = (
            part(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # [B, H, T, D_head]
            for part in (self.query, self.key, self.value)
        )
        dropout = self.dropout if self.training else 0.0
        return document_attention(q, k, v, lengths, causal=False, dropout=dropout).transpose(1, 2).flatten(2)


class AddAndNorm(nn.Module):
    """dense, dropout, residual, LayerNorm: how BERT ends both halves of a layer."""

    def __init__(self, inputs: int, config: EncoderConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(inputs, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, x: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        """x [B, T, inputs], residual [B, T, D] -> [B, T, D]."""
        return self.LayerNorm(self.dropout(self.dense(x)) + residual)


class Layer(nn.Module):
    """Attention and feed-forward, post-norm. The nesting is that of the weight names."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.attention = nn.ModuleDict(
            {"self": SelfAttention(config), "output": AddAndNorm(config.hidden_size, config)}
        )
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(config.hidden_size, config.intermediate_size)})
        self.output = AddAndNorm(config.intermediate_size, config)

    def forward(self, x: torch.Tensor, lengths: list[int] | None) -> torch.Tensor:
        """x [B, T, D] -> [B, T, D]."""
        x = self.attention["output"](self.attention["self"](x, lengths), x)
        return self.output(F.gelu(self.intermediate["dense"](x)), x)


class Encoder(nn.Module):
    """A text encoder with its tokenizer and its way of making an embedding."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config)
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))})
        self.tokenizer = None  # set by load_encoder, with the two below
        self.embedding: Embedding | None = None
        self.source = ""  # the name it was loaded by
        self.weights_sha256 = ""

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.embeddings.word_embeddings.weight.device

    def forward(self, input_ids: torch.Tensor, lengths: list[int] | None = None) -> torch.Tensor:
        """Hidden states [B, T, D].

        input_ids  [B, T] int64, special tokens included
        lengths    the row's texts, one after another (B = 1, they sum to T); None: every row is one text
        """
        per_row = [input_ids.shape[1]] if lengths is None else lengths
        positions = torch.cat([torch.arange(n, device=input_ids.device) for n in per_row])  # [T], restart at each text
        x = self.embeddings(input_ids, positions)
        for layer in self.encoder["layer"]:
            x = layer(x, lengths)
        return x

    def tokenize(self, texts: list[str], kind: str) -> list[list[int]]:
        """Prefix, special tokens, cut to max_length."""
        prefix = self.embedding.prefix(kind)
        return self.tokenizer.encode_for_encoder([prefix + text for text in texts], self.embedding.max_length)

    def reach_the_limit(self, texts: list[str], kind: str) -> int:
        """How many texts reach max_length: what they say beyond it is not read."""
        return sum(len(row) >= self.embedding.max_length for row in self.tokenize(texts, kind))

    def embed(self, rows: list[list[int]]) -> torch.Tensor:
        """Unit vectors [N, D] in fp32 of tokenized texts, with gradients. One packed forward pass."""
        lengths = [len(row) for row in rows]
        packed = torch.tensor([[token for row in rows for token in row]], device=self.device)
        return F.normalize(pool(self(packed, lengths), lengths, self.embedding.pooling), dim=-1)

    @torch.inference_mode()
    def encode(self, texts: list[str], kind: str = "passage", *, tokens_per_batch: int = 4096) -> torch.Tensor:
        """Embed texts for search: [N, D] float32 of unit length, on the CPU.

        kind  "query" or "passage": chooses the model's prefix
        """
        was_training = self.training
        self.eval()
        rows = self.tokenize(texts, kind)
        vectors = torch.empty(len(rows), self.config.hidden_size)
        with progress(what=f"encoding {kind}", total=len(rows), unit="text") as bar:
            for batch in batches_by_length(rows, tokens_per_batch):
                vectors[batch] = self.embed([rows[i] for i in batch]).cpu()
                bar.update(len(batch))
        self.train(was_training)
        return vectors

    def describe(self) -> dict:
        """What a kept vector must be compared by: an index made by one description refuses queries of another."""
        return {
            "model": self.source,
            "weights_sha256": self.weights_sha256,
            "pooling": self.embedding.pooling,
            "query_prefix": self.embedding.query_prefix,
            "passage_prefix": self.embedding.passage_prefix,
            "normalize": True,
            "dimension": self.config.hidden_size,
        }


def pool(hidden_states: torch.Tensor, lengths: list[int], pooling: str) -> torch.Tensor:
    """One vector a text, in fp32: hidden_states [1, T, D] of texts one after another -> [N, D]."""
    texts = hidden_states[0].float().split(lengths)
    if pooling == "cls":
        return torch.stack([text[0] for text in texts])
    return torch.stack([text.mean(dim=0) for text in texts])


def batches_by_length(rows: list[list[int]], tokens: int) -> list[list[int]]:
    """Indices of rows in batches of at most `tokens` tokens (a longer row is alone), longest first.

    The longest batch comes first so that running out of memory shows at once.
    """
    order = sorted(range(len(rows)), key=lambda i: -len(rows[i]))
    batches, used = [], tokens + 1
    for i in order:
        if used + len(rows[i]) > tokens:
            batches.append([])
            used = 0
        batches[-1].append(i)
        used += len(rows[i])
    return batches
