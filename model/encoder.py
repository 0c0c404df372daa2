"""Text embeddings from a network's hidden states: prefix, special tokens, pooling, unit length.

    "query: where is …" ─ tokenize ─ network ─ hidden states ─ pool ─ normalize ─ vector

The networks are in model/bert.py, model/modernbert.py and model/decoder.py. Texts are packed one after another, without
padding, and attend only to themselves. Checked against transformers and sentence-transformers in tests/parity.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import tokenizers
import torch
from torch import nn
from torch.nn import functional as F

from common.console import UserError, progress
from model.bert import Bert
from model.config import FAMILIES, ModelConfig
from model.decoder import Backbone
from model.encoder_config import BERT_FAMILIES, BertConfig, ModernBertConfig
from model.modernbert import ModernBert
from model.tokenizer import Tokenizer

POOLINGS = ("mean", "cls", "lasttoken")
TOKENS_PER_BATCH = {"cpu": 2048, "cuda": 16384}  # of `encode`; on a CPU, what fits the cache of a core
MAX_WORKERS = 16  # of `encode`: more would contend for Python's global lock
TILE = 32  # tokens
LOWERCASE = tokenizers.normalizers.Lowercase()  # str.lower differs, as for a word-final sigma


@dataclass(frozen=True)
class Embedding:
    """How a model's vectors are computed: read from its own files (model/encoder_files.py) or given."""

    pooling: str  # one of POOLINGS
    query_prefix: str
    passage_prefix: str
    max_length: int  # tokens, special tokens included; longer texts are truncated
    lower_case: bool = False  # before tokenization, whatever the tokenizer itself does

    def __post_init__(self) -> None:
        if self.pooling not in POOLINGS:
            raise UserError(f"pooling {self.pooling!r} is not supported; supported are {', '.join(POOLINGS)}")

    def prefix(self, kind: str) -> str:
        """The text to put before a "query" or a "passage"."""
        if kind not in ("query", "passage"):
            raise ValueError(f'kind must be "query" or "passage", not {kind!r}')
        return self.query_prefix if kind == "query" else self.passage_prefix


class Encoder(nn.Module):
    """A text encoder: one of the three networks below, with its tokenizer and embedding settings."""

    config: BertConfig | ModernBertConfig | ModelConfig  # of the network, like hidden_states
    hidden_states: Callable[..., torch.Tensor]
    tokenizer: Tokenizer  # set by load_encoder, with the three below
    embedding: Embedding
    source = ""  # the MODEL argument it was loaded from
    weights_sha256 = ""
    compute_dtype = torch.float32  # of the matrix products in `encode`; the weights may be fp32
    encoded_at_limit = 0  # texts that `encode` has read so far that reach max_length and so may be truncated

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return next(self.parameters()).device

    def forward(self, input_ids: torch.Tensor, lengths: list[int] | None = None) -> torch.Tensor:
        """Hidden states [B, T, D] of the network.

        input_ids  [B, T] int64, special tokens included
        lengths    of the row's texts, one after another (B = 1, they sum to T); None: every row is one text
        """
        return self.hidden_states(input_ids, lengths)

    def tokenize(self, texts: list[str], kind: str) -> list[list[int]]:
        """Add prefix and special tokens, truncate to max_length. UserError for a text without a token to pool."""
        # as the model was trained: "query: …", perhaps in lower case
        prefix = self.embedding.prefix(kind)
        texts = [prefix + text for text in texts]
        if self.embedding.lower_case:
            texts = [LOWERCASE.normalize_str(text) for text in texts]

        # ids with [CLS] and [SEP], or what the model has in their place
        rows = self.tokenizer.encode_for_encoder(texts, self.embedding.max_length)
        if not all(rows):
            raise UserError("an empty text has no vector: this model's tokenizer adds no special token to a text")
        return rows

    def count_at_limit(self, texts: list[str], kind: str) -> int:
        """How many texts reach max_length and so may be truncated."""
        return self._at_limit(self.tokenize(texts, kind))

    def _at_limit(self, rows: list[list[int]]) -> int:
        return sum(len(row) >= self.embedding.max_length for row in rows)

    def embed(self, rows: list[list[int]]) -> torch.Tensor:
        """Unit vectors [N, D] in fp32 of tokenized texts, with gradients, from one packed forward pass."""
        return self.embed_packed(*self.pack(rows))[: len(rows)]

    def pack(self, rows: list[list[int]]) -> tuple[torch.Tensor, list[int]]:
        """Tokenized texts packed one after another [1, T] int64, and their lengths; the last may be a filler.

        The filler is an extra text that makes T a multiple of TILE. oneDNN caches a primitive for each T, which
        fragments memory: without the filler, many batches take gigabytes.
        """
        tokens = [token for row in rows for token in row]
        filler = [0] * (-len(tokens) % TILE)
        lengths = [len(row) for row in rows] + ([len(filler)] if filler else [])
        return torch.tensor([tokens + filler], device=self.device, dtype=torch.long), lengths

    def embed_packed(self, packed: torch.Tensor, lengths: list[int]) -> torch.Tensor:
        """`embed` of what `pack` returns; the filler's vector, if any, is the last."""
        return F.normalize(pool(self(packed, lengths), lengths, self.embedding.pooling), dim=-1)

    @torch.inference_mode()
    def encode(self, texts: list[str], kind: str = "passage", *, dimension: int | None = None) -> torch.Tensor:
        """Embed texts for search: [N, D] float32 on the CPU, of unit length even if the model's files do not normalize.

        Matrix products are in `compute_dtype`, whatever the caller's autocast.

        kind       "query" or "passage": selects the model's prefix
        dimension  truncate vectors to this many leading components, for Matryoshka models; None: all
        """
        was_training = self.training
        self.eval()
        rows = self.tokenize(texts, kind)
        self.encoded_at_limit += self._at_limit(rows)
        vectors = torch.empty(len(rows), self.config.hidden_size)  # [N, D]

        # each batch writes its own rows, and tells how many are done
        def encode_batch(batch: list[int]) -> int:
            half, dtype = self.compute_dtype != torch.float32, self.compute_dtype
            with torch.autocast(self.device.type, dtype=dtype, enabled=half, cache_enabled=False):
                vectors[batch] = self.embed([rows[i] for i in batch]).cpu()
            return len(batch)

        # texts of similar length together
        with progress(what=f"encoding {kind}", total=len(rows), unit="text") as bar:
            batches = batches_by_length(rows, TOKENS_PER_BATCH[self.device.type])
            for done in on_all_cores(encode_batch, batches, self.device):
                bar.update(done)
        self.train(was_training)

        # Matryoshka: the leading components are a vector too, once they have unit length
        return vectors if dimension is None else F.normalize(vectors[:, :dimension], dim=-1)

    def identity(self) -> dict:
        """What determines a vector: an index built with one identity refuses queries of another."""
        return {
            "model": self.source,
            "weights_sha256": self.weights_sha256,
            "pooling": self.embedding.pooling,
            "query_prefix": self.embedding.query_prefix,
            "passage_prefix": self.embedding.passage_prefix,
            "normalize": True,
            "dimension": self.config.hidden_size,
        }


