"""Reading an export back and comparing it with its source: logits or vectors, token ids, rendered chats.

A difference beyond what the export's dtype explains is a UserError, so that nothing wrong is ever left on disk.
"""

from __future__ import annotations

import unicodedata
from typing import NamedTuple

import tokenizers
import torch
from torch.nn import functional as F

from common.console import UserError
from model.decoder import Decoder
from model.encoder import Encoder
from model.tokenizer import Tokenizer
from model.weights import load_decoder, load_tokenizer

# Largest accepted rms(delta) / std(logits). Measured: f16 0.0007, bf16 0.005, q8_0 0.009 to 0.03 (SmolLM2-135M,
# Qwen2.5-Coder-0.5B); rows in the wrong order or a missing norm give about 1.
LIMITS = {"f32": 1e-4, "f16": 0.005, "bf16": 0.03, "q8_0": 0.1}
LIMITS |= {"fp32": LIMITS["f32"], "fp16": LIMITS["f16"]}
TRICKY_TEXTS = (  # texts that pre-tokenizers split differently
    "def f(x):\n\treturn  x+1  # naïve 12345 3.14\r\n\r\n",
    "   leading, trailing   \n\n\n",
    "I'll don't WE'RE 'Tis x'y",
    "1234567890 ١٢٣ ½ 2²",
    "日本語のテキスト 中文字符 한국어 ไทย",
    "😀👩‍👩‍👧 e\u0301 \u00a0\u200b\ufeff",
    "<|im_start|><|notatoken|></s> [INST] <unk>",
    "a" * 40 + "======----!!!???...///\\\\\t\t \t",
    "camelCaseWord SCREAMING_SNAKE αβγΔ Ünïcödé İstanbul",
    "",
)
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
PROBE_TOKENS = 256  # the full logits of this many are kept: 155 MB for a vocabulary of 152,000
CHATS = [
    [{"role": "user", "content": "What is a closure?"}],
    [
        {"role": "user", "content": "Write add(a, b)."},
        {"role": "assistant", "content": "def add(a, b):\n    return a + b"},
        {"role": "user", "content": "Now with types, please: <b>"},
    ],
]


class Probe(NamedTuple):
    """What the source computes for the fixed text."""

    ids: torch.Tensor  # [1, T]
    logits: torch.Tensor  # [T, V] fp32


def take_probe(decoder: Decoder, tokenizer: Tokenizer, context: int) -> Probe:
    """The logits of at most `context` tokens of the fixed text."""
    ids = torch.tensor([(tokenizer.prefix_ids + tokenizer.encode(PROBE))[: min(PROBE_TOKENS, context)]])
    return Probe(ids, _logits(decoder, ids))


@torch.inference_mode()
def _logits(decoder: Decoder, ids: torch.Tensor) -> torch.Tensor:
    return decoder(ids)[0].float()


def compare_decoder(probe: Probe, tokenizer: Tokenizer, target: str, type: str) -> dict:
    """Load the export at `target` and compare it with its source; the report's entries.

    UserError if the tokenizers differ, or the logits by more than `type` explains.
    """
    # the same ids and chats, before the weights are read
    exported = load_tokenizer(target)
    check_tokenizer(tokenizer, exported)

    # logits of the same ids: [T, V]
    expected = probe.logits
    actual = _logits(load_decoder(target), probe.ids)
    delta = actual - expected
    labels = probe.ids[0, 1:]
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
            f"the export's logits differ from the source's by {comparison['relative_delta_logit']:.3g} of their "
            f"standard deviation, and {type} explains only {LIMITS[type]}; nothing was written"
        )
    chats = len(CHATS) if tokenizer.chat_template is not None else 0
    texts = len(TRICKY_TEXTS) + 1 + len(_added_tokens(tokenizer))
    return {"type": type, "comparison": comparison, "same_ids_of_texts": texts, "same_text_of_chats": chats}


def encode_probe(encoder: Encoder) -> torch.Tensor:
    """Vectors [N, D] of fixed texts, as queries and as passages."""
    texts = [text for text in (*TRICKY_TEXTS, PROBE) if text]
    return torch.cat([encoder.encode(texts, kind=kind) for kind in ("query", "passage")])


def compare_encoder(expected: torch.Tensor, exported: Encoder, dtype: str) -> dict:
    """Compare the export's vectors with its source's (`encode_probe`). UserError beyond what `dtype` explains."""
    cosine = F.cosine_similarity(expected, encode_probe(exported))
    distance = (1 - cosine.min()).clamp(min=0).item()
    if not distance <= LIMITS[dtype]:
        raise UserError(
            f"the export's vectors differ from the source's: 1 - cosine = {distance:.3g}; nothing was written"
        )
    return {"max_cosine_distance": distance, "texts": len(cosine), "limit": LIMITS[dtype]}


def check_tokenizer(source: Tokenizer, exported: Tokenizer) -> None:
    """UserError unless both give the same ids, render the same text and stop at the same tokens."""
    # texts without added tokens: a difference is the pre-tokenizer's
    added = _added_tokens(source)
    holds_added = {text: any(token.content in text for token in added) for text in (*TRICKY_TEXTS, PROBE)}
    _check_ids(source, exported, [text for text, holds in holds_added.items() if not holds])

    # each added token by itself: a difference is its settings', and would show in the texts that contain it too
    for token in added:
        for text in _surroundings(token.content):
            if source.encode(text) != exported.encode(text):
                raise UserError(
                    f"the export tokenizes the added token {token.content!r}{_flags(token)} differently in "
                    f"{text[:60]!r}; nothing was written. Use --to hf, or remove these settings from the source's "
                    "tokenizer.json if the model was trained without them"
                )
    _check_ids(source, exported, [text for text, holds in holds_added.items() if holds])

    # chats, and the tokens that begin and end a text
    if source.chat_template is not None:
        for chat in CHATS:
            if source.render(chat, add_generation_prompt=True) != exported.render(chat, add_generation_prompt=True):
                raise UserError(
                    "the export's chat template renders a different text than the source's; nothing was written"
                )
    if (source.prefix_ids, source.stop_ids) != (exported.prefix_ids, exported.stop_ids):
        raise UserError(
            f"BOS and stop tokens are {source.prefix_ids} and {sorted(source.stop_ids)}, but in the export "
            f"{exported.prefix_ids} and {sorted(exported.stop_ids)}; nothing was written"
        )


def _check_ids(source: Tokenizer, exported: Tokenizer, texts: list[str]) -> None:
    odd = next((text for text in texts if source.encode(text) != exported.encode(text)), None)
    if odd is not None:
        raise UserError(f"the export tokenizes {odd[:40]!r} differently from the source; nothing was written")


def _added_tokens(tokenizer: Tokenizer) -> list[tokenizers.AddedToken]:
    return list(tokenizer.backend.get_added_tokens_decoder().values())


def _surroundings(token: str) -> list[str]:
    """Texts with an added token between spaces, letters and copies of itself, also in Unicode's decomposed form.

    They reveal what GGUF cannot express: a token that absorbs the spaces around it, that matches only whole words, or
    that is matched in the normalized text (github.com/ggml-org/llama.cpp/issues/15842).
    """
    text = f"the {token} of {token}code, x{token}y \n{token}\t{token}  {token}{token}"
    return list(dict.fromkeys((text, unicodedata.normalize("NFD", text))))


def _flags(token: tokenizers.AddedToken) -> str:
    names = [name for name in ("lstrip", "rstrip", "single_word", "normalized") if getattr(token, name)]
    return f" ({', '.join(names)})" if names else ""
