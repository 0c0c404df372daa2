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

from model.device import on_gpu

NUCLEUS = (256, 4096)  # likeliest words to look for the nucleus in; a row whose nucleus is larger gets the next try
GROUP = 16
CACHED = 1 << 20  # numbers


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

    logits        [R, V], any dtype; what is computed from them is fp32
    temperatures  [R]; 0: the likeliest token
    draws         [R] in [0, 1), the random number of each row
    seen          [R, V] bool, tokens that the penalty falls on
    Returns [R] int64.
    """
    # A few rows at a time on a CPU: what stays in its cache is several times as fast as what does not.
    rows = len(logits) if on_gpu(logits) else max(1, CACHED // logits.shape[1])
    parts = [slice(start, start + rows) for start in range(0, len(logits), rows)]
    return torch.cat(
        [
            _next_tokens(logits[at].float(), temperatures[at], draws[at], rules, None if seen is None else seen[at])
            for at in parts
        ]
    )


def _next_tokens(logits, temperatures, draws, rules: Sampling, seen) -> torch.Tensor:
    if seen is not None:
        penalty = rules.repetition_penalty
        logits = torch.where(seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits)
    if not temperatures.any():
        return logits.argmax(-1)
    is_drawn = temperatures > 0
    scale, u = (
        torch.from_numpy(values.astype(np.float32)).to(logits.device)[:, None]  # [R, 1]
        for values in (np.where(is_drawn, temperatures, 1.0), draws)
    )
    drawn = _draw(logits / scale, u, rules)
    return drawn if is_drawn.all() else torch.where(torch.from_numpy(is_drawn).to(u.device), drawn, logits.argmax(-1))


def _draw(logits: torch.Tensor, u: torch.Tensor, rules: Sampling) -> torch.Tensor:
    """logits [R, V], u [R, 1] -> [R]."""
    probabilities = logits.softmax(-1)
    vocabulary = logits.shape[-1]
    if rules.top_k:
        top, ids = _likeliest(probabilities, min(rules.top_k, vocabulary))
        top = top / top.sum(-1, keepdim=True)  # what top-k has cut away has no weight in the rules that follow
        return _pick(top, ids, _kept(top, rules), u)
    if rules.top_p >= 1:
        weakest = rules.min_p * probabilities.amax(-1, keepdim=True)
        return _invert(probabilities.masked_fill(probabilities < weakest, 0.0), u)[:, 0]
    tokens = torch.zeros(len(logits), dtype=torch.int64, device=logits.device)
    rows = torch.arange(len(logits), device=logits.device)
    for width in (*(width for width in NUCLEUS if width < vocabulary), vocabulary):
        top, ids = _likeliest(probabilities[rows] if len(rows) < len(probabilities) else probabilities, width)
        kept = _kept(top, rules)
        tokens[rows] = _pick(top, ids, kept, u[rows])
        rows = rows[kept[:, -1]]  # the last of so many is still kept: there may be more
        if width == vocabulary or not len(rows):
            return tokens


def _kept(top: torch.Tensor, rules: Sampling) -> torch.Tensor:
    """What top-p and min-p keep of probabilities sorted from the likeliest: [R, K] -> bool."""
    kept = top.cumsum(-1) - top < rules.top_p  # mass ahead of each token: the first one always stays
    return kept & (top >= rules.min_p * top[:, :1])


def _pick(top, ids, kept, u) -> torch.Tensor:
    return ids.gather(-1, _invert(top.masked_fill(~kept, 0.0), u))[:, 0]


def _likeliest(x: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """x.topk(k): values and indices [R, k], largest first; several times as fast on a large vocabulary.

    The k largest lie in the k groups of words with the largest maxima, and finding those is one pass.
    """
    rows, vocabulary = x.shape
    if vocabulary % GROUP or 4 * k * GROUP > vocabulary:
        return x.topk(k, dim=-1)
    groups = x.view(rows, GROUP, -1)  # the words of a group lie far apart: so maxima are taken over whole stretches
    best = groups.amax(1).topk(k, dim=-1, sorted=False).indices  # [R, k]
    candidates = groups.gather(2, best[:, None].expand(-1, GROUP, -1)).flatten(1)  # [R, GROUP · k]
    top, at = candidates.topk(k, dim=-1)
    return top, at // k * groups.shape[2] + best.gather(1, at % k)


def _invert(weights: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
    """Where the share u of the whole weight falls: weights [R, V], u [R, 1] -> [R, 1] int64."""
    cumulative = weights.cumsum(-1)
    u = u.clamp(max=1 - 2**-23)  # in fp32 a number just below 1 may have become 1
    return torch.searchsorted(cumulative, u * cumulative[:, -1:], right=True).clamp(max=weights.shape[-1] - 1)
