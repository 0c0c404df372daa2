"""Static embeddings: a vector for each token of the vocabulary, and a text is their mean. No network, no order.

    "shortest path" ─ tokenize ─ rows of a table [V, D] ─ mean ─ normalize ─ vector

It encodes hundreds of times as fast as the encoder that model/distil.py makes it from. Files are in the format of the
package model2vec, which sentence-transformers reads too.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from statistics import median

import torch
from torch import nn
from torch.nn import functional as F

from common.console import UserError
from common.files import new_folder, read_json, write_json
from model.encoder import Embedding, Encoder
from model.safetensors_file import read_safetensors
from model.tokenizer import Tokenizer
from model.weights import save_network, tokenizer_files, weights_sha256

MODEL_TYPE = "model2vec"
MAX_LENGTH = 512  # tokens of a text, as model2vec
TABLES = ("embeddings", "embedding.weight")  # the tensor's name in model2vec's files, and in sentence-transformers'
MODULES = [
    {"idx": 0, "name": "0", "path": ".", "type": "sentence_transformers.models.StaticEmbedding"},
    {"idx": 1, "name": "1", "path": "1_Normalize", "type": "sentence_transformers.models.Normalize"},
]


@dataclass(frozen=True)
class StaticConfig:
    """The size of the table."""

    vocab_size: int
    hidden_size: int
    raw: dict = field(repr=False, compare=False)  # config.json
    max_tokens: int = 1_000_000  # a mean has no limit


class StaticEncoder(Encoder):
    """A table of token vectors behind the interface of `Encoder`."""

    config: StaticConfig

    def __init__(self, config: StaticConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = nn.Parameter(torch.zeros(config.vocab_size, config.hidden_size))  # [V, D]

    def hidden_states(self, input_ids: torch.Tensor, lengths: list[int] | None = None) -> torch.Tensor:
        """The tokens' vectors: [B, T] -> [B, T, D]."""
        return F.embedding(input_ids, self.embeddings)

    def tokenize(self, texts: list[str], kind: str) -> list[list[int]]:
        """Ids without special tokens, and without text that the vocabulary does not know; long texts are cut first."""
        most, prefix = self.embedding.max_length, self.embedding.prefix(kind)
        rows = self.tokenizer.encode_batch([(prefix + text)[: most * self._token_characters] for text in texts])
        return [[token for token in row if token != self._unknown][:most] for row in rows]

    def embed_packed(self, packed: torch.Tensor, lengths: list[int]) -> torch.Tensor:
        """The mean of each text's rows in one operation: [1, T] -> [N, D] fp32, of unit length; 0 without a token."""
        starts = torch.tensor([0, *lengths[:-1]], device=packed.device).cumsum(0)
        return F.normalize(F.embedding_bag(packed[0], self.embeddings, starts, mode="mean").float(), dim=-1)

    @cached_property
    def _unknown(self) -> int | None:
        """The id that stands for text outside of the vocabulary."""
        backend = self.tokenizer.backend
        token = getattr(backend.model, "unk_token", None)
        return None if token is None else backend.token_to_id(token)

    @cached_property
    def _token_characters(self) -> int:
        """Characters of a token, in the median: model2vec cuts texts by it before it tokenizes them."""
        return int(median(map(len, self.tokenizer.backend.get_vocab())))


def load_static(
    source: Path,
    name: str,
    *,
    device: str | torch.device = "cpu",
    pooling: str | None = None,
    query_prefix: str | None = None,
    passage_prefix: str | None = None,
    max_length: int | None = None,
) -> StaticEncoder:
    """A folder in model2vec's format; weights and a mapping to a smaller table are folded in.

    name  the MODEL argument; further arguments as of load_encoder
    UserError for files without a table, with tensors that are not implemented, and for any pooling but the mean.
    """
    if pooling not in (None, "mean"):
        raise UserError(f"{name}: a static model takes the mean of its tokens, not --pooling {pooling}")
    tensors = dict(read_safetensors(source, dtype=torch.float32, device="cpu"))
    table = next((tensors.pop(key) for key in TABLES if key in tensors), None)
    if table is None:
        raise UserError(f"{source}: model.safetensors has no tensor called {' or '.join(TABLES)}")
    if (mapping := tensors.pop("mapping", None)) is not None:
        table = table[mapping.long()]
    if (weights := tensors.pop("weights", None)) is not None:
        table = table * weights[:, None]
    if tensors:
        raise UserError(f"{source}: the tensors {', '.join(tensors)} are not implemented")

    tokenizer = Tokenizer(*tokenizer_files(source), embedding_rows=len(table))
    encoder = new_static(table, read_json(source / "config.json"), tokenizer)
    encoder.embedding = Embedding("mean", query_prefix or "", passage_prefix or "", max_length or MAX_LENGTH)
    encoder.source, encoder.weights_sha256 = name, weights_sha256(source)
    return encoder.to(device)


def save_static(encoder: StaticEncoder, folder: Path | str) -> None:
    """Write a folder that load_encoder, model2vec and sentence-transformers can load."""
    with new_folder(folder) as target:
        save_network(encoder, encoder.config.raw, target)
        encoder.tokenizer.save(target)
        write_json(target / "modules.json", MODULES)


def new_static(table: torch.Tensor, raw: dict, tokenizer: Tokenizer) -> StaticEncoder:
    """An encoder of a table [V, D]; raw: its config.json."""
    encoder = StaticEncoder(StaticConfig(*table.shape, raw=raw))
    encoder.embeddings = nn.Parameter(table)
    encoder.tokenizer = tokenizer
    encoder.embedding = Embedding("mean", "", "", MAX_LENGTH)
    return encoder.eval()
