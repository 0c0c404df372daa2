"""Fill in the middle: the middle of a text is moved to its end, so that it is learnt with both its sides in view.

    text   prefix ┆ middle ┆ suffix                              cut at two characters, drawn evenly
    PSM    <PRE> prefix <SUF> suffix <MID> middle <END>
    SPM    <PRE> <SUF> suffix <MID> prefix middle <END>          half of the transformed texts

After Bavarian et al., arXiv:2207.14255. Characters are cut, not tokens: a cursor may stand inside a word. All of it is
learnt, not the middle alone: writing on from the left is not to suffer. SPM is the second variant of their appendix,
the one for learning both orders together: PSM with nothing before <SUF>.

A text longer than a row is cut first and its parts are transformed each by itself (their context-level FIM): a cut
through a transformed text would part a middle from the sides that it is to be written from.
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

FAMILIES = {  # what stands before the prefix, the suffix and the middle, and what each family ends a middle with
    "CodeGemma": ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "<|file_separator|>"),
    "Qwen": ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "<|endoftext|>"),
    "StarCoder": ("<fim_prefix>", "<fim_suffix>", "<fim_middle>", "<|endoftext|>"),
    # the hole is where the middle is missing: right before the suffix
    "DeepSeek-Coder": ("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>", "<｜end▁of▁sentence｜>"),
    "CodeLlama": ("▁<PRE>", "▁<SUF>", "▁<MID>", "▁<EOT>"),
}
LONGEST_TOKEN = 16  # characters of a token, on average, at the very most: no more text than that is tried for a row


@dataclass(frozen=True)
class FimTokens:
    """Ids of a model's own tokens for filling in the middle."""

    prefix: int
    suffix: int
    middle: int
    end: int


def fim_tokens(tokenizer: Tokenizer) -> FimTokens:
    """The tokens of the model's family, each one id. UserError names what is missing when it has none of a family."""
    known = tokenizer.control_tokens  # whole in the vocabulary, and never read out of a user's text
    missing = {family: [token for token in tokens if token not in known] for family, tokens in FAMILIES.items()}
    nearest = min(missing, key=lambda family: len(missing[family]))
    if missing[nearest]:
        raise UserError(
            f"--fim: this model has no tokens to fill in the middle with: {', '.join(missing[nearest])} ({nearest}'s) "
            f"missing, and no other family's are there. Leave --fim away, or take a model of {', '.join(FAMILIES)}"
        )
    return FimTokens(*tokenizer.checked([known[token] for token in FAMILIES[nearest]]))


def split_in_three(text: str, rng: random.Random) -> tuple[str, str, str]:
    """Prefix, middle and suffix, cut at two characters drawn evenly. Each may be empty."""
    start, stop = sorted(rng.randint(0, len(text)) for _ in range(2))
    return text[:start], text[start:stop], text[stop:]


def fill_in_the_middle(
    tokenizer: Tokenizer, tokens: FimTokens, text: str, rng: random.Random, *, suffix_first: bool
) -> Example:
    """A whole text with its middle at the end, as SPM (suffix_first) or PSM; learnt as a plain document is."""
    parts = [Segment(part, is_special=False, is_learnt=True) for part in split_in_three(text, rng)]
    prefix, middle, suffix = tokenizer.encode_segments(parts)  # as parts of one line: SentencePiece adds no space
    if suffix_first:
        ids = [tokens.prefix, tokens.suffix, *suffix, tokens.middle, *prefix, *middle]
    else:
        ids = [tokens.prefix, *prefix, tokens.suffix, *suffix, tokens.middle, *middle]
    ids.append(tokens.end)
    return Example(tokenizer.prefix_ids + ids, [IGNORE] * len(tokenizer.prefix_ids) + ids)


def fim_pieces(
    tokenizer: Tokenizer, tokens: FimTokens, text: str, *, size: int, rate: float, rng: random.Random
) -> Iterator[Example]:
    """The text in parts of at most `size` tokens, each transformed at `rate` and else a plain document.

    The parts join to `text` and end where a line does, if they can. Each begins with what the model expects before a
    document (BOS); a plain one has the end token only where the text ends. Raises UserError for a rate outside 0 to 1
    and for rows too short for a single character.
    """
    if not 0 <= rate <= 1:
        raise UserError(f"--fim {rate:g}: give the share of the texts to transform, 0 to 1")
    while True:
        is_moved, suffix_first = rng.random() < rate, rng.random() < 0.5
        part = text[: LONGEST_TOKEN * size]
        while True:
            if is_moved:
                example = fill_in_the_middle(tokenizer, tokens, part, rng, suffix_first=suffix_first)
            else:
                example = _without_end(plain_document(tokenizer, part), is_last=len(part) == len(text))
            if len(example.input_ids) <= size:
                break
            part = _shorter(part, size / len(example.input_ids))
        yield example
        text = text[len(part) :]
        if not text:
            return


def _without_end(example: Example, *, is_last: bool) -> Example:
    return example if is_last else Example(example.input_ids[:-1], example.labels[:-1])


def _shorter(text: str, share: float) -> str:
    """About this share of a text from its start, up to a line's end if there is one."""
    if len(text) < 2:
        raise UserError("--row-tokens: too few for filling in the middle; give more")
    end = max(1, min(len(text) - 1, int(len(text) * share)))
    return text[: text.rfind("\n", 0, end) + 1 or end]
