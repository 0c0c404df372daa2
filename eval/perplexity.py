"""Perplexity and bits per byte of a causal LM on files, with 95 % intervals.

    python -m eval.perplexity --model M [--adapter A] --data PATH --out F.json

perplexity = exp(nats / tokens) depends on the tokenizer; bits per byte = nats / ln 2 / bytes does not. Both are ratios
of sums over all files, so a file weighs as much as it has tokens (or bytes). Long files are read in overlapping
windows: each token is predicted once, in the first window that reaches it, from the context that this window holds.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from common.console import UserError, progress, run_command
from common.files import write_json
from common.options import option, parse
from data.masking import Example, plain_document
from data.packing import to_batch
from eval.environment import environment
from eval.model_options import MEASURE, MODEL, ComputeOptions
from eval.source_files import read_files
from eval.stats import bootstrap_ratio
from lora.adapter_file import load_adapter
from lora.adapter_tokenizer import load_trained_tokenizer
from lora.frozen_weight import QUANTIZE
from model import load_decoder
from model.decoder import Decoder
from model.device import choose_device, choose_dtype
from model.generate import positions_of
from model.loss import IGNORE, causal_lm_loss
from model.tokenizer import Tokenizer


class Document(NamedTuple):
    """A tokenised file; `size` is the number of UTF-8 bytes of its text."""

    path: str
    example: Example
    size: int


def perplexity(
    decoder: Decoder,
    tokenizer: Tokenizer,
    files: list[tuple[str, str]],
    *,
    window: int = 1024,
    stride: int | None = None,
    most_tokens: int | None = None,
) -> dict:
    """Perplexity and bits per byte of (path, text) files, as an eval result.

    window       tokens the model sees at once
    stride       tokens from one window to the next (default: half a window). A token is predicted from at least
                 window - stride tokens, where the file has them; at window - 1, the cheapest, one token overlaps
    most_tokens  measure only this many tokens from the start of each file, and the bytes of those
    Every token except the first of a file is predicted once, the end-of-text token included. "files" in the result
    holds {"path", "nll" (nats), "tokens", "bytes"} per file; empty files are skipped. UserError if no file is left,
    ValueError for a stride outside 1..window - 1.
    """
    documents = [document_of(tokenizer, path, text, most_tokens) for path, text in files if text]
    if not documents:
        raise UserError("no file to measure perplexity on")
    result = score(decoder, documents, window=window, stride=stride)
    result["settings"]["most_tokens"] = most_tokens
    return result


def document_of(tokenizer: Tokenizer, path: str, text: str, most_tokens: int | None = None) -> Document:
    """A file, or its first tokens and their bytes."""
    example = plain_document(tokenizer, text)
    if most_tokens is not None and len(example.input_ids) > most_tokens:
        example = Example(example.input_ids[:most_tokens], example.labels[:most_tokens])
        text = tokenizer.decode(example.input_ids)
    return Document(path, example, len(text.encode()))


def score(decoder: Decoder, documents: list[Document], *, window: int, stride: int | None = None) -> dict:
    """The eval result of tokenised documents, each with at least one supervised token; stride as for `perplexity`."""
    stride = window // 2 if stride is None else stride
    rows = nats_of(decoder, documents, lambda document: strided(document.example, window, stride))
    read = [[document.path, document.example.input_ids] for document in documents]
    return summary(rows) | {
        "settings": {"window": window, "stride": stride},
        "environment": environment(decoder.device, decoder.model.norm.weight.dtype, documents=read),
    }


@torch.inference_mode()
def nats_of(
    decoder: Decoder, documents: list[Document], pieces_of: Callable[[Document], Iterable[Example]]
) -> list[dict]:
    """{"path", "nll" (nats), "tokens", "bytes"} per document.

    pieces_of  what the model reads at once, one after the other; their labels predict each token of the document once
    The decoder is left in the mode (training or evaluation) that it was in.
    """
    was_training = decoder.training
    decoder.eval()
    rows = []
    for document in progress(documents, what="perplexity", unit="file"):
        nll = 0.0
        for piece in pieces_of(document):
            batch = to_batch([piece], decoder.device)
            hidden_states = decoder.hidden_states(batch.input_ids, batch.lengths)  # [1, T, D]
            nll += causal_lm_loss(hidden_states, decoder.head_weight, batch.labels, softcap=decoder.softcap).item()
        rows.append({"path": document.path, "nll": nll, "tokens": document.example.supervised, "bytes": document.size})
    decoder.train(was_training)
    return rows


def strided(example: Example, window: int, stride: int) -> list[Example]:
    """The overlapping windows of a document; labels that an earlier window covers are IGNORE in the later ones.

    Each token but the first of the document is thus predicted exactly once. ValueError for a stride outside
    1..window - 1.
    """
    if not 1 <= stride < window:
        raise ValueError(f"stride {stride} does not fit a window of {window}: give 1 to {window - 1}")
    ids, labels = example.input_ids, example.labels
    windows, done = [], 1  # positions dealt with; the first has no context and is never predicted
    for start in range(0, len(ids), stride):
        stop = min(start + window, len(ids))
        fresh = [IGNORE] * (done - start) + labels[done:stop]
        windows.append(Example(ids[start:stop], fresh))
        done = stop
        if stop == len(ids):
            break
    return windows


def summary(rows: list[dict], *, seed: int = 0) -> dict:
    """Both metrics of per-file rows, with 95 % intervals that resample files; each row gets its own two metrics too."""
    nats = [row["nll"] for row in rows]
    metrics, intervals, files = {}, {}, [dict(row) for row in rows]
    for name, unit, transform in (("perplexity", "tokens", np.exp), ("bits_per_byte", "bytes", _bits)):
        sizes = [row[unit] for row in rows]
        value, low, high = bootstrap_ratio(nats, sizes, transform=transform, seed=seed)
        metrics[name], intervals[name] = value, [low, high]
        for file in files:
            file[name] = float(transform(file["nll"] / file[unit]))
    return {"metrics": metrics, "intervals": intervals, "n": len(rows), "files": files, "results": [], "sandbox": None}


def _bits(nats: np.ndarray | float) -> np.ndarray | float:
    return nats / math.log(2)


@dataclass(frozen=True, kw_only=True)
class Options(ComputeOptions):
    """Options of this command."""

    model: str = option(help="folder, .gguf file, hub id or embedded default")
    data: Path = option(help='a file, a folder, a corpus (its test files), or rows {"id", "text"} in a .jsonl file')
    out: Path = option(help="result, JSON", metavar="FILE")
    adapter: str | None = option(None, "folder of an adapter", MODEL, metavar="DIR")
    quantize: str = option("none", "the linear layers in 8 or 4 bits", MODEL, choices=tuple(QUANTIZE))
    window: int = option(1024, "tokens of context and prediction together", MEASURE)
    stride: int | None = option(None, "tokens by which the window advances (default: half of it)", MEASURE)
    seed: int = option(0, "seed of the bootstrap")


def main() -> None:
    """Command line: measure, write the result, print a short table."""
    options = parse(Options, description=__doc__)
    files = read_files(options.data)
    device = choose_device(options.device)
    dtype = choose_dtype(device, options.dtype)
    decoder = load_decoder(options.model, dtype=dtype, device=device, put=QUANTIZE[options.quantize])
    if options.adapter:
        load_adapter(decoder, options.adapter)
    if not 2 <= options.window <= decoder.max_tokens:
        raise UserError(f"--window {options.window}: give 2 to {positions_of(decoder)}")
    if options.stride is not None and not 1 <= options.stride < options.window:
        raise UserError(f"--stride {options.stride}: give 1 to {options.window - 1}, less than the window")
    tokenizer = load_trained_tokenizer(options.model, options.adapter)
    result = perplexity(decoder, tokenizer, files, window=options.window, stride=options.stride)
    result |= summary(result["files"], seed=options.seed)
    write_json(options.out, result)
    for name, value in result["metrics"].items():
        low, high = result["intervals"][name]
        print(f"{name:14} {value:.4f}  [{low:.4f}, {high:.4f}]  n = {result['n']} files")


if __name__ == "__main__":
    sys.exit(run_command(main, needs_less_with="a smaller --window, --quantize nf4 or --device cpu"))
