"""Perplexity and bits per byte of a causal LM on files, each with its interval.

    python -m eval.perplexity --model M [--adapter A] --data PATH --out F.json

perplexity = exp(nats / tokens) depends on the tokenizer; bits per byte = nats / ln 2 / bytes does not. Both are ratios
of sums over all files: a long file weighs as much as its tokens. Windows of a file may overlap: then each token is
predicted in the first window that reaches it, from as much as the earlier ones leave before it.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from common.console import UserError, progress, run_command
from common.files import write_json
from common.markdown import fenced
from common.options import option, parse
from data.corpus import load_corpus
from data.masking import Example, plain_document
from data.packing import to_batch
from eval.environment import environment
from eval.model_options import MEASURE, MODEL, ComputeOptions
from eval.stats import bootstrap_ratio
from lora.adapter_file import load_adapter
from lora.adapter_tokenizer import load_trained_tokenizer
from lora.frozen_weight import QUANTIZE
from model import Stop, generate, load_decoder
from model.decoder import Decoder
from model.device import choose_device, choose_dtype
from model.loss import IGNORE, causal_lm_loss
from model.token_text import exact_text
from model.tokenizer import Tokenizer


def perplexity(
    decoder: Decoder,
    tokenizer: Tokenizer,
    files: list[tuple[str, str]],
    *,
    window: int = 1024,
    stride: int | None = None,
    most_tokens: int | None = None,
) -> dict:
    """The eval result of (path, text) files.

    window       tokens that the model sees at once
    stride       how far the window moves on (default: half of it): a token has at least window - stride tokens before
                 it, where the file has them. window - 1 is the cheapest: neighbours then share one token
    most_tokens  of each file only this many tokens from its start (their bytes are counted accordingly)
    Every token but a document's first is predicted once, the end token included. The result's "files" holds
    {"path", "nll" (nats), "tokens", "bytes"} a file; an empty one is left out. UserError when nothing is left,
    ValueError for a stride outside 1..window - 1.
    """
    files = [(path, text) for path, text in files if text]  # drawn alone by the bootstrap, empty ones would give 0 / 0
    if not files:
        raise UserError("no file to measure perplexity on")
    documents = []
    for path, text in files:
        example, covered = _cut(tokenizer, text, most_tokens)
        documents.append((path, example, len(covered.encode())))
    result = score(decoder, documents, window=window, stride=stride)
    result["settings"]["most_tokens"] = most_tokens
    return result


def strided(example: Example, window: int, stride: int) -> list[Example]:
    """A document as windows that overlap; in each, what an earlier one predicts is read but not counted.

    Each token but the very first is predicted exactly once. ValueError for a stride outside 1..window - 1.
    """
    if not 1 <= stride < window:
        raise ValueError(f"a stride of {stride} with a window of {window}: give 1 to {window - 1}")
    ids, labels = example.input_ids, example.labels
    windows, predicted = [], 1  # the first token has nothing before it
    for start in range(0, len(ids), stride):
        stop = min(start + window, len(ids))
        counted = [IGNORE] * (predicted - start) + labels[predicted:stop]
        windows.append(Example(ids[start:stop], counted))
        predicted = stop
        if stop == len(ids):
            break
    return windows


@torch.inference_mode()
def score(
    decoder: Decoder, documents: list[tuple[str, Example, int]], *, window: int, stride: int | None = None
) -> dict:
    """The eval result of documents that are tokens already: (path, example, bytes of what is supervised in it).

    Each needs a supervised token; the decoder is left in the mode that it was in. stride as for `perplexity`.
    """
    stride = window // 2 if stride is None else stride
    was_training = decoder.training
    decoder.eval()
    rows = []
    for path, example, size in progress(documents, what="perplexity", unit="file"):
        nll = 0.0
        for piece in strided(example, window, stride):
            batch = to_batch([piece], decoder.device)
            hidden_states = decoder.hidden_states(batch.input_ids, batch.lengths)
            nll += causal_lm_loss(hidden_states, decoder.head_weight, batch.labels, softcap=decoder.softcap).item()
        rows.append({"path": path, "nll": nll, "tokens": example.supervised, "bytes": size})
    decoder.train(was_training)
    read = [[path, example.input_ids] for path, example, _ in documents]
    return summary(rows) | {
        "settings": {"window": window, "stride": stride},
        "environment": environment(decoder.device, decoder.model.norm.weight.dtype, documents=read),
    }


def _cut(tokenizer: Tokenizer, text: str, most_tokens: int | None) -> tuple[Example, str]:
    """The document and the text that it covers, cut to most_tokens."""
    example = plain_document(tokenizer, text)
    if most_tokens is None or len(example.input_ids) <= most_tokens:
        return example, text
    cut = Example(example.input_ids[:most_tokens], example.labels[:most_tokens])
    return cut, tokenizer.decode(cut.input_ids)


def summary(rows: list[dict], *, resamples: int = 2000, seed: int = 0) -> dict:
    """Metrics of per-file rows, with 95 % bootstrap intervals over files; each row is given its own two as well."""
    nats, draws = [row["nll"] for row in rows], {"resamples": resamples, "seed": seed}
    metrics, intervals = {}, {}
    for name, unit, transform in (("perplexity", "tokens", np.exp), ("bits_per_byte", "bytes", _bits)):
        sizes = [row[unit] for row in rows]
        metrics[name], *intervals[name] = bootstrap_ratio(nats, sizes, transform=transform, **draws)
    files = [
        row
        | {"perplexity": float(np.exp(row["nll"] / row["tokens"])), "bits_per_byte": _bits(row["nll"] / row["bytes"])}
        for row in rows
    ]
    return {"metrics": metrics, "intervals": intervals, "n": len(rows), "files": files, "results": [], "sandbox": None}


def _bits(nats: np.ndarray | float) -> np.ndarray | float:
    return nats / math.log(2)


@torch.inference_mode()
def worst_predictions(
    decoder: Decoder, tokenizer: Tokenizer, files: list[tuple[str, str]], *, count: int = 15, window: int = 1024
) -> list[dict]:
    """The most surprising token of each of the `count` files with the greatest surprise, for the report.

    Looks at the first window of each file. Rows: {"id", "category", "prompt" (the text before), "answer" (what the
    model held likeliest), "cause" (the kind of token it missed, found by program), "check" (the token, its surprise)}.
    """
    was_training = decoder.training
    decoder.eval()
    found = []
    for path, text in files:
        ids = plain_document(tokenizer, text).input_ids[:window]
        hidden_states = decoder.hidden_states(torch.tensor([ids], device=decoder.device))[0]  # [T, D]
        start = min(64, (len(ids) - 1) // 2)  # the first words of a file are anybody's guess
        logits = decoder.logits(hidden_states[start:-1]).float()  # [T-start-1, V]
        surprise = torch.nn.functional.cross_entropy(
            logits, torch.tensor(ids[start + 1 :], device=logits.device), reduction="none"
        )
        at = int(surprise.argmax())
        before, token = ids[: start + 1 + at], ids[start + 1 + at]
        found.append((surprise[at].item(), path, before, token, int(logits[at].argmax())))
    decoder.train(was_training)
    rows = []
    for nats, path, before, token, likeliest in sorted(found, reverse=True)[:count]:
        context = tokenizer.decode(before)
        right, guess = (exact_text(tokenizer, [one]) for one in (token, likeliest))
        rows.append(
            {
                "id": path,
                "category": "next token",
                "prompt": context[-800:],
                "answer": guess,
                "cause": _kind_of_surprise(context, right),
                "check": f"the file goes on with {right!r} ({nats:.1f} nats of surprise)",
            }
        )
    return rows


def _kind_of_surprise(context: str, token: str) -> str:
    """What kind of token was not expected, read off the text around it."""
    line, word = context.rpartition("\n")[2], token.strip()
    if not word:
        return "layout: white space or a line's end"
    if line.lstrip().startswith("#") or (context.count('"""') % 2 == 1):
        return "prose in a comment or docstring"
    if line.lstrip().startswith(("import ", "from ")):
        return "an import that nothing announced"
    if word[0].isdigit() or word[0] in "\"'":
        return "a literal"
    if word.isidentifier():
        return "a name used before in the file" if word in context else "a name new to the file"
    return "punctuation or an operator"


