"""Batched sampling over a static KV cache, with continuous batching.

    waiting   (prompt 3, sample 1) (prompt 3, sample 2) (prompt 4, sample 0) …      sorted by the prompts' lengths
    rows      ▏p0 s0 ▏p0 s1 ▏p1 s0 ▏p2 s2 ▏ …                                        each grows by a token a step

A prompt is read once for all of its samples. A row that has finished is taken over by a sample that waits; new prompts
are read together, packed without padding. What a sample becomes depends on its prompt, the seed, and its number alone:
not on the rows beside it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from common.console import UserError, progress
from model import fast
from model.decoder import Decoder
from model.device import on_gpu
from model.fast.cuda_graph import GraphedStep
from model.sampling import Sampling, next_tokens, uniforms

PREFILL_TOKENS = {"cpu": 1024, "cuda": 8192}  # of prompts, read in one pass: what a CPU's cache holds is read faster


@dataclass
class _Sample:
    """One answer to one prompt, on its way."""

    prompt: int
    number: int
    temperature: float
    draws: np.ndarray  # a random number for each token
    ids: list[int] = field(default_factory=list)


@torch.inference_mode()
def generate(
    decoder: Decoder,
    prompts: list[list[int]],
    *,
    max_new_tokens: int,
    samples: int = 1,
    temperature: float | Sequence[float] = 0.0,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
    repetition_penalty: float = 1.0,
    stop_ids: Collection[int],
    unused_ids: Collection[int] = (),
    stop_strings: Collection[str] = (),
    decode: Callable[[list[int]], str] | None = None,
    seed: int = 0,
    rows: int = 160,
    what: str = "sampling",
    on_token: Callable[[int, int, int], None] | None = None,
) -> list[list[list[int]]]:
    """Continue prompts.

    prompts         token ids, none empty
    max_new_tokens  tokens at most, per sample
    samples         continuations per prompt
    temperature, top_k, top_p, min_p, repetition_penalty  see model.sampling.Sampling; a temperature may be given for
                    each sample
    stop_ids        tokens that end a continuation; they are not part of it
    unused_ids      never generated: the rows of the embedding that have no token, Tokenizer.unused_ids
    stop_strings    texts that end a continuation; the token that completes one is its last. Needs `decode`, the
                    tokenizer's; cut the text itself with `before_stop`
    rows            sequences that grow at the same time
    on_token        called with (prompt, sample, token) as soon as a token is there; there is no progress bar then
    Returns [prompt][sample] -> new token ids. UserError if a prompt and its continuation exceed the model's positions.
    """
    _check(decoder, prompts, max_new_tokens)
    rules = Sampling(temperature, top_k, top_p, min_p, repetition_penalty)
    if stop_strings and decode is None:
        raise ValueError("stop_strings needs decode")
    if not isinstance(temperature, int | float) and len(temperature) != samples:
        raise ValueError(f"{len(temperature)} temperatures for {samples} samples")
    all_samples = [
        [_Sample(p, s, rules.of_sample(s), uniforms(seed, p, s, max_new_tokens)) for s in range(samples)]
        for p in range(len(prompts))
    ]
    by_length = sorted(range(len(prompts)), key=lambda p: len(prompts[p]))
    waiting = deque(sample for p in by_length for sample in all_samples[p])

    def is_over(sample: _Sample, token: int) -> bool:
        if token in stop_ids:
            return True
        sample.ids.append(token)
        if on_token:
            on_token(sample.prompt, sample.number, token)
        if len(sample.ids) == max_new_tokens:
            return True
        return bool(stop_strings) and _has_stop(decode, sample.ids, stop_strings)

    was_training = decoder.training
    decoder.eval()
    with progress(what=what, total=len(waiting), unit="answer", hidden=on_token is not None) as bar:
        if waiting and max_new_tokens > 0:
            sizes = {"samples": samples, "rows": rows, "new_tokens": max_new_tokens}
            batch = _Batch(decoder, prompts, waiting, rules, unused_ids=unused_ids, **sizes)
            while batch.refill():
                for row, token in zip(batch.active, batch.choose(), strict=True):
                    if is_over(batch.samples[row], token):
                        batch.leave(row)
                        bar.update()
                batch.step()
    decoder.train(was_training)
    return [[sample.ids for sample in of_prompt] for of_prompt in all_samples]


def before_stop(text: str, stop_strings: Collection[str]) -> str:
    """The text up to the first stop string in it."""
    found = [at for stop in stop_strings if (at := text.find(stop)) >= 0]
    return text[: min(found)] if found else text


class _Batch:
    """Which sample sits in which row, which prompt in which slot of the cache, and what each row says next."""

    def __init__(
        self, decoder, prompts, waiting, rules: Sampling, *, unused_ids, samples: int, rows: int, new_tokens: int
    ) -> None:
        self.decoder, self.prompts, self.waiting, self.rules = decoder, prompts, waiting, rules
        self.unused = torch.tensor(sorted(unused_ids), dtype=torch.int64, device=decoder.device)
        rows = min(rows, len(waiting))
        # with one lane an answer takes its prompt along when it leaves, and a second sample would miss it
        lanes = min(samples, max(2, rows))
        # twice what the rows need: a prompt's last samples may go on for long while others have taken their places
        slots = min(len(prompts), -(-rows // lanes) * (1 if lanes == 1 else 2))
        longest = max(map(len, prompts)), new_tokens
        self.cache = decoder.new_cache(slots=slots, lanes=lanes, rows=rows, longest=longest)
        self.samples: list[_Sample | None] = [None] * rows
        self.lane = [0] * rows
        self.left: list[int] = []  # rows that the cache does not yet know to be free
        self.free_slots = list(range(slots))
        self.slot_of: dict[int, int] = {}  # prompt -> slot
        self.free_lanes: dict[int, list[int]] = {}  # prompt -> lanes of its slot that nobody sits in
        self.unfinished = {prompt: samples for prompt in range(len(prompts))}
        width = decoder.config.hidden_size
        dtype = self.cache.answers.values.dtype
        self.first = torch.zeros(slots, width, dtype=dtype, device=decoder.device)  # what each prompt ends in
        self.hidden = torch.zeros(rows, width, dtype=dtype, device=decoder.device)  # what each row's next token is from
        self.seen = None
        if rules.repetition_penalty != 1:
            self.seen = torch.zeros(rows, decoder.config.vocab_size, dtype=torch.bool, device=decoder.device)
        self.forward = GraphedStep(decoder, self.cache) if fast.is_on() and on_gpu(decoder.device) else self._forward

    @property
    def active(self) -> list[int]:
        """Rows that somebody sits in."""
        return [row for row, sample in enumerate(self.samples) if sample is not None]

    def refill(self) -> bool:
        """Seat waiting samples in free rows; False when nobody is left.

        New prompts are read only for several rows at once: a pass over few tokens is slow.
        """
        free = [row for row, sample in enumerate(self.samples) if sample is None]
        enough = len(free) >= min(len(self.samples) // 8, len(self.waiting)) or len(free) == len(self.samples)
        seated, new_prompts = [], []
        while self.waiting and len(seated) < len(free):
            prompt, row = self.waiting[0].prompt, free[len(seated)]
            if prompt not in self.slot_of:
                if not enough or not self.free_slots:
                    break
                slot = row if self.cache.lanes == 1 else self.free_slots[-1]
                self.free_slots.remove(slot)
                self.slot_of[prompt] = slot
                self.free_lanes[prompt] = list(range(self.cache.lanes))
                new_prompts.append(prompt)
            self.samples[row], self.lane[row] = self.waiting.popleft(), self.free_lanes[prompt].pop()
            seated.append(row)
        self._read(new_prompts)
        if seated:
            slots = [self.slot_of[self.samples[row].prompt] for row in seated]
            self.cache.seat(seated, slots, [self.lane[row] for row in seated])
            self.hidden[seated] = self.first[slots]
        if self.seen is not None:
            for row in seated:
                self.seen[row] = False
                self.seen[row, self.prompts[self.samples[row].prompt]] = True
        return bool(self.active)

    def _read(self, prompts: list[int]) -> None:
        """Fill the cache with these prompts, several in a pass, and keep what each ends in."""
        while prompts:
            total = np.cumsum([len(self.prompts[p]) for p in prompts])
            now = prompts[: max(1, int((total <= PREFILL_TOKENS[self.decoder.device.type]).sum()))]
            prompts = prompts[len(now) :]
            lengths, slots = [len(self.prompts[p]) for p in now], [self.slot_of[p] for p in now]
            packed = torch.tensor([[token for p in now for token in self.prompts[p]]], device=self.decoder.device)
            self.cache.admit(slots, lengths)
            hidden = self.decoder.hidden_states(packed, lengths, self.cache)[0]  # [T, D]
            self.first[slots] = hidden[torch.tensor(lengths).cumsum(0).to(hidden.device) - 1]

    def choose(self) -> list[int]:
        """The next token of every active row. Here the host waits for the device."""
        active = self.active
        is_full = len(active) == len(self.samples)
        logits = self.decoder.logits(self.hidden if is_full else self.hidden[active])  # [active, V]
        if len(self.unused):
            logits.index_fill_(1, self.unused, -torch.inf)
        going = [self.samples[row] for row in active]
        temperatures = np.array([sample.temperature for sample in going])
        draws = np.array([sample.draws[len(sample.ids)] for sample in going])
        seen = None if self.seen is None else self.seen[active]
        tokens = next_tokens(logits, temperatures, draws, self.rules, seen)
        if self.seen is not None:
            self.seen[active, tokens] = True
        return tokens.tolist()

    def leave(self, row: int) -> None:
        """Free a row, and its prompt's slot after the last sample."""
        prompt = self.samples[row].prompt
        self.samples[row] = None
        self.left.append(row)
        self.free_lanes[prompt].append(self.lane[row])
        self.unfinished[prompt] -= 1
        if not self.unfinished[prompt]:
            slot = self.slot_of.pop(prompt)
            self.free_slots.append(slot)
            self.cache.forget(slot)
            del self.free_lanes[prompt]

    def step(self) -> None:
        """Give every active row the token that it has just chosen. Rows in which nobody sits compute, unheard."""
        active = self.active
        if self.left:
            self.cache.leave(self.left)
            self.left = []
        if not active:
            return
        if not self.waiting and len(active) <= 0.75 * len(self.samples):  # leaving costs a copy: a few at a time
            self._keep(active)
            active = self.active
        tokens = [sample.ids[-1] if sample else 0 for sample in self.samples]
        self.cache.reserve({row: len(self.samples[row].ids) for row in active})
        self.hidden = self.forward(torch.tensor(tokens, device=self.decoder.device))

    def _forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """tokens [R] -> hidden states [R, D]."""
        return self.decoder.hidden_states(tokens[:, None], cache=self.cache)[:, 0]

    def _keep(self, rows: list[int]) -> None:
        self.cache.keep(rows)
        self.samples, self.lane = [self.samples[row] for row in rows], [self.lane[row] for row in rows]
        if self.seen is not None:
            self.seen = self.seen[rows]


def _check(decoder: Decoder, prompts: list[list[int]], max_new_tokens: int) -> None:
    if not all(prompts):
        raise ValueError("a prompt is empty")
    longest = max((len(prompt) for prompt in prompts), default=0)
    limit = decoder.config.max_tokens
    if longest + max_new_tokens > limit:
        raise UserError(
            f"a prompt of {longest} tokens + {max_new_tokens} new ones exceed the model's {limit} positions; "
            "shorten it or ask for fewer new tokens"
        )


def _has_stop(decode: Callable[[list[int]], str], ids: list[int], stop_strings: Collection[str]) -> bool:
    """Whether the end of an answer holds a stop string; a character takes up to four tokens of a byte each."""
    tail = decode(ids[-4 * max(map(len, stop_strings)) - 8 :])
    return any(stop in tail for stop in stop_strings)
