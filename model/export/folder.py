"""Take a model to where it is used: a Hugging Face folder, GGUF with an Ollama Modelfile, sentence-transformers.

    load ─ write under another name ─ read that again ─ compare on a fixed text ─ rename into place
                                                     └─ beyond what the type explains: an error, nothing is left

    python -m model.export DIR --to gguf --type q8_0 --out out/model-q8_0.gguf

Beside the model lie export_report.json with the comparison and README.md, the model card.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import tempfile
import unicodedata
from pathlib import Path

import tokenizers
import torch
from torch.nn import functional as F

from common.console import UserError
from common.files import read_json, write_json, write_text
from model.decoder import Decoder
from model.device import DTYPES
from model.encoder_config import BERT_FAMILIES
from model.encoder_files import load_encoder, save_encoder
from model.export.card import Export, find_license, model_card
from model.export.gguf import write_gguf
from model.export.ollama import deviations, find_markup, modelfile
from model.gguf.layout import exact_context
from model.gguf.tokenizer import NASTY
from model.tokenizer import Tokenizer
from model.weights import load_decoder, load_tokenizer, locate, save_decoder

# How far the logits may move: rms(delta) / std(logits). Seen: f16 0.0007, bf16 0.005, q8_0 0.009 to 0.03 (SmolLM2-135M,
# Qwen2.5-Coder-0.5B); rows in a wrong order or a norm left out move them by about 1.
LIMITS = {"f32": 1e-4, "f16": 0.005, "bf16": 0.03, "q8_0": 0.1}
LIMITS |= {"fp32": LIMITS["f32"], "fp16": LIMITS["f16"]}
PROBE = '''"""Count the words of a text."""

from collections import Counter


def most_common(text: str, n: int = 10) -> list[tuple[str, int]]:
    """The n words that occur most often, with how often they do."""
    words = [word.strip(".,;:!?").lower() for word in text.split()]
    return Counter(words).most_common(n)


class Stack:
    """Last in, first out."""

    def __init__(self):
        self.items = []

    def push(self, item):
        self.items.append(item)

    def pop(self):
        if not self.items:
            raise IndexError("pop from an empty stack")
        return self.items.pop()


# The function below walks a tree in order. It is written with a generator, so that a caller who
# needs only the first few nodes does not pay for the others.
def walk(node):
    if node is not None:
        yield from walk(node.left)
        yield node.value
        yield from walk(node.right)
'''
PROBE_TOKENS = 256  # whole logits of them are kept: 155 MB for a vocabulary of 152,000
CHATS = [
    [{"role": "user", "content": "What is a closure?"}],
    [
        {"role": "user", "content": "Write add(a, b)."},
        {"role": "assistant", "content": "def add(a, b):\n    return a + b"},
        {"role": "user", "content": "Now with types, please: <b>"},
    ],
]


def export(source: str, to: str, out: Path, *, type: str = "q8_0", dtype: str = "auto") -> dict:
    """Write `source` as `to` (hf, gguf, sentence-transformers) to `out`; returns what export_report.json says.

    type   of a .gguf file's matrices: f32, f16, bf16, q8_0
    dtype  of a folder's weights: fp32, bf16, fp16, or auto: the one that the source's config.json names, else fp32
    Raises UserError, leaving nothing behind, when the target cannot hold this model or when what was written does not
    compute what its source does.
    """
    folder = locate(source)
    _check_kind(source, folder, to)
    if to == "gguf" and out.suffix != ".gguf":
        raise UserError(f"--out {out}: give a file name that ends in .gguf")
    final = [out, *(out.parent / name for name in ("Modelfile", "README.md", "export_report.json") if to == "gguf")]
    if there := [path for path in final if path.exists()]:
        raise UserError(f"{there[0]}: exists already; give --out a folder of its own")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as scratch:
        target = Path(scratch) / out.name
        if to == "sentence-transformers":
            report, about = _encoder(source, target, dtype)
        elif to == "gguf":
            report, about = _gguf(source, target, type)
        else:
            report, about = _folder(source, target, dtype)
        report = _head(source, to) | report
        beside = target.parent if to == "gguf" else target
        write_json(beside / "export_report.json", report)
        provenance = folder / "tritune.json"
        about |= {"provenance": read_json(provenance) if provenance.is_file() else {}}
        about |= {"license": find_license(source, folder if folder.is_dir() else folder.parent)}
        write_text(beside / "README.md", model_card(Export(source=source, to=to, path=out, report=report, **about)))
        if provenance.is_file() and to != "gguf":
            write_json(beside / "tritune.json", about["provenance"])
        for path in final:
            os.replace(Path(scratch) / path.name, path)
    return report


def _check_kind(source: str, folder: Path, to: str) -> None:
    """UserError for an adapter, and for an encoder that is to be a decoder."""
    if folder.is_dir() and (folder / "adapter_config.json").is_file() and not (folder / "config.json").is_file():
        raise UserError(
            f"{source} is an adapter; merge it first: python -m lora.merge --model BASE --adapter {source} --out DIR"
        )
    family = read_json(folder / "config.json").get("model_type") if folder.is_dir() else None
    if to != "sentence-transformers" and family in (*BERT_FAMILIES, "modernbert"):
        raise UserError(f"{source} is an encoder ({family}); use --to sentence-transformers")


def _head(source: str, to: str) -> dict:
    packages = ("torch", "tokenizers", "safetensors", "gguf")
    versions = {name: importlib.metadata.version(name) for name in packages if importlib.util.find_spec(name)}
    return {"schema": 1, "source": source, "to": to, "versions": versions}


def _gguf(source: str, target: Path, type: str) -> tuple[dict, dict]:
    decoder, tokenizer = load_decoder(source), load_tokenizer(source)
    context = exact_context(decoder.config)
    probe = _probe(decoder, tokenizer, context)
    write_gguf(decoder, tokenizer, target, type=type, name=target.stem)
    text, no_template = modelfile(target.name, tokenizer, context=context)
    write_text(target.parent / "Modelfile", text)
    notes = []
    if context < decoder.config.max_position_embeddings:
        notes.append(
            f"llama.cpp computes this model's attention up to {context} tokens only: the context is cut to them"
        )
    if no_template is not None:
        notes.append(f"the Modelfile has no TEMPLATE: {no_template}")
    else:
        notes += deviations(find_markup(tokenizer), tokenizer)
    del decoder
    report = _compare(probe, tokenizer, str(target), type)
    about = {"type": type, "has_chat_template": tokenizer.chat_template is not None}
    return report | {"notes": notes}, about | {"has_ollama_template": no_template is None}


def _folder(source: str, target: Path, dtype: str) -> tuple[dict, dict]:
    decoder, tokenizer = load_decoder(source), load_tokenizer(source)
    dtype = _dtype(dtype, decoder.config.raw)
    probe = _probe(decoder, tokenizer, decoder.config.max_tokens)
    save_decoder(decoder.to(DTYPES[dtype]), tokenizer, target)
    del decoder
    report = _compare(probe, tokenizer, str(target), dtype)
    return report | {"notes": []}, {"type": dtype, "has_chat_template": tokenizer.chat_template is not None}


def _dtype(wanted: str, raw: dict) -> str:
    if wanted != "auto":
        return wanted
    named = raw.get("dtype") or raw.get("torch_dtype")
    return next((name for name, dtype in DTYPES.items() if str(dtype) == f"torch.{named}"), "fp32")


def _encoder(source: str, target: Path, dtype: str) -> tuple[dict, dict]:
    encoder = load_encoder(source)
    dtype = _dtype(dtype, encoder.config.raw)
    texts = [text for text in (*NASTY, PROBE) if text]
    expected = [encoder.encode(texts, kind=kind) for kind in ("query", "passage")]
    save_encoder(encoder.to(DTYPES[dtype]), target)
    again = load_encoder(str(target))
    cosine = torch.cat([
        F.cosine_similarity(one, again.encode(texts, kind=kind))
        for one, kind in zip(expected, ("query", "passage"), strict=True)
    ])  # fmt: skip
    delta = (1 - cosine.min()).clamp(min=0).item()
    if not delta <= LIMITS[dtype]:
        raise UserError(
            f"the vectors read again differ from the source's: 1 - cosine = {delta:.3g}; nothing was written"
        )
    comparison = {"max_cosine_distance": delta, "texts": len(cosine), "limit": LIMITS[dtype]}
    prompts = {"query": again.embedding.query_prefix, "document": again.embedding.passage_prefix}
    return {"type": dtype, "comparison": comparison, "notes": []}, {"type": dtype, "prompts": prompts}


def _probe(decoder: Decoder, tokenizer: Tokenizer, context: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(ids [1, T], logits [T, V] in fp32) of the fixed text, at most `context` tokens of it."""
    ids = torch.tensor([(tokenizer.prefix_ids + tokenizer.encode(PROBE))[: min(PROBE_TOKENS, context)]])
    return ids, _logits(decoder, ids)


