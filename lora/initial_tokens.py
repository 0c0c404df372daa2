"""The tokens that virtual tokens start as: a text's, or frequent ones.

Real words are a better start than random numbers, the more so the smaller the model (Lester et al., arXiv:2104.08691,
section 3.2 and figure 3; Li & Liang, arXiv:2101.00190, section 7.4).
"""

from __future__ import annotations

import random

from common.console import UserError
from model.tokenizer import Tokenizer

FREQUENT = 5_000  # ids to draw from: a BPE vocabulary lists its merges by frequency, after single bytes


def initial_tokens(tokenizer: Tokenizer, count: int, *, text: str | None, seed: int) -> list[int]:
    """`count` token ids: those of the text, repeated or cut; without a text, drawn from the frequent ones.

    A text's control tokens are plain text, as in user code. UserError for a text without tokens.
    """
    if text is not None:
        ids = tokenizer.encode(text)
        if not ids:
            raise UserError("the text that virtual tokens start as is empty")
        return [ids[n % len(ids)] for n in range(count)]

    # neither added tokens, such as control tokens, nor ids without a token
    left_out = {*tokenizer.backend.get_added_tokens_decoder(), *tokenizer.unused_ids}
    known = [id_ for id_ in range(min(FREQUENT, tokenizer.backend.get_vocab_size())) if id_ not in left_out]
    return random.Random(f"virtual tokens/{seed}").choices(known, k=count)
