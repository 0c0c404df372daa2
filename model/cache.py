"""The KV cache: keys and values of past tokens, so that a step computes only the next token.

Sampling draws several answers to one prompt, and much of a step's time is spent reading the cache. So a prompt is
stored once and read once for all rows that continue it (bifurcated attention, arXiv:2403.08845), and everything is
paged (PagedAttention, arXiv:2309.06180), so that a step reads only what is in use, whatever the lengths of other rows:

    slot 0   [To be or not …] [to   ]      row 0 → slot 0, lane 0   [be that is …] [the question]
                                           row 2 → slot 0, lane 1   [err         ]
    slot 1   [def add(a, b):]              row 1 → slot 1, lane 0   [⏎ return a  ]

Slots own the pages of prompts, rows those of answers. Each row of a slot occupies one of its lanes, so that all
queries to a prompt form one matrix. With a single lane per slot nothing is shared: a row then continues in its prompt's
pages, and slot and row are the same. Rows come and go at any step (continuous batching, Orca, OSDI 2022). A learnt
prefix (lora/prefix.py) has pages of its own: stored once, and read by all rows as by one.

All state that changes between steps is held in tensors, so that a step can be recorded once as a CUDA graph.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from model.attention import soft_cap
from model.pages import Pages


class KVCache:
    """Keys and values of `slots` prompts and `rows` answers to them."""

    def __init__(
        self, shape: tuple[int, int, int], *, slots: int, lanes: int, rows: int, longest: tuple[int, int],
        before: int = 0, prefix: Sequence[torch.Tensor] = (), dtype, device
    ) -> None:  # fmt: skip
        """shape: layers, key heads, head dimension. lanes: rows per slot at the same time; if 1, slots are rows.

        longest  maximum tokens of a prompt and of an answer
        before   virtual tokens of prompt tuning: they precede every prompt, and are stored with it
        prefix   keys and values of prefix tuning, a [2, H_kv, P, D] for each layer: they precede every prompt, and are
                 stored once
        """
        # with a single lane a row continues in its prompt's pages
        prompt, answer = before + longest[0], longest[1]
        shares = lanes > 1
        self.prompts = Pages(shape, slots, prompt, dtype=dtype, device=device) if shares else None
        self.answers = Pages(shape, rows, answer if shares else prompt + answer, dtype=dtype, device=device)
        self.slots, self.lanes, self.before = slots, lanes, before

        # the prefix takes the positions 0 … P - 1 of every row: one owner, written once
        self.prefix, self.first = None, 0
        if prefix:
            self.first = prefix[0].shape[-2]
            self.prefix = Pages(shape, 1, self.first, dtype=dtype, device=device)
            self.prefix.reserve({0: self.first})
            for layer, kv in enumerate(prefix):
                self.prefix.write(layer, *kv.to(dtype).transpose(1, 2), *self.prefix.places({0: self.first}))

        # tokens of prefix and prompt in each slot, and of each row's answer
        self.lengths = torch.zeros(slots + 1, dtype=torch.int64, device=device)
        self.written = torch.zeros(rows, dtype=torch.int64, device=device)
        # slot and lane of each row; idle rows have the slot after the last
        self.slot = torch.full((rows,), slots, device=device)
        self.lane = torch.zeros(rows, dtype=torch.int64, device=device)
        # the same on the host, where reading the tensors would wait for the device
        self.length_of_slot, self.slot_of_row = [0] * (slots + 1), [slots] * rows

    def admit(self, slots: list[int], lengths: list[int]) -> None:
        """Announce which slots the next prefill pass fills, and the lengths of their prompts."""
        device = self.lengths.device
        prompts = {slot: self.before + length for slot, length in zip(slots, lengths, strict=True)}
        before_answer = [self.first + length for length in prompts.values()]
        self.lengths[torch.tensor(slots, device=device)] = torch.tensor(before_answer, device=device)
        for slot, length in prompts.items():
            self.length_of_slot[slot] = length

        # page and column of every token, one prompt after another: [T] each
        pages = self.prompts or self.answers
        pages.reserve(prompts)
        self.filling = pages.places(prompts)

    def seat(self, rows: list[int], slots: list[int], lanes: list[int]) -> None:
        """Assign rows to slots and lanes, with empty answers."""
        at, slot, lane = (torch.tensor(values, device=self.lane.device) for values in (rows, slots, lanes))
        self.slot[at], self.lane[at], self.written[at] = slot, lane, 0
        for row, slot in zip(rows, slots, strict=True):
            self.slot_of_row[row] = slot

    def reserve(self, answers: dict[int, int]) -> None:
        """Allocate pages for row → tokens of its answer."""
        # with a single lane the prompt is in the same pages, before the answer
        if self.prompts is None:
            answers = {row: self.length_of_slot[self.slot_of_row[row]] + count for row, count in answers.items()}
        self.answers.reserve(answers)

    def release_prompt(self, slot: int) -> None:
        """No row needs the prompt in this slot any more."""
        if self.prompts is not None:
            self.prompts.release([slot])

    def release(self, rows: list[int]) -> None:
        """These rows are idle now. They still compute; the results are discarded."""
        self.seat(rows, [self.slots] * len(rows), [0] * len(rows))
        self.answers.release(rows)

    def keep(self, rows: list[int]) -> None:
        """Keep only these rows, in this order."""
        at = torch.tensor(rows, device=self.lane.device)
        self.slot, self.lane, self.written = self.slot[at], self.lane[at], self.written[at]
        self.slot_of_row = [self.slot_of_row[row] for row in rows]
        self.answers.keep(rows)

    def positions(self) -> torch.Tensor:
        """Position of the next token of every row: [R] int64."""
        return self.lengths[self.slot] + self.written

    def bias(self, window: int | None) -> torch.Tensor:
        """0 where a row sees a token of prefix, prompt or answer in this step, else -inf: [R, 1, 1, P + S + N] fp32."""
        device, now = self.lane.device, self.positions()[:, None]  # [R, 1]

        def columns(pages: Pages, first: int) -> torch.Tensor:
            return torch.arange(first, first + pages.room, device=device).expand(len(now), -1)

        # the position of the token in each column, and whether it is one of the row's: [R, N], [R, S], [R, P]
        if self.prompts is None:
            at = columns(self.answers, self.first)
            seen = at <= now
        else:
            column, in_prompt = columns(self.answers, 0), columns(self.prompts, self.first)
            written = self.written[:, None]
            at = torch.cat((in_prompt, now - written + column), dim=1)
            seen = torch.cat((in_prompt < now - written, column <= written), dim=1)
        if self.prefix is not None:
            in_prefix = columns(self.prefix, 0)
            at, seen = torch.cat((in_prefix, at), dim=1), torch.cat((in_prefix < self.first, seen), dim=1)

        # inside the window
        if window is not None:
            seen = seen & (at > now - window)
        return torch.zeros(seen.shape, device=device).masked_fill_(~seen, float("-inf"))[:, None, None]

    def fill(self, layer: int, k: torch.Tensor, v: torch.Tensor) -> None:
        """Store the admitted prompts: k, v [1, H_kv, T, D], packed one after another."""
        (self.prompts or self.answers).write(layer, k[0].transpose(0, 1), v[0].transpose(0, 1), *self.filling)

    def attend(self, layer, q, k, v, *, bias: torch.Tensor, scale: float, softcap: float | None) -> torch.Tensor:
        """Store one new token of every row, and attend to its prompt and its answer so far.

        q [R, H, 1, D]; k, v [R, H_kv, 1, D]; bias as above. Returns [R, H, 1, D]. Softmax in fp32.
        """
        # store the new token of each row in its own pages
        (rows, heads, _, head_dim), key_heads, dtype = q.shape, k.shape[1], q.dtype
        self.answers.write_next(layer, k[:, :, 0], v[:, :, 0], self._column())

        # G query heads share a key head: [R, H_kv, G, D]
        q = q.view(rows, key_heads, -1, head_dim)

        # scores against the answer [R, H_kv, G, N], before them those against the prompt [.., S] and the prefix [.., P]
        scores = self.answers.scores(layer, q, scale)
        if self.prompts is not None:
            read = self._by_row(self.prompts.scores(layer, self._by_slot(q), scale))
            scores = torch.cat((read, scores), dim=-1)
        if self.prefix is not None:
            read = _apart(self.prefix.scores(layer, _as_one(q), scale), rows)
            scores = torch.cat((read, scores), dim=-1)
        scores = scores + bias if softcap is None else soft_cap(scores, softcap) + bias

        # one softmax over all of them, then the values of each: [R, H_kv, G, D]
        weights = scores.softmax(-1).to(self.answers.values.dtype)
        rooms = [pages.room if pages is not None else 0 for pages in (self.prefix, self.prompts, self.answers)]
        of_prefix, of_prompt, of_answer = weights.split(rooms, dim=-1)
        out = self.answers.mix(layer, of_answer)
        if self.prompts is not None:
            out = out + self._by_row(self.prompts.mix(layer, self._by_slot(of_prompt)))
        if self.prefix is not None:
            out = out + _apart(self.prefix.mix(layer, _as_one(of_prefix)), rows)

        # a layer in fp32 may use a half-precision cache
        return out.view(rows, heads, 1, head_dim).to(dtype)

    def advance(self) -> None:
        """Count the token that every layer has just stored. Idle rows do not advance."""
        self.written.add_(1).mul_(self.slot < self.slots)

    def _column(self) -> torch.Tensor:
        """Where each row's next token goes in the row's own pages: [R] int64."""
        if self.prompts is not None:
            return self.written
        # with a single lane the prompt is there as well, but not the prefix
        return self.positions() - self.first if self.first else self.positions()

    def _by_slot(self, x: torch.Tensor) -> torch.Tensor:
        """[R, H_kv, G, *] -> [P, H_kv, lanes·G, *]: the rows that share a prompt become its queries.

        Unoccupied lanes hold 0: an idle row reads one of them, and must not produce NaN.
        """
        _, key_heads, groups, width = x.shape
        # [P + 1, H_kv, lanes, G, *]: the slot after the last collects the idle rows
        lanes = x.new_zeros(self.slots + 1, key_heads, self.lanes, groups, width)
        lanes[self.slot, :, self.lane] = x
        return lanes[:-1].view(self.slots, key_heads, -1, width)

    def _by_row(self, x: torch.Tensor) -> torch.Tensor:
        """The inverse: [P, H_kv, lanes·G, *] -> [R, H_kv, G, *]."""
        return x.unflatten(2, (self.lanes, -1))[self.slot.clamp(max=self.slots - 1), :, self.lane]


def _as_one(x: torch.Tensor) -> torch.Tensor:
    """[R, H_kv, G, *] -> [1, H_kv, R·G, *]: the queries of all rows, as those of one owner."""
    return x.transpose(0, 1).flatten(1, 2)[None]


def _apart(x: torch.Tensor, rows: int) -> torch.Tensor:
    """The inverse: [1, H_kv, R·G, *] -> [R, H_kv, G, *]."""
    return x[0].unflatten(1, (rows, -1)).transpose(0, 1)