@torch.inference_mode()
def _logits(decoder: Decoder, ids: torch.Tensor) -> torch.Tensor:
    return decoder(ids)[0].float()


def _compare(probe: tuple[torch.Tensor, torch.Tensor], tokenizer: Tokenizer, target: str, type: str) -> dict:
    """Read what was written and hold it against its source. UserError when they differ by more than `type` explains."""
    again = load_tokenizer(target)
    _same_texts(tokenizer, again)
    ids, expected = probe
    actual = _logits(load_decoder(target), ids)
    delta = actual - expected
    labels = ids[0, 1:]
    comparison = {
        "relative_delta_logit": (delta.square().mean().sqrt() / expected.std()).item(),
        "max_delta_logit": delta.abs().max().item(),
        "mean_delta_logit": delta.abs().mean().item(),
        "top1_agreement": (actual.argmax(-1) == expected.argmax(-1)).float().mean().item(),
        "positions": len(expected),
        "perplexity_source": F.cross_entropy(expected[:-1], labels).exp().item(),
        "perplexity_export": F.cross_entropy(actual[:-1], labels).exp().item(),
        "limit": LIMITS[type],
    }
    if not comparison["relative_delta_logit"] <= LIMITS[type]:
        raise UserError(
            f"the logits read again differ from the source's by {comparison['relative_delta_logit']:.3g} of their "
            f"spread, {type} explains {LIMITS[type]}; nothing was written"
        )
    chats = len(CHATS) if tokenizer.chat_template is not None else 0
    texts = len(NASTY) + 1 + len(_added_tokens(tokenizer))
    return {"type": type, "comparison": comparison, "same_ids_of_texts": texts, "same_text_of_chats": chats}