class BertEncoder(Encoder, Bert):
    """e5, bge, gte, MiniLM; with RoBERTa's positions, multilingual-e5."""


class ModernBertEncoder(Encoder, ModernBert):
    """gte-modernbert, granite-embedding."""


class DecoderEncoder(Encoder, Backbone):
    """A decoder without its head, such as Qwen3-Embedding: its last token attends to the whole text."""


def new_encoder(raw: dict) -> Encoder:
    """The network of a config.json, with fresh weights. UserError for an unsupported architecture."""
    family = raw.get("model_type")
    if family in BERT_FAMILIES:
        return BertEncoder(BertConfig.from_dict(raw))
    if family == "modernbert":
        return ModernBertEncoder(ModernBertConfig.from_dict(raw))
    if family in FAMILIES:
        # some embedding models are decoders whose causal mask was removed
        if raw.get("is_causal") is False:
            raise UserError("config.json: is_causal=False is not implemented: attention in decoders is causal")
        return DecoderEncoder(ModelConfig.from_dict(raw))
    supported = ", ".join([*BERT_FAMILIES, "modernbert", *FAMILIES])
    raise UserError(f"encoder architecture {family!r} is not supported; supported are {supported}")


def pool(hidden_states: torch.Tensor, lengths: list[int], pooling: str) -> torch.Tensor:
    """One fp32 vector per text: hidden_states [1, T, D] of packed texts -> [N, D]."""
    # [n, D] of each text
    texts = hidden_states[0].float().split(lengths)
    if pooling == "mean":
        return torch.stack([text.mean(dim=0) for text in texts])
    return torch.stack([text[0 if pooling == "cls" else -1] for text in texts])


def batches_by_length(rows: list[list[int]], tokens: int) -> list[list[int]]:
    """Indices of rows in batches of at most `tokens` tokens (a longer row is alone), longest first.

    The longest batch comes first so that running out of memory happens at once.
    """
    order = sorted(range(len(rows)), key=lambda i: -len(rows[i]))
    # as if a batch before the first were full
    batches, used = [], tokens + 1
    for i in order:
        if used + len(rows[i]) > tokens:
            batches.append([])
            used = 0
        batches[-1].append(i)
        used += len(rows[i])
    return batches


def on_all_cores(work: Callable[[list[int]], int], batches: list[list[int]], device: torch.device) -> Iterator[int]:
    """work(batch) for each batch; on a CPU several at a time, one per core.

    Cores then need not synchronise after each operation, and operations too small to parallelise still use every core:
    up to a sixth faster than all cores on one batch. No gradients; the caller's autocast does not apply.
    """
    threads = torch.get_num_threads()
    workers = min(threads, len(batches), MAX_WORKERS) if device.type == "cpu" else 1
    if workers < 2:
        yield from map(work, batches)
        return

    # inference mode holds for one thread only
    try:
        with ThreadPoolExecutor(workers, initializer=partial(torch.set_num_threads, threads // workers)) as pool:
            yield from pool.map(torch.inference_mode()(work), batches)
    finally:
        torch.set_num_threads(threads)  # the setting of one thread carries over to threads started later
