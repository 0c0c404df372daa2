"""Choosing the next token: rules that reshape the distribution, and a reproducible draw.

The rules apply in the order of transformers' logits processors: repetition penalty, temperature, top-k, top-p, min-p.
A draw inverts the cumulative distribution at a random number that depends only on (seed, prompt, sample, step), so that
a sample is the same in any batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from model.device import on_gpu

NUCLEUS = (256, 4096)  # search the nucleus among this many most likely tokens; rows with a larger one try the next
GROUP = 16  # tokens, of `most_likely`
CACHED = 1 << 20  # logits that fit a CPU's cache


@dataclass(frozen=True)
class Sampling:
    """How tokens are sampled.

    temperature         one for all samples, or one for each; 0: greedy
    top_k               sample from the k most likely tokens (arXiv:1805.04833); 0: from all
    top_p               … from the smallest set of most likely tokens whose probabilities add up to this
                        (arXiv:1904.09751)
    min_p               … from tokens at least this many times as probable as the most likely one (arXiv:2407.01082)
    repetition_penalty  divides the positive logits of tokens already in prompt or answer, multiplies the negative ones
                        (CTRL, arXiv:1909.05858); 1: none
    samples             continuations per prompt
    seed                of the random numbers: one for all prompts, or one for each
    """

    temperature: float | Sequence[float] = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    samples: int = 1
    seed: int | Sequence[int] = 0

    def __post_init__(self) -> None:
        temperatures = self.temperature
        if isinstance(temperatures, int | float):
            temperatures = [temperatures]
        elif len(temperatures) != self.samples:
            raise ValueError(f"{len(temperatures)} temperatures for {self.samples} samples")
        if any(not 0 <= t < float("inf") for t in temperatures):
            raise ValueError("a temperature is negative or not finite")
        if self.top_k < 0 or not 0 < self.top_p <= 1 or not 0 <= self.min_p <= 1 or not self.repetition_penalty > 0:
            raise ValueError("top_k >= 0, 0 < top_p <= 1, 0 <= min_p <= 1 and repetition_penalty > 0 are needed")

    def temperature_of(self, sample: int) -> float:
        """The temperature of one of a prompt's samples."""
        return self.temperature if isinstance(self.temperature, int | float) else self.temperature[sample]

    def uniforms(self, prompt: int, sample: int, count: int) -> np.ndarray:
        """The random numbers of one sample, one for each of its tokens: [count] in [0, 1)."""
        of_prompt = [self.seed, prompt] if isinstance(self.seed, int) else [self.seed[prompt]]
        return np.random.default_rng([*of_prompt, sample]).random(count)


GREEDY = Sampling()


