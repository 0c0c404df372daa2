"""Which token comes next: the rules that reshape the distribution, and a draw that can be repeated.

The order of the rules is that of transformers' logits processors: repetition penalty, temperature, top-k, top-p, min-p.
A draw inverts the distribution function at a random number that belongs to one (seed, prompt, sample, step) and to
nothing else, so that it does not matter which batch a sample sat in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

FIRST_GUESS = 256  # likeliest tokens to look at; few rows are so flat that these do not hold what the rules keep


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen.

    temperature         one for all samples or one for each; 0 takes the likeliest token
    top_k               sample from this many likeliest tokens (arXiv:1805.04833); 0: all
    top_p               … from the smallest set of likeliest tokens with this probability together (arXiv:1904.09751)
    min_p               … from tokens at least this many times as probable as the likeliest (arXiv:2407.01082)
    repetition_penalty  divides the positive logits of tokens already in prompt or answer, multiplies the negative ones
                        (CTRL, arXiv:1909.05858); 1: none
    """

    temperature: float | Sequence[float] = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0

    def __post_init__(self) -> None:
        temperatures = [self.temperature] if isinstance(self.temperature, int | float) else self.temperature
        if any(not 0 <= t < float("inf") for t in temperatures):
            raise ValueError("a temperature is negative or not finite")
        if self.top_k < 0 or not 0 < self.top_p <= 1 or not 0 <= self.min_p <= 1 or not self.repetition_penalty > 0:
            raise ValueError("top_k >= 0, 0 < top_p <= 1, 0 <= min_p <= 1 and repetition_penalty > 0 are needed")

    def of_sample(self, sample: int) -> float:
        """The temperature of one of a prompt's samples."""
        return self.temperature if isinstance(self.temperature, int | float) else self.temperature[sample]


def uniforms(seed: int, prompt: int, sample: int, count: int) -> np.ndarray:
    """The random numbers of one sample, one for each of its tokens: [count] in [0, 1)."""
    return np.random.default_rng([seed, prompt, sample]).random(count)


def next_tokens(
    logits: torch.Tensor,
    temperatures: np.ndarray,
    draws: np.ndarray,
    rules: Sampling,
    seen: torch.Tensor | None = None,
) -> torch.Tensor:
    """Choose one token a row.

    logits        [R, V] in fp32; changed in place by a repetition penalty
    temperatures  [R]; 0: the likeliest token
    draws         [R] in [0, 1), the random number of each row
    seen          [R, V] bool, tokens that the penalty falls on
    Returns [R] int64.
    """
    if seen is not None:
        penalty = rules.repetition_penalty
        logits = torch.where(seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits)
    if not temperatures.any():
        return logits.argmax(-1)
    is_drawn = torch.from_numpy(temperatures > 0).to(logits.device)
    scale, u = (
        torch.from_numpy(values.astype(np.float32)).to(logits.device)[:, None]  # [R, 1]
        for values in (np.where(temperatures > 0, temperatures, 1.0), draws)
    )
    drawn = _draw(logits / scale, u, rules)
    return drawn if bool((temperatures > 0).all()) else torch.where(is_drawn, drawn, logits.argmax(-1))


def _draw(logits: torch.Tensor, u: torch.Tensor, rules: Sampling) -> torch.Tensor:
    """logits [R, V], u [R, 1] -> [R]."""
    vocabulary = logits.shape[-1]
    if rules.top_p >= 1 and rules.min_p <= 0 and not 0 < rules.top_k < vocabulary:
        return _invert(logits.softmax(-1), u)[:, 0]
    width = min(rules.top_k or FIRST_GUESS, vocabulary)
    total = logits.logsumexp(-1, keepdim=True)  # [R, 1]
    tokens, is_whole = _draw_from_likeliest(logits, total, u, width, rules)
    wide = (~is_whole).nonzero()[:, 0] if not rules.top_k else []
    if len(wide):
        tokens[wide] = _draw_from_likeliest(logits[wide], total[wide], u[wide], vocabulary, rules)[0]
    return tokens


def _draw_from_likeliest(logits, total, u, width: int, rules: Sampling) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens [R], and whether the `width` likeliest held all that the rules keep: [R] bool."""
    top, ids = logits.topk(width, dim=-1)  # [R, width], likeliest first
    whole = top.logsumexp(-1, keepdim=True) if rules.top_k else total  # top-k comes first: what it cuts has no weight
    weights = (top - whole).exp()
    kept = torch.ones_like(weights, dtype=torch.bool)
    if rules.top_p < 1:
        kept = weights.cumsum(-1) - weights < rules.top_p  # mass ahead of each token: the first one always stays
    if rules.min_p > 0:
        kept &= weights >= rules.min_p * weights[:, :1]
    tokens = ids.gather(-1, _invert(weights.masked_fill(~kept, 0.0), u))[:, 0]
    is_whole = ~kept[:, -1] | (width == logits.shape[-1])
    return tokens, is_whole


def _invert(weights: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
    """Where the share u of the whole weight falls: weights [R, V], u [R, 1] -> [R, 1] int64."""
    cumulative = weights.cumsum(-1)
    u = u.clamp(max=1 - 2**-23)  # in fp32 a number just below 1 may have become 1
    return torch.searchsorted(cumulative, u * cumulative[:, -1:], right=True).clamp(max=weights.shape[-1] - 1)
