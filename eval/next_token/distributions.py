"""The next-token distributions of base and tuned: the likeliest tokens at one position, and what differs at each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from eval.next_token.language import language_of
from eval.next_token.prompts import Prompt
from lora.adapter import Adapter, use_adapter
from model.decoder import Decoder
from model.token_text import REPLACEMENT, exact_text
from model.tokenizer import Tokenizer

CHUNK = 64  # positions whose logits are held at once: 39 MB a model at 152k words
LIKELIEST = 50  # tokens whose language is judged; their share of the probability is recorded beside it
STATES = ("base", "tuned")


def compare_prompt(
    decoder: Decoder,
    tokenizer: Tokenizer,
    adapter: Adapter,
    prompt: Prompt,
    *,
    top: int = 10,
    languages: tuple[str, str] | None = None,
) -> dict:
    """Base and tuned on one prompt.

    Returns {"name", "kind", "text" (up to the position of interest), "base", "tuned", "next_entropy", "positions"}.
    base and tuned list the `top` most likely next tokens, {"id", "token", "p", "rank", "other_rank"}; next_entropy is
    that of the two, in nats. Position t predicts the token after input_ids[:t + 1]: {"token", "kl", "entropy", "top1",
    "nll", "rank"}, the last four as [base, tuned]; token, nll and rank (1 is the most likely) are None at the end of
    the text. Partial characters are shown as bytes: <0xE6>.
    languages  the language of interest and another: each listed token then has "language", and the row "language" too,
               as `_language_shares` gives it
    """
    ids = torch.tensor(prompt.input_ids, device=decoder.device)
    hidden = {}
    for state in STATES:
        with in_use(decoder, adapter, state):
            hidden[state] = decoder.hidden_states(ids[None])[0]  # [T, D]
    row: dict = {"name": prompt.name, "kind": prompt.kind, "text": whole_text(tokenizer, prompt.input_ids[: prompt.at])}
    positions = []
    for start in range(0, len(ids), CHUNK):
        log_p = {}
        for state in STATES:
            with in_use(decoder, adapter, state):  # the head may have an adapter as well
                logits = decoder.logits(hidden[state][start : start + CHUNK])
                log_p[state] = logits.float().log_softmax(-1)  # [C, V]
        positions += _positions(tokenizer, log_p["base"], log_p["tuned"], ids[start + 1 : start + 1 + CHUNK])
        if start < prompt.at <= start + CHUNK:  # the position of interest
            asked = {state: log_p[state][prompt.at - 1 - start] for state in STATES}  # [V] each
            row["base"] = _top(tokenizer, asked["base"], asked["tuned"], top)
            row["tuned"] = _top(tokenizer, asked["tuned"], asked["base"], top)
            if languages:
                row["language"] = {
                    state: _language_shares(tokenizer, own, row[state], prompt.code, languages)
                    for state, own in asked.items()
                }
    return row | {"next_entropy": positions[prompt.at - 1]["entropy"], "positions": positions}


def _language_shares(
    tokenizer: Tokenizer, own: torch.Tensor, listed: list[dict], code: str, languages: tuple[str, str]
) -> dict:
    """How much of a distribution is of the first of two languages; each of the `listed` tokens gets its "language".

    own   [V] log-probabilities
    code  what the next token continues
    Returns {"mass": the probability of the LIKELIEST tokens that are of the language, "top": the share of the listed
    tokens that are, "judged": the probability of the LIKELIEST tokens}.
    """
    best = own.topk(min(LIKELIEST, len(own)))
    found = [
        (language_of(code, exact_text(tokenizer, [token]), languages), p)
        for token, p in zip(best.indices.tolist(), best.values.exp().tolist(), strict=True)
    ]
    for one in listed:
        one["language"] = language_of(code, one["token"], languages)
    return {
        "mass": sum(p for language, p in found if language == languages[0]),
        "top": sum(one["language"] == languages[0] for one in listed) / len(listed),
        "judged": sum(p for _, p in found),
    }


def whole_text(tokenizer: Tokenizer, ids: list[int]) -> str:
    """The text without control tokens; a character of which a part is missing is shown as bytes."""
    text = tokenizer.decode(ids)
    control = set(tokenizer.control_tokens.values())
    return exact_text(tokenizer, [token for token in ids if token not in control]) if REPLACEMENT in text else text


@contextmanager
def in_use(decoder: Decoder, adapter: Adapter, state: str) -> Iterator[None]:
    """Run the network as one of STATES, without gradients; the adapter is active again afterwards."""
    if state == "base":
        use_adapter(decoder, None)
    try:
        with torch.no_grad():
            yield
    finally:
        use_adapter(decoder, adapter)


def _positions(tokenizer: Tokenizer, base: torch.Tensor, tuned: torch.Tensor, following: torch.Tensor) -> list[dict]:
    """base, tuned [C, V] log-probabilities; following [C or C - 1] the actual next tokens."""
    kl = (tuned.exp() * (tuned - base)).sum(-1)  # [C], Kullback & Leibler 1951; 0 for equal distributions
    rows = [
        {"token": None, "kl": max(0.0, divergence), "entropy": entropy, "top1": top1, "nll": None, "rank": None}
        for divergence, entropy, top1 in zip(
            kl.tolist(),
            torch.stack([-(p.exp() * p).sum(-1) for p in (base, tuned)], dim=1).tolist(),
            torch.stack([p.argmax(-1) for p in (base, tuned)], dim=1).tolist(),
            strict=True,
        )
    ]
    known = [p[: len(following)].gather(1, following[:, None]) for p in (base, tuned)]  # [F, 1] each
    nll = (-torch.cat(known, dim=1)).tolist()
    ranks = [1 + (p[: len(following)] > own).sum(-1) for p, own in zip((base, tuned), known, strict=True)]
    for row, token, surprise, rank in zip(
        rows, following.tolist(), nll, torch.stack(ranks, dim=1).tolist(), strict=False
    ):
        row |= {"token": exact_text(tokenizer, [token]), "nll": surprise, "rank": rank}
    return rows


def _top(tokenizer: Tokenizer, own: torch.Tensor, other: torch.Tensor, count: int) -> list[dict]:
    """The most likely tokens of `own` [V], each with its rank in `other` [V]; both are log-probabilities."""
    best = own.topk(min(count, len(own)))
    return [
        {
            "id": token,
            "token": exact_text(tokenizer, [token]),
            "p": p,
            "rank": rank,
            "other_rank": 1 + int((other > other[token]).sum()),
        }
        for rank, (token, p) in enumerate(zip(best.indices.tolist(), best.values.exp().tolist(), strict=True), start=1)
    ]