def _same_ids(tokenizer: Tokenizer, again: Tokenizer, texts: list[str]) -> None:
    odd = next((text for text in texts if tokenizer.encode(text) != again.encode(text)), None)
    if odd is not None:
        raise UserError(f"the tokenizer read again reads {odd[:40]!r} otherwise than the source's; nothing was written")


def _same_texts(tokenizer: Tokenizer, again: Tokenizer) -> None:
    """UserError unless both read the same ids, render the same text and stop at the same tokens."""
    added = _added_tokens(tokenizer)
    holds_added = {text: any(token.content in text for token in added) for text in (*NASTY, PROBE)}
    _same_ids(tokenizer, again, [text for text, holds in holds_added.items() if not holds])
    for token in added:  # before the texts that hold one: the token's settings are then the cause
        for text in _around(token.content):
            if tokenizer.encode(text) != again.encode(text):
                raise UserError(
                    f"the added token {token.content!r}{_flags(token)} is read again otherwise than the source reads "
                    f"it in {text[:60]!r}; nothing was written. Use --to hf, or take these settings out of the "
                    "source's tokenizer.json if the model was trained without them"
                )
    _same_ids(tokenizer, again, [text for text, holds in holds_added.items() if holds])
    if tokenizer.chat_template is not None:
        for chat in CHATS:
            texts = [t.render(chat, add_generation_prompt=True) for t in (tokenizer, again)]
            if texts[0] != texts[1]:
                raise UserError(
                    "the chat template read again renders another text than the source's; nothing was written"
                )
    if (tokenizer.prefix_ids, tokenizer.stop_ids) != (again.prefix_ids, again.stop_ids):
        raise UserError(
            f"BOS and stop tokens are {tokenizer.prefix_ids} and {sorted(tokenizer.stop_ids)}, "
            f"read again {again.prefix_ids} and {sorted(again.stop_ids)}; nothing was written"
        )


def _added_tokens(tokenizer: Tokenizer) -> list[tokenizers.AddedToken]:
    return list(tokenizer.backend.get_added_tokens_decoder().values())


def _around(token: str) -> list[str]:
    """Texts with an added token between spaces, letters and its like, and in Unicode's decomposed form.

    They show what GGUF has no place for: a token that takes the spaces around it, that is one only as a word of its
    own, or that is looked for in the normalized text (github.com/ggml-org/llama.cpp/issues/15842).
    """
    text = f"the {token} of {token}code, x{token}y \n{token}\t{token}  {token}{token}"
    return list(dict.fromkeys((text, unicodedata.normalize("NFD", text))))


def _flags(token: tokenizers.AddedToken) -> str:
    names = [name for name in ("lstrip", "rstrip", "single_word", "normalized") if getattr(token, name)]
    return f" ({', '.join(names)})" if names else ""
