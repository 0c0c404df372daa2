"""Where a causal LM fails: the most surprising token of each file, with the kind of token that it missed."""

from __future__ import annotations

import torch

from data.masking import plain_document
from model.decoder import Decoder
from model.token_text import exact_text
from model.tokenizer import Tokenizer

WINDOW = 1024  # tokens of each file that are read
LEAST_CONTEXT = 64  # tokens skipped at the start of a file, where nothing can be predicted yet
SHOWN = 800  # characters of context in a row


@torch.inference_mode()
def worst_predictions(
    decoder: Decoder, tokenizer: Tokenizer, files: list[tuple[str, str]], *, count: int = 15
) -> list[dict]:
    """The most surprising token of each file, for the `count` files where that surprise is greatest.

    Of each file the first WINDOW tokens are read. Returns rows {"id" (the path), "category", "prompt" (the text before
    the token), "answer" (the model's most likely token), "cause" (the kind of token it missed), "check" (the token and
    its nats)}.
    """
    was_training = decoder.training
    decoder.eval()
    found = []
    for path, text in files:
        ids = plain_document(tokenizer, text).input_ids[:WINDOW]
        hidden_states = decoder.hidden_states(torch.tensor([ids], device=decoder.device))[0]  # [T, D]
        start = min(LEAST_CONTEXT, (len(ids) - 1) // 2)
        logits = decoder.logits(hidden_states[start:-1]).float()  # [T-start-1, V]
        surprise = torch.nn.functional.cross_entropy(
            logits, torch.tensor(ids[start + 1 :], device=logits.device), reduction="none"
        )
        at = int(surprise.argmax())
        before, token = ids[: start + 1 + at], ids[start + 1 + at]
        found.append((surprise[at].item(), path, before, token, int(logits[at].argmax())))
    decoder.train(was_training)
    return [_row(tokenizer, *one) for one in sorted(found, reverse=True)[:count]]


def _row(tokenizer: Tokenizer, nats: float, path: str, before: list[int], token: int, likeliest: int) -> dict:
    context, expected = tokenizer.decode(before), exact_text(tokenizer, [token])
    return {
        "id": path,
        "category": "next token",
        "prompt": context[-SHOWN:],
        "answer": exact_text(tokenizer, [likeliest]),
        "cause": _kind_of_surprise(context, expected),
        "check": f"the file continues with {expected!r} ({nats:.1f} nats of surprise)",
    }


def _kind_of_surprise(context: str, token: str) -> str:
    """The kind of token that was not expected, judged by the text around it."""
    line, word = context.rpartition("\n")[2], token.strip()
    if not word:
        return "layout: white space or the end of a line"
    if line.lstrip().startswith("#") or (context.count('"""') % 2 == 1):
        return "prose in a comment or docstring"
    if line.lstrip().startswith(("import ", "from ")):
        return "an import that the context does not suggest"
    if word[0].isdigit() or word[0] in "\"'":
        return "a literal"
    if word.isidentifier():
        return "a name used before in the file" if word in context else "a name new to the file"
    return "punctuation or an operator"
