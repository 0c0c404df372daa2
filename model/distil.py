"""Distils an encoder into a static table (model/static.py), as the package model2vec does.

    python -m model.distil all-minilm-l6-v2 --out runs/table

    each token alone through the encoder [V, H] ─ PCA ─ [V, D] ─ times its weight a / (a + p)

p is the token's probability by Zipf's law, which needs only its rank, and vocabularies are ordered by frequency. The
weight, smooth inverse frequency (Arora et al., ICLR 2017), makes frequent tokens count less.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from common.console import UserError, progress, run_command
from common.files import cache_folder
from common.options import option, parse
from model import load_encoder
from model.device import choose_device
from model.encoder import TOKENS_PER_BATCH, Encoder, batches_by_length, on_all_cores, pool
from model.encoder_files import save_encoder
from model.static import MODEL_TYPE, StaticEncoder, new_static
from model.weights import locate, weights_sha256

DIMENSION, SMOOTHING = 256, 1e-4  # D and a: model2vec's
NEVER_IN_TEXT = re.compile(r"\[unused\d+\]|\[(?:PAD|UNK|CLS|SEP|MASK)\]|</?(?:s|pad|unk|mask)>|<\|.*\|>")


def distil(encoder: Encoder, *, dimension: int | None = None) -> StaticEncoder:
    """A static table [V, dimension] from an encoder, in about a minute. UserError if its vectors are shorter.

    dimension  None: DIMENSION, or all that the encoder has
    """
    dimension = dimension or min(DIMENSION, encoder.config.hidden_size)
    if dimension > encoder.config.hidden_size:
        raise UserError(f"{encoder.source}: its vectors have {encoder.config.hidden_size} components, not {dimension}")
    vectors = tokens_alone(encoder).numpy()  # [V, H]
    table = principal_components(vectors, dimension) * frequency_weights(len(vectors))[:, None]  # [V, D]

    # tokens that no text has take no part in a mean
    tokens = {number: token for token, number in encoder.tokenizer.backend.get_vocab().items()}
    table[[i for i in range(len(table)) if NEVER_IN_TEXT.fullmatch(tokens.get(i, "[PAD]"))]] = 0.0

    raw = {
        "model_type": MODEL_TYPE, "architectures": ["StaticModel"], "tokenizer_name": encoder.source,
        "apply_pca": dimension, "sif_coefficient": SMOOTHING, "hidden_dim": dimension, "normalize": True,
    }  # fmt: skip
    return new_static(torch.from_numpy(table), raw, encoder.tokenizer)


@torch.inference_mode()
def tokens_alone(encoder: Encoder) -> torch.Tensor:
    """The encoder's pooled vector of each token as a text of its own, between its special tokens: [V, H] fp32."""
    before, after = encoder.tokenizer.prefix_ids, encoder.tokenizer.suffix_ids
    count = 1 + max(encoder.tokenizer.backend.get_vocab().values())  # the network may have more rows
    rows = [[*before, token, *after] for token in range(count)]
    vectors = torch.empty(len(rows), encoder.config.hidden_size)

    def encode_batch(batch: list[int]) -> int:
        packed, lengths = encoder.pack([rows[i] for i in batch])
        vectors[batch] = pool(encoder(packed, lengths), lengths, encoder.embedding.pooling)[: len(batch)].cpu()
        return len(batch)

    with progress(what="distilling", total=len(rows), unit="token") as bar:
        batches = batches_by_length(rows, TOKENS_PER_BATCH[encoder.device.type])
        for done in on_all_cores(encode_batch, batches, encoder.device):
            bar.update(done)
    return vectors


def principal_components(vectors: np.ndarray, dimension: int) -> np.ndarray:
    """Coordinates of vectors [V, H] along the directions of their largest variance, from their mean: [V, dimension]."""
    centred = vectors - vectors.mean(0)
    _, directions = np.linalg.eigh(centred.T @ centred)  # the largest come last
    return np.ascontiguousarray(centred @ directions[:, ::-1][:, :dimension], dtype=np.float32)


def frequency_weights(count: int) -> np.ndarray:
    """a / (a + p) of `count` tokens in order of frequency, p by Zipf's law: [count]."""
    inverse_rank = 1 / np.arange(2, count + 2)
    return (SMOOTHING / (SMOOTHING + inverse_rank / inverse_rank.sum())).astype(np.float32)


def cached_table(name: str) -> Path:
    """The folder of an encoder's table, distilled on first use."""
    folder = cache_folder() / "static" / f"{Path(name).name}-{weights_sha256(locate(name))[:16]}"
    if not folder.exists():
        save_encoder(distil(load_encoder(name)), folder)
    return folder


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of this command."""

    model: str = option(help="encoder: folder, hub id or embedded default", positional=True)
    out: Path = option(help="folder to write", metavar="DIR")
    dimension: int | None = option(None, f"components of a vector (default: {DIMENSION}, or all there are)", least=1)
    device: str = option("auto", "auto, cpu, cuda or cuda:N")


def main() -> None:
    """Distil an encoder into a static table."""
    options = parse(Options, description=__doc__)
    if options.out.exists():
        raise UserError(f"{options.out} exists; give another --out")
    encoder = load_encoder(options.model, device=choose_device(options.device))
    table = distil(encoder, dimension=options.dimension)
    save_encoder(table, options.out)
    print(f"table    {table.config.vocab_size:,} tokens × {table.config.hidden_size} in {options.out}")


if __name__ == "__main__":
    sys.exit(run_command(main))