def continuations(decoder: Decoder, tokenizer: Tokenizer, files: list[tuple[str, str]], *, count: int = 3) -> str:
    """Markdown: how the model goes on from the first lines of a few files, greedily."""
    heads = ["\n".join(text.split("\n")[:20]) + "\n" for _, text in files[:count]]
    room = min(512, decoder.config.max_position_embeddings // 2)
    prompts = [plain_document(tokenizer, head).input_ids[:-1][-room:] for head in heads]
    stop = Stop(max_new_tokens=min(64, room), ids=tokenizer.stop_ids)
    new = generate(decoder, prompts, stop, unused_ids=tokenizer.unused_ids, what="samples")
    parts = ["# Samples\n\nThe first lines of held-out files, and how the tuned model goes on."]
    for (path, _), head, (ids,) in zip(files, heads, new, strict=False):
        said = tokenizer.decode(ids)
        parts.append(f"## {path}\n\n{fenced(head.rstrip(), 'python')}\n\ngoes on with\n\n{fenced(said, 'python')}")
    return "\n\n".join(parts) + "\n"


def read_files(place: Path, *, split: str = "test") -> list[tuple[str, str]]:
    """(path, text) of a file, of a corpus folder's held-out split, or of every Python file below a folder."""
    if (place / "manifest.jsonl").is_file():
        return [(file.path, file.text) for file in load_corpus(place).split(split)]
    paths = [place] if place.is_file() else sorted(path for path in place.rglob("*.py") if path.is_file())
    if not paths:
        raise UserError(f"{place}: no such file, or a folder without Python files")
    try:
        return [
            (path.name if place.is_file() else path.relative_to(place).as_posix(), path.read_text("utf-8"))
            for path in paths
        ]
    except UnicodeDecodeError as error:
        raise UserError(f"{place}: a file is not UTF-8 ({error})") from None


@dataclass(frozen=True, kw_only=True)
class Options(ComputeOptions):
    """Options of this command."""

    model: str = option(help="folder, .gguf file, hub id or embedded default")
    data: Path = option(help="a file, a folder, or a corpus (its test files)")
    out: Path = option(help="result, JSON", metavar="FILE")
    adapter: str | None = option(None, "folder of a LoRA adapter", MODEL, metavar="DIR")
    quantize: str = option("none", "format of the linear layers; nf4: 4 bits", MODEL, choices=tuple(QUANTIZE))
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
    if not 2 <= options.window <= decoder.config.max_tokens:
        raise UserError(f"--window {options.window}: give 2 to the model's {decoder.config.max_tokens} positions")
    if options.stride is not None and not 1 <= options.stride < options.window:
        raise UserError(f"--stride {options.stride}: give 1 to {options.window - 1}, less than the window")
    if options.adapter:
        load_adapter(decoder, options.adapter)
    tokenizer = load_trained_tokenizer(options.model, options.adapter)
    result = perplexity(decoder, tokenizer, files, window=options.window, stride=options.stride)
    result |= summary(result["files"], seed=options.seed)
    write_json(options.out, result)
    for name, value in result["metrics"].items():
        low, high = result["intervals"][name]
        print(f"{name:14} {value:.4f}  [{low:.4f}, {high:.4f}]  n = {result['n']} files")


if __name__ == "__main__":
    sys.exit(run_command(main, needs_less_with="a smaller --window, --quantize nf4 or --device cpu"))