def next_tokens(
    logits: torch.Tensor,
    temperatures: np.ndarray,
    uniforms: np.ndarray,
    rules: Sampling,
    seen: torch.Tensor | None = None,
) -> torch.Tensor:
    """Choose one token per row.

    logits        [R, V], any dtype; computed in fp32
    temperatures  [R]; 0: greedy
    uniforms      [R] in [0, 1), the random number of each row
    seen          [R, V] bool, tokens that the repetition penalty applies to
    Returns [R] int64.
    """
    # a few rows at a time on a CPU: several times faster if they stay in its cache
    rows = len(logits) if on_gpu(logits) else max(1, CACHED // logits.shape[1])
    chosen = []
    for start in range(0, len(logits), rows):
        at = slice(start, start + rows)
        of_rows = None if seen is None else seen[at]
        chosen.append(_next_tokens(logits[at].float(), temperatures[at], uniforms[at], rules, of_rows))
    return torch.cat(chosen)


def _next_tokens(logits, temperatures, uniforms, rules: Sampling, seen) -> torch.Tensor:
    """`next_tokens` of a few rows: logits [R, V] fp32 -> [R]."""
    # repetition penalty: towards zero if positive, away from it if negative
    if seen is not None:
        penalty = rules.repetition_penalty
        logits = torch.where(seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits)

    # greedy, all rows
    if not temperatures.any():
        return logits.argmax(-1)

    # temperature, and the random number: [R, 1] each; a greedy row is drawn too, and then overwritten
    is_drawn = temperatures > 0
    scale, u = (
        torch.from_numpy(values.astype(np.float32)).to(logits.device)[:, None]
        for values in (np.where(is_drawn, temperatures, 1.0), uniforms)
    )
    drawn = _draw(logits / scale, u, rules)
    return drawn if is_drawn.all() else torch.where(torch.from_numpy(is_drawn).to(u.device), drawn, logits.argmax(-1))


def _draw(logits: torch.Tensor, u: torch.Tensor, rules: Sampling) -> torch.Tensor:
    """logits [R, V], u [R, 1] -> [R]."""
    probabilities = logits.softmax(-1)
    vocabulary = logits.shape[-1]

    # top-k: tokens outside it have no weight in the rules that follow
    if rules.top_k:
        top, ids = most_likely(probabilities, min(rules.top_k, vocabulary))
        top = top / top.sum(-1, keepdim=True)
        return _pick(top, ids, _kept(top, rules), u)

    # min-p alone, or no rule at all: nothing needs to be sorted
    if rules.top_p >= 1:
        weakest = rules.min_p * probabilities.amax(-1, keepdim=True)
        return _invert(probabilities.masked_fill(probabilities < weakest, 0.0), u)[:, 0]

    # top-p: among the most likely tokens, and among more of them for the rows whose nucleus may be larger
    tokens = torch.zeros(len(logits), dtype=torch.int64, device=logits.device)
    rows = torch.arange(len(logits), device=logits.device)
    for width in (*(width for width in NUCLEUS if width < vocabulary), vocabulary):
        top, ids = most_likely(probabilities[rows] if len(rows) < len(probabilities) else probabilities, width)
        kept = _kept(top, rules)
        tokens[rows] = _pick(top, ids, kept, u[rows])
        # where even the least likely of them is kept, others may be in the nucleus too
        rows = rows[kept[:, -1]]
        if not len(rows):
            break
    return tokens


def _kept(top: torch.Tensor, rules: Sampling) -> torch.Tensor:
    """What top-p and min-p keep of probabilities sorted in descending order: [R, K] -> bool."""
    # the probability before each token: 0 for the first, which is always kept
    kept = top.cumsum(-1) - top < rules.top_p
    return kept & (top >= rules.min_p * top[:, :1])


def _pick(top, ids, kept, u) -> torch.Tensor:
    """A draw from what is kept of the K most likely tokens: top, ids, kept [R, K], u [R, 1] -> [R]."""
    return ids.gather(-1, _invert(top.masked_fill(~kept, 0.0), u))[:, 0]


def most_likely(x: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """x.topk(k): values and indices [R, k], largest first; several times faster on a large vocabulary.

    The k largest values lie in the k groups with the largest maxima, which one pass finds.
    """
    rows, vocabulary = x.shape
    if vocabulary % GROUP or 4 * k * GROUP > vocabulary:
        return x.topk(k, dim=-1)
    # a group is strided, so that the maxima run over contiguous memory: [R, GROUP, V / GROUP]
    groups = x.view(rows, GROUP, -1)
    best = groups.amax(1).topk(k, dim=-1, sorted=False).indices  # [R, k]

    # all members of those groups: [R, GROUP · k]
    candidates = groups.gather(2, best[:, None].expand(-1, GROUP, -1)).flatten(1)
    top, at = candidates.topk(k, dim=-1)

    # back to indices of x: member at // k of group best[at % k]
    return top, at // k * groups.shape[2] + best.gather(1, at % k)


def _invert(weights: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
    """The index at which the share u of the total weight falls: weights [R, V], u [R, 1] -> [R, 1] int64."""
    cumulative = weights.cumsum(-1)
    # in fp32 a number just below 1 may round to 1
    u = u.clamp(max=1 - 2**-23)
    return torch.searchsorted(cumulative, u * cumulative[:, -1:], right=True).clamp(max=weights.shape[-1] - 1)
