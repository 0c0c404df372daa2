"""Fill in the middle: the middle of a text moves to its end, to be predicted with both sides in context.

    text   prefix ┆ middle ┆ suffix                              cut at two characters, drawn uniformly
    PSM    <PRE> prefix <SUF> suffix <MID> middle <END>
    SPM    <PRE> <SUF> suffix <MID> prefix middle <END>          half of the transformed texts

Bavarian et al., arXiv:2207.14255. The cut is between characters, not tokens: a cursor may be inside a word. The loss
covers all three parts, not the middle alone, to preserve left-to-right prediction. SPM is the second variant in their
appendix, the one for joint training on both orders: PSM with nothing before <SUF>.

A text longer than a row is first split, and each part is transformed on its own (their context-level FIM): splitting a
transformed text would separate a middle from its sides.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from common.console import UserError
from data.masking import Example, plain_document
from model.conversation import Segment
from model.loss import IGNORE
from model.tokenizer import Tokenizer

FAMILIES = {  # the tokens before prefix, suffix and middle, and the one that ends a middle
    "CodeGemma": ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "<|file_separator|>"),
    "Qwen": ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "<|endoftext|>"),
    "StarCoder": ("<fim_prefix>", "<fim_suffix>", "<fim_middle>", "<|endoftext|>"),
    # the hole marks the missing middle: it comes right before the suffix
    "DeepSeek-Coder": ("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>", "<｜end▁of▁sentence｜>"),
    "CodeLlama": ("▁<PRE>", "▁<SUF>", "▁<MID>", "▁<EOT>"),
}
LONGEST_TOKEN = 16  # upper bound on characters per token: how much text is tried for a row


@dataclass(frozen=True)
class FimTokens:
    """Ids of a model's own fill-in-the-middle tokens."""

    prefix: int
    suffix: int
    middle: int
    end: int


def fim_tokens(tokenizer: Tokenizer) -> FimTokens:
    """The tokens of the model's family, one id each. UserError names the missing ones if no family's are complete."""
    # control tokens are single entries of the vocabulary, never parsed out of a user's text
    known = tokenizer.control_tokens
    missing = {family: [token for token in tokens if token not in known] for family, tokens in FAMILIES.items()}
    # the family with the fewest missing: the model's own, or the one to name in the error
    nearest = min(missing, key=lambda family: len(missing[family]))
    if missing[nearest]:
        raise UserError(
            f"--fim: this model lacks fill-in-the-middle tokens: {', '.join(missing[nearest])} ({nearest}'s) "
            f"missing, and no other family's are complete. Omit --fim, or use a model of {', '.join(FAMILIES)}"
        )
    return FimTokens(*tokenizer.checked([known[token] for token in FAMILIES[nearest]]))


def split_in_three(text: str, rng: random.Random) -> tuple[str, str, str]:
    """Prefix, middle and suffix, cut at two uniformly drawn characters. Each may be empty."""
    start, stop = sorted(rng.randint(0, len(text)) for _ in range(2))
    return text[:start], text[start:stop], text[stop:]


def fill_in_the_middle(
    tokenizer: Tokenizer, tokens: FimTokens, text: str, rng: random.Random, *, suffix_first: bool
) -> Example:
    """A whole text with its middle at the end, as SPM (suffix_first) or PSM; supervised like a plain document."""
    # encoded as parts of one text, so that SentencePiece adds no space before each
    parts = [Segment(part, is_special=False, is_supervised=True) for part in split_in_three(text, rng)]
    prefix, middle, suffix = tokenizer.encode_segments(parts)

    # either order ends with the middle, and with the token that tells an editor to stop
    if suffix_first:
        ids = [tokens.prefix, tokens.suffix, *suffix, tokens.middle, *prefix, *middle]
    else:
        ids = [tokens.prefix, *prefix, tokens.suffix, *suffix, tokens.middle, *middle]
    ids.append(tokens.end)
    return Example(tokenizer.prefix_ids + ids, [IGNORE] * len(tokenizer.prefix_ids) + ids)


def fim_pieces(
    tokenizer: Tokenizer, tokens: FimTokens, text: str, *, size: int, rate: float, rng: random.Random
) -> Iterator[Example]:
    """The text in parts of at most `size` tokens, each transformed with probability `rate`, else a plain document.

    The parts concatenate to `text` and end at line ends where possible. Each begins with the model's BOS, if any; only
    the last plain part has the end token. Raises UserError for a rate outside 0 to 1 and for rows too short for a
    single character.
    """
    if not 0 <= rate <= 1:
        raise UserError(f"--fim {rate:g}: give the share of the texts to transform, 0 to 1")

    while True:
        # both draws for every part: the next one's do not depend on this one's
        is_moved, suffix_first = rng.random() < rate, rng.random() < 0.5
        part = text[: LONGEST_TOKEN * size]

        # shortened until it fits: how many tokens a text takes is known only once it is encoded
        while True:
            if is_moved:
                example = fill_in_the_middle(tokenizer, tokens, part, rng, suffix_first=suffix_first)
            else:
                example = _without_end(plain_document(tokenizer, part), is_last=len(part) == len(text))
            if len(example.input_ids) <= size:
                break
            part = _shorter(part, size / len(example.input_ids))

        # the rest of the text
        yield example
        text = text[len(part) :]
        if not text:
            return


def _without_end(example: Example, *, is_last: bool) -> Example:
    return example if is_last else Example(example.input_ids[:-1], example.labels[:-1])


def _shorter(text: str, share: float) -> str:
    """About this share of a text from its start, cut at a line end if there is one."""
    if len(text) < 2:
        raise UserError("--row-tokens: too few to fill in the middle; give more")
    # at least one character fewer, so that the caller's loop ends
    end = max(1, min(len(text) - 1, int(len(text) * share)))
    return text[: text.rfind("\n", 0, end) + 1 or end]
