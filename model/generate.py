"""Batched sampling over a static KV cache.

Prompts of a batch are read in one packed pass without padding, once for all samples of a prompt. Then every row grows
by a token a step; a prompt whose rows have all stopped leaves the batch. A sample's random numbers depend on (seed,
prompt, sample) alone, so it does not matter which batch it sat in.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import numpy as np
import torch
from torch.nn import functional as F

from model.console import UserError, progress
from model.decoder import Decoder


@torch.inference_mode()
def generate(
    decoder: Decoder,
    prompts: list[list[int]],
    *,
    max_new_tokens: int,
    samples: int = 1,
    temperature: float | Sequence[float] = 0.0,
    top_p: float = 1.0,
    stop_ids: Collection[int],
    seed: int = 0,
    rows: int = 96,
    what: str = "sampling",
    on_token: Callable[[int], None] | None = None,
) -> list[list[list[int]]]:
    """Continue prompts.

    prompts         token ids, none empty
    max_new_tokens  tokens at most, per sample
    samples         continuations per prompt
    temperature     one for all samples or one for each; 0 takes the likeliest token
    top_p           sample from the smallest set of tokens with this probability together (arXiv:1904.09751)
    stop_ids        tokens that end a continuation; they are not part of it
    rows            sequences that grow at the same time
    on_token        called with each new token, for one prompt and one sample (streaming)
    Returns [prompt][sample] -> new token ids. UserError if a prompt and its continuation exceed the model's positions.
    """
    limit = decoder.config.max_position_embeddings
    longest = max((len(prompt) for prompt in prompts), default=0)
    if longest + max_new_tokens > limit:
        raise UserError(
            f"a prompt of {longest} tokens + {max_new_tokens} new ones exceed the model's {limit} positions; "
            "shorten it or ask for fewer new tokens"
        )
    if not all(prompts):
        raise ValueError("a prompt is empty")
    temperatures = [temperature] * samples if isinstance(temperature, int | float) else list(temperature)
    if len(temperatures) != samples:
        raise ValueError(f"{len(temperatures)} temperatures for {samples} samples")
    was_training = decoder.training
    decoder.eval()
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    per_batch = max(1, rows // samples)
    outputs: list[list[list[int]]] = [[[] for _ in range(samples)] for _ in prompts]
    with progress(what=what, total=len(prompts) * samples, unit="answer") as bar:
        for start in range(0, len(order), per_batch):
            batch = order[start : start + per_batch]
            uniforms = np.stack(  # [rows, max_new_tokens]
                [np.random.default_rng([seed, i, s]).random(max_new_tokens) for i in batch for s in range(samples)]
            )
            pick = _Picker(temperatures * len(batch), top_p, uniforms)
            finished = [outputs[i][s] for i in batch for s in range(samples)]
            _continue([prompts[i] for i in batch], samples, finished, decoder, max_new_tokens, stop_ids, pick, on_token)
            bar.update(len(finished))
    decoder.train(was_training)
    return outputs


def _continue(prompts, samples, outputs, decoder, max_new_tokens, stop_ids, pick, on_token) -> None:
    """Fill `outputs`, one list a row: prompt by prompt, its samples side by side."""
    lengths = [len(prompt) for prompt in prompts]
    packed = torch.tensor([[token for prompt in prompts for token in prompt]], device=decoder.device)
    cache = decoder.new_cache(samples=samples, prompt_tokens=max(lengths), new_tokens=max_new_tokens)
    last = torch.tensor(lengths, device=decoder.device).cumsum(0) - 1
    hidden = decoder.hidden_states(packed, lengths, cache)[0, last].repeat_interleave(samples, dim=0)  # [rows, D]
    owners = list(range(len(outputs)))  # which output each row writes
    stopped: set[int] = set()
    for step in range(max_new_tokens):
        tokens = pick(F.linear(hidden, decoder.head_weight).float(), owners, step)  # [rows]
        for owner, token in zip(owners, tokens.tolist(), strict=True):  # here the host waits for the device
            if token in stop_ids:
                stopped.add(owner)
            elif owner not in stopped:
                outputs[owner].append(token)
                if on_token:
                    on_token(token)
        groups = [owners[i : i + samples] for i in range(0, len(owners), samples)]  # a prompt's continuations
        going = [i for i, group in enumerate(groups) if not stopped.issuperset(group)]
        if not going or step + 1 == max_new_tokens:
            return
        if len(going) <= 0.75 * len(groups):  # leaving costs a copy of the cache: a few at a time
            tokens = tokens.view(len(groups), samples)[going].flatten()
            owners = [owner for i in going for owner in groups[i]]
            cache.keep(going)
        hidden = decoder.hidden_states(tokens[:, None], cache=cache)[:, 0]


class _Picker:
    """Chooses the next token of each row by inverting the distribution function at a random number of its own."""

    def __init__(self, temperatures: list[float], top_p: float, uniforms: np.ndarray) -> None:
        self.temperatures, self.top_p, self.uniforms = np.array(temperatures), top_p, uniforms

    def __call__(self, logits: torch.Tensor, outputs: list[int], step: int) -> torch.Tensor:
        """logits [rows, V] fp32; `outputs` names the random stream of each row. Returns ids [rows]."""
        tokens = logits.argmax(-1)
        drawn = [row for row, output in enumerate(outputs) if self.temperatures[output] > 0]
        if drawn:
            streams = [outputs[row] for row in drawn]
            temperatures, u = (
                torch.from_numpy(values).to(logits.device, torch.float32)[:, None]  # [drawn, 1]
                for values in (self.temperatures[streams], self.uniforms[streams, step])
            )
            tokens[drawn] = self._draw(torch.softmax(logits[drawn] / temperatures, dim=-1), u)
        return tokens

    def _draw(self, probabilities: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
        """One token a row. probabilities [n, V], u [n, 1] in [0, 1) -> [n]."""
        vocabulary = probabilities.shape[-1]
        if self.top_p >= 1:
            return _invert(probabilities, u)[:, 0]
        tokens, is_whole = self._draw_from_nucleus(probabilities, u, min(256, vocabulary))
        wide = (~is_whole).nonzero()[:, 0]  # few rows are so flat that 256 tokens do not hold their nucleus
        if len(wide):
            tokens[wide] = self._draw_from_nucleus(probabilities[wide], u[wide], vocabulary)[0]
        return tokens

    def _draw_from_nucleus(self, probabilities, u, size: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens [n], and whether the `size` likeliest tokens held the whole nucleus [n] bool."""
        top, ids = probabilities.topk(size, dim=-1)
        before = top.cumsum(-1) - top  # mass ahead of each token: the first one always stays
        kept = top.masked_fill(before >= self.top_p, 0.0)
        is_whole = top.sum(-1) >= self.top_p
        return ids.gather(-1, _invert(kept, u))[:, 0], is_whole


def _invert(weights: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
    """Where the share u of the whole weight falls: weights [n, V], u [n, 1] -> [n, 1] int64."""
    cumulative = weights.cumsum(-1)
    return torch.searchsorted(cumulative, u * cumulative[:, -1:]).clamp(max=weights.shape[-1] - 1)
