"""Samples of a causal LM for a person to read: how it continues the first lines of held-out files."""

from __future__ import annotations

from common.markdown import fenced
from data.masking import plain_document
from model import Stop, generate
from model.decoder import Decoder
from model.tokenizer import Tokenizer

HEAD_LINES = 20  # of a file, given as the prompt


def continuations(decoder: Decoder, tokenizer: Tokenizer, files: list[tuple[str, str]], *, count: int = 3) -> str:
    """Markdown: greedy continuations of the first lines of the first `count` (path, text) files."""
    heads = ["\n".join(text.split("\n")[:HEAD_LINES]) + "\n" for _, text in files[:count]]
    room = min(512, decoder.max_tokens // 2)  # prompt tokens
    prompts = [plain_document(tokenizer, head).input_ids[:-1][-room:] for head in heads]
    stop = Stop(max_new_tokens=min(64, room), ids=tokenizer.stop_ids)
    new_ids = generate(decoder, prompts, stop, unused_ids=tokenizer.unused_ids, what="samples")
    parts = ["# Samples\n\nThe first lines of held-out files, and how the tuned model continues them."]
    for (path, _), head, (ids,) in zip(files, heads, new_ids, strict=False):
        continued = tokenizer.decode(ids)
        parts.append(
            f"## {path}\n\n{fenced(head.rstrip(), 'python')}\n\ncontinues with\n\n{fenced(continued, 'python')}"
        )
    return "\n\n".join(parts) + "\n"
