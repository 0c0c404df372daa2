"""Batched generation over a static KV cache, with continuous batching.

    waiting   (prompt 3, sample 1) (prompt 3, sample 2) (prompt 4, sample 0) …      sorted by prompt length
    rows      ▏p0 s0 ▏p0 s1 ▏p1 s0 ▏p2 s2 ▏ …                                        each grows by a token per step

A prompt is prefilled once for all of its samples. When a sample finishes, a waiting one takes over its row; new prompts
are prefilled together, packed without padding. A sample depends only on its prompt, the seed and its number, not on
the rows beside it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

import numpy as np
import torch

from common.console import UserError, progress
from model import fast
from model.decoder import Decoder
from model.device import on_gpu
from model.fast.cuda_graph import GraphedStep
from model.sampling import GREEDY, Sampling, next_tokens

PREFILL_TOKENS = {"cpu": 1024, "cuda": 8192}  # of prompts, per pass: on a CPU, a pass that fits the cache is faster
# share of the rows that is still in use when the others are dropped; a recorded step is then recorded anew
FEW, FEW_RECORDED = 0.75, 0.125


@dataclass(frozen=True, kw_only=True)
class Stop:
    """When a continuation ends.

    max_new_tokens  at most this many tokens
    ids             tokens that end it and are not part of it: Tokenizer.stop_ids
    strings         texts that end it; the token that completes one is its last. Cut the text itself with `before_stop`
    decode          the tokenizer's `decode`, which `strings` need
    """

    max_new_tokens: int
    ids: Collection[int]
    strings: Collection[str] = ()
    decode: Callable[[list[int]], str] | None = None

    def __post_init__(self) -> None:
        if self.strings and self.decode is None:
            raise ValueError("stop strings need decode")

    def is_complete(self, ids: list[int]) -> bool:
        """Whether a continuation of these tokens is long enough or contains a stop string."""
        return len(ids) == self.max_new_tokens or (bool(self.strings) and self._ends_with_string(ids))

    def _ends_with_string(self, ids: list[int]) -> bool:
        assert self.decode is not None
        # as many tokens as the longest string may take: a character is at most four byte tokens
        tail = self.decode(ids[-4 * max(map(len, self.strings)) - 8 :])
        return any(stop in tail for stop in self.strings)


def before_stop(text: str, stop_strings: Collection[str]) -> str:
    """The text up to the first stop string in it."""
    found = [at for stop in stop_strings if (at := text.find(stop)) >= 0]
    return text[: min(found)] if found else text


@torch.inference_mode()
def generate(
    decoder: Decoder,
    prompts: list[list[int]],
    stop: Stop,
    sampling: Sampling = GREEDY,
    *,
    unused_ids: Collection[int] = (),
    rows: int = 160,
    what: str = "sampling",
    on_token: Callable[[int, int, int], None] | None = None,
    on_answer: Callable[[int, int, list[int]], None] | None = None,
) -> list[list[list[int]]]:
    """Continue prompts.

    prompts     token ids, none empty
    unused_ids  never generated: embedding rows without a token, Tokenizer.unused_ids
    rows        sequences that grow at the same time
    what        label of the progress bar
    on_token    called with (prompt, sample, token) for each token as it is generated; hides the progress bar
    on_answer   called with (prompt, sample, its tokens) as each answer is finished, in the order in which they finish
    Returns [prompt][sample] -> new token ids. UserError if a prompt and its continuation exceed the model's positions.
    """
    _refuse_too_long(decoder, prompts, stop.max_new_tokens)

    # every sample of every prompt, shortest prompts first
    samples = [[_Sample.new(sampling, p, s, stop) for s in range(sampling.samples)] for p in range(len(prompts))]
    by_length = sorted(range(len(prompts)), key=lambda p: len(prompts[p]))
    waiting = deque(sample for p in by_length for sample in samples[p])

    # no dropout, whatever the caller was doing
    was_training = decoder.training
    decoder.eval()
    with progress(what=what, total=len(waiting), unit="answer", hidden=on_token is not None) as bar:
        if waiting and stop.max_new_tokens > 0:
            batch = _Batch(decoder, prompts, waiting, sampling, unused_ids, rows, stop.max_new_tokens)
            # idle rows take waiting samples, then every active row grows by a token
            while batch.refill():
                for row, token in zip(batch.active, batch.choose(), strict=True):
                    sample = batch.sample(row)
                    is_stop = token in stop.ids
                    if not is_stop:
                        sample.ids.append(token)
                        if on_token:
                            on_token(sample.prompt, sample.number, token)
                    # finished: the row is free for another sample
                    if is_stop or stop.is_complete(sample.ids):
                        batch.release(row)
                        bar.update()
                        if on_answer:
                            on_answer(sample.prompt, sample.number, sample.ids)
                # the tokens just chosen go through the network, which predicts the next
                batch.step()
    decoder.train(was_training)
    return [[sample.ids for sample in of_prompt] for of_prompt in samples]


@dataclass
class _Sample:
    """One continuation of one prompt, in progress."""

    prompt: int
    number: int
    temperature: float
    uniforms: np.ndarray  # a random number for each token
    ids: list[int] = field(default_factory=list)

    @classmethod
    def new(cls, sampling: Sampling, prompt: int, number: int, stop: Stop) -> _Sample:
        uniforms = sampling.uniforms(prompt, number, stop.max_new_tokens)
        return cls(prompt, number, sampling.temperature_of(number), uniforms)


class _Batch:
    """Which sample occupies which row, which prompt which slot of the cache, and the next token of each row."""

    def __init__(self, decoder, prompts, waiting, sampling: Sampling, unused_ids, rows: int, new_tokens: int) -> None:
        self.decoder, self.prompts, self.waiting, self.sampling = decoder, prompts, waiting, sampling
        self.unused = torch.tensor(sorted(unused_ids), dtype=torch.int64, device=decoder.device)

        # the size of the cache
        rows = min(rows, len(waiting))
        # with a single lane a finished answer releases its prompt too, and a second sample would miss it
        lanes = min(sampling.samples, max(2, rows))
        # twice what the rows need: a prompt's last samples may run long after others have taken their rows
        slots = min(len(prompts), -(-rows // lanes) * (1 if lanes == 1 else 2))
        longest = max(map(len, prompts)), new_tokens
        self.cache = decoder.new_cache(slots=slots, lanes=lanes, rows=rows, longest=longest)

        # rows: the sample in each, and its lane
        self.samples: list[_Sample | None] = [None] * rows
        self.lane = [0] * rows
        self.released: list[int] = []  # idle rows that the cache does not yet know to be idle

        # prompts: the slot of each, the lanes not occupied there, and the samples still to finish
        self.free_slots = list(range(slots))
        self.slot_of: dict[int, int] = {}
        self.free_lanes: dict[int, list[int]] = {}
        self.unfinished = {prompt: sampling.samples for prompt in range(len(prompts))}

        # hidden states at the last token of each prompt [P, D], and those that predict each row's next token [R, D]
        width, dtype = decoder.config.hidden_size, self.cache.answers.values.dtype
        self.prompt_hidden = torch.zeros(slots, width, dtype=dtype, device=decoder.device)
        self.hidden = torch.zeros(rows, width, dtype=dtype, device=decoder.device)

        # for the repetition penalty: the tokens in each row's prompt or answer [R, V]
        self.seen = None
        if sampling.repetition_penalty != 1:
            self.seen = torch.zeros(rows, decoder.config.vocab_size, dtype=torch.bool, device=decoder.device)
        is_recorded = fast.is_on() and on_gpu(decoder.device)
        self.forward = GraphedStep(decoder, self.cache) if is_recorded else self._forward
        self.few = FEW_RECORDED if is_recorded else FEW

    @property
    def active(self) -> list[int]:
        """Rows that hold a sample."""
        return [row for row, sample in enumerate(self.samples) if sample is not None]

    def sample(self, row: int) -> _Sample:
        """The sample of an active row."""
        sample = self.samples[row]
        assert sample is not None
        return sample

    def refill(self) -> bool:
        """Assign waiting samples to idle rows; False if no sample is left.

        New prompts are prefilled only for several rows at once: a pass over few tokens is slow.
        """
        idle = [row for row, sample in enumerate(self.samples) if sample is None]
        enough = len(idle) >= min(len(self.samples) // 8, len(self.waiting)) or len(idle) == len(self.samples)

        # a row and a lane for each waiting sample, in order
        filled, new_prompts = [], []
        while self.waiting and len(filled) < len(idle):
            prompt, row = self.waiting[0].prompt, idle[len(filled)]
            if prompt not in self.slot_of:
                if not enough or not self.free_slots:
                    break
                # with a single lane slot and row are the same
                slot = row if self.cache.lanes == 1 else self.free_slots[-1]
                self.free_slots.remove(slot)
                self.slot_of[prompt] = slot
                self.free_lanes[prompt] = list(range(self.cache.lanes))
                new_prompts.append(prompt)
            self.samples[row], self.lane[row] = self.waiting.popleft(), self.free_lanes[prompt].pop()
            filled.append(row)

        # the samples of a prompt all start from its last hidden state
        self._prefill(new_prompts)
        if filled:
            slots = [self.slot_of[self.samples[row].prompt] for row in filled]
            self.cache.seat(filled, slots, [self.lane[row] for row in filled])
            self.hidden[filled] = self.prompt_hidden[slots]
        if self.seen is not None:
            for row in filled:
                self.seen[row] = False
                self.seen[row, self.prompts[self.sample(row).prompt]] = True
        return bool(self.active)

    def _prefill(self, prompts: list[int]) -> None:
        """Fill the cache with these prompts, several per pass, and keep the last hidden state of each."""
        while prompts:
            # as many as fit into a pass, at least one
            total = np.cumsum([len(self.prompts[p]) for p in prompts])
            now = prompts[: max(1, int((total <= PREFILL_TOKENS[self.decoder.device.type]).sum()))]
            prompts = prompts[len(now) :]

            # one after another in a row: [1, T] -> [T, D]
            lengths, slots = [len(self.prompts[p]) for p in now], [self.slot_of[p] for p in now]
            packed = torch.tensor([[token for p in now for token in self.prompts[p]]], device=self.decoder.device)
            self.cache.admit(slots, lengths)
            hidden = self.decoder.hidden_states(packed, lengths, self.cache)[0]

            # what predicts the first token of the answers
            self.prompt_hidden[slots] = hidden[torch.tensor(lengths).cumsum(0).to(hidden.device) - 1]

    def choose(self) -> list[int]:
        """The next token of every active row. Here the host waits for the device."""
        # [active, V]; without copying if no row is idle
        active = self.active
        is_full = len(active) == len(self.samples)
        logits = self.decoder.logits(self.hidden if is_full else self.hidden[active])
        if len(self.unused):
            logits.index_fill_(1, self.unused, -torch.inf)

        # each sample has its own temperature and its own random numbers, wherever it sits
        samples = [self.sample(row) for row in active]
        temperatures = np.array([sample.temperature for sample in samples])
        uniforms = np.array([sample.uniforms[len(sample.ids)] for sample in samples])
        seen = None if self.seen is None else self.seen[active]
        tokens = next_tokens(logits, temperatures, uniforms, self.sampling, seen)
        if self.seen is not None:
            self.seen[active, tokens] = True
        return tokens.tolist()

    def release(self, row: int) -> None:
        """Make a row idle, and free its prompt's slot after the prompt's last sample."""
        prompt = self.sample(row).prompt
        self.samples[row] = None
        self.released.append(row)
        self.free_lanes[prompt].append(self.lane[row])
        # its keys and values are needed as long as one of its samples is waiting or growing
        self.unfinished[prompt] -= 1
        if not self.unfinished[prompt]:
            slot = self.slot_of.pop(prompt)
            self.free_slots.append(slot)
            self.cache.release_prompt(slot)
            del self.free_lanes[prompt]

    def step(self) -> None:
        """Feed every active row the token just chosen for it. Idle rows compute too; their results are discarded."""
        # rows that have just finished give back their pages
        active = self.active
        if self.released:
            self.cache.release(self.released)
            self.released = []
        if not active:
            return

        # nothing will take over idle rows: drop them. That copies, so several at a time
        if not self.waiting and len(active) <= self.few * len(self.samples):
            self._shrink_to(active)
            active = self.active

        # room for the new token of each row, then the pass: [R] -> [R, D]
        tokens = [sample.ids[-1] if sample else 0 for sample in self.samples]
        self.cache.reserve({row: len(self.sample(row).ids) for row in active})
        self.hidden = self.forward(torch.tensor(tokens, device=self.decoder.device))

    def _forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """tokens [R] -> hidden states [R, D]."""
        return self.decoder.hidden_states(tokens[:, None], cache=self.cache)[:, 0]

    def _shrink_to(self, rows: list[int]) -> None:
        self.cache.keep(rows)
        self.samples, self.lane = [self.samples[row] for row in rows], [self.lane[row] for row in rows]
        if self.seen is not None:
            self.seen = self.seen[rows]


def _refuse_too_long(decoder: Decoder, prompts: list[list[int]], max_new_tokens: int) -> None:
    if not all(prompts):
        raise ValueError("a prompt is empty")
    longest = max((len(prompt) for prompt in prompts), default=0)
    if longest + max_new_tokens > decoder.max_tokens:
        raise UserError(
            f"a prompt of {longest} tokens + {max_new_tokens} new tokens exceed {positions_of(decoder)}; "
            "shorten it or ask for fewer new tokens"
        )


def positions_of(decoder: Decoder) -> str:
    """How long a text may be, for an error: "the model's 2048 positions less 20 virtual tokens"."""
    virtual = f" less {decoder.virtual_tokens} virtual tokens" if decoder.virtual_tokens else ""
    return f"the model's {decoder.config.max_tokens} positions{virtual}"
