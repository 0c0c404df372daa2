"""The KV cache: keys and values of past tokens, so that a step computes only the next token.

Sampling draws several answers to one prompt, and much of a step's time is spent reading the cache. So a prompt is
stored once and read once for all rows that continue it (bifurcated attention, arXiv:2403.08845), and everything is
paged (PagedAttention, arXiv:2309.06180), so that a step reads only what is in use, whatever the lengths of other rows:

    slot 0   [To be or not …] [to   ]      row 0 → slot 0, lane 0   [be that is …] [the question]
                                           row 2 → slot 0, lane 1   [err         ]
    slot 1   [def add(a, b):]              row 1 → slot 1, lane 0   [⏎ return a  ]

Slots own the pages of prompts, rows those of answers. Each row of a slot occupies one of its lanes, so that all
queries to a prompt form one matrix. With a single lane per slot nothing is shared: a row then continues in its prompt's
pages, and slot and row are the same. Rows come and go at any step (continuous batching, Orca, OSDI 2022).

All state that changes between steps is held in tensors, so that a step can be recorded once as a CUDA graph.
"""

from __future__ import annotations

import math
import mmap

import torch
from torch.nn.functional import pad

from model.attention import soft_cap
from model.device import on_gpu

PAGE = 64  # tokens
UNTOUCHED = 1 << 30  # bytes to reserve up front on a CPU; the system provides a page when it is first written


class Pages:
    """Keys and values [L, M, H_kv, PAGE, D] of several owners.

    More may be allocated than the M pages that are read. An owner's tokens fill its pages in order. Page 0 has no
    owner: tokens of idle rows are written there.
    """

    def __init__(self, shape: tuple[int, int, int], owners: int, tokens: int, *, dtype, device: torch.device) -> None:
        """shape: layers, key heads, head dimension. tokens: expected maximum per owner."""
        layers, heads, head_dim = shape
        # page 0 and, on a CPU, all that may be needed: growing later copies everything
        pages = 1
        if not on_gpu(device):
            bytes_each = layers * heads * PAGE * head_dim * dtype.itemsize
            pages += min(owners * -(-tokens // PAGE), UNTOUCHED // bytes_each)

        # on a CPU an fp32 product is faster than exact scores from half precision (scores_in_fp32)
        keys_dtype = dtype if on_gpu(device) else torch.promote_types(dtype, torch.float32)
        shape_of_all = layers, pages, heads, PAGE, head_dim
        self.keys, self.values = (_zeros(shape_of_all, each, device) for each in (keys_dtype, dtype))

        # the pages of each owner, and those of none
        self.of: list[list[int]] = [[] for _ in range(owners)]
        self.free = list(range(1, pages))
        self._shape: tuple[int, ...] = ()
        self._lay_out()

    def reserve(self, tokens: dict[int, int]) -> None:
        """Allocate pages for owner → number of tokens."""
        # each owner as often as it lacks a page
        short = [owner for owner, count in tokens.items() for _ in range(-(-count // PAGE) - len(self.of[owner]))]
        if not short:
            return

        # grow by at least half, since growing copies everything
        held, missing = self.keys.shape[1], len(short) - len(self.free)
        if missing > 0:
            more = max(missing, held // 2)
            self.free += range(held, held + more)
            self.keys, self.values = (pad(x, (0, 0, 0, 0, 0, 0, 0, more)) for x in (self.keys, self.values))

        # take the lowest: pages after the last used one are not read
        self.free.sort()
        for owner in short:
            self.of[owner].append(self.free.pop(0))
        self._lay_out()

    def release(self, owners: list[int]) -> None:
        """Free these owners' pages."""
        for owner in owners:
            self.free += self.of[owner]
            self.of[owner] = []
        self._lay_out()

    def keep(self, owners: list[int]) -> None:
        """Keep only these owners, in this order, with their pages."""
        # renumber: page 0 stays, the kept pages follow it
        kept = [0, *(page for owner in owners for page in self.of[owner])]
        renumbered = {page: i for i, page in enumerate(kept)}
        self.of = [[renumbered[page] for page in self.of[owner]] for owner in owners]
        self.free = list(range(len(kept), self.keys.shape[1]))

        # and move their contents
        for memory in (self.keys, self.values):
            memory[:, : len(kept)] = memory[:, kept]
        self._lay_out()

    def _lay_out(self) -> None:
        """Who owns which page, as tensors.

        owner  [M]         of each page
        place  [M]         of each page in `pages`
        pages  [O · most]  of each owner, filled up with page 0 to as many as the largest has
        last   [O]         each owner's last page, where its next token is written
        """
        # a recorded step reads all pages, since its shapes must not change
        is_recorded = on_gpu(self.keys)
        used = self.keys.shape[1] if is_recorded else 1 + max((page for pages in self.of for page in pages), default=0)
        most = max(1, *map(len, self.of))

        # page → owner, and owner → pages
        owner, place = [0] * used, [0] * used
        for i, pages in enumerate(self.of):
            for j, page in enumerate(pages):
                owner[page], place[page] = i, i * most + j
        pages = [page for pages in self.of for page in [*pages, *[0] * (most - len(pages))]]
        last = [pages[-1] if pages else 0 for pages in self.of]

        # to the device; in place if the shapes are the same, since a recorded step reads these tensors
        now = [torch.tensor(values, device=self.keys.device) for values in (owner, place, pages, last)]
        shape = (most, used, len(last))
        if shape == self._shape:
            for tensor, values in zip((self.owner, self.place, self.pages, self.last), now, strict=True):
                tensor.copy_(values)
        else:
            (self.owner, self.place, self.pages, self.last), self._shape = now, shape

    @property
    def room(self) -> int:
        """Capacity of the owner with the most pages, in tokens: N below."""
        return self._shape[0] * PAGE

    def write(self, layer: int, k: torch.Tensor, v: torch.Tensor, page: torch.Tensor, column: torch.Tensor) -> None:
        """Store tokens: k, v [T, H_kv, D] at page, column [T]."""
        _, _, heads, _, head_dim = self.keys.shape
        # where each head of each token goes in a layer's memory [M, H_kv, PAGE, D], seen as rows of D: [T · H_kv]
        head = torch.arange(heads, device=page.device)
        at = ((page[:, None] * heads + head) * PAGE + column[:, None]).flatten()
        for memory, x in ((self.keys, k), (self.values, v)):
            memory[layer].view(-1, head_dim).index_copy_(0, at, x.to(memory.dtype).flatten(0, 1))

    def scores(self, layer: int, q: torch.Tensor, scale: float) -> torch.Tensor:
        """Attention scores of each owner, in fp32: q [O, H_kv, Q, D] -> [O, H_kv, Q, N], 0 where it has no page."""
        # every page meets the queries of its owner: [M, H_kv, Q, PAGE]; page 0 has none
        keys = self.keys[layer, : len(self.owner)]  # [M, H_kv, PAGE, D]
        of_page = scores_in_fp32(q.index_select(0, self.owner), keys, scale)
        of_page[0] = 0

        # each owner's pages one after another: [O, N / PAGE, H_kv, Q, PAGE] -> [O, H_kv, Q, N]
        of_owner = of_page.index_select(0, self.pages).unflatten(0, (len(q), -1))
        return of_owner.permute(0, 2, 3, 1, 4).flatten(3)

    def mix(self, layer: int, weights: torch.Tensor) -> torch.Tensor:
        """Weighted sum of each owner's values: weights [O, H_kv, Q, N] -> [O, H_kv, Q, D]."""
        # the weights, cut into pages: [O · N / PAGE, H_kv, Q, PAGE]
        of_owner = weights.unflatten(-1, (-1, PAGE)).permute(0, 3, 1, 2, 4).flatten(0, 1)
        # each page's share of the sum: [M, H_kv, Q, D]
        of_page = of_owner.index_select(0, self.place) @ self.values[layer, : len(self.owner)]
        of_page[0] = 0
        # summed over each owner's pages
        return of_page.index_select(0, self.pages).unflatten(0, (len(weights), -1)).sum(1)


def scores_in_fp32(q: torch.Tensor, k: torch.Tensor, scale: float) -> torch.Tensor:
    """scale · q kᵀ in fp32: q [M, H, Q, D], k [M, H, N, D] in fp32 or half precision -> [M, H, Q, N].

    A half-precision product is accumulated in fp32 but rounded on output: in bf16 a score of 300 is then off by up to
    1, and Qwen2 has such scores. A second product, accumulated onto minus the first, gives the rounding error: it is
    small, so its own rounding is harmless.
    """
    # fp32 keys: one product is exact enough
    if k.dtype.itemsize >= 4:
        return (q.to(k.dtype) * scale) @ k.mT

    # scaling q by a power of two is exact, and keeps fp16 scores from overflowing; the rest is multiplied in fp32
    factor, exponent = math.frexp(scale)
    heads, q, k = q.shape[1], (q * 2.0**exponent).to(k.dtype).flatten(0, 1), k.flatten(0, 1)

    # the rounded product, plus what rounding took from it
    scores = torch.bmm(q, k.mT)
    scores = scores.float().add_(torch.baddbmm(scores, q, k.mT, beta=-1)).mul_(factor)
    return scores.unflatten(0, (-1, heads))


def _zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    if on_gpu(device):
        return torch.zeros(shape, dtype=dtype, device=device)
    # an anonymous map is zero and takes no memory until it is written to
    return torch.frombuffer(mmap.mmap(-1, math.prod(shape) * dtype.itemsize), dtype=dtype).view(shape)


class KVCache:
    """Keys and values of `slots` prompts and `rows` answers to them."""

    def __init__(
        self, shape: tuple[int, int, int], *, slots: int, lanes: int, rows: int, longest: tuple[int, int], dtype, device
    ) -> None:
        """shape: layers, key heads, head dimension. lanes: rows per slot at the same time; if 1, slots are rows.

        longest  maximum tokens of a prompt and of an answer
        """
        # with a single lane a row continues in its prompt's pages
        prompt, answer = longest
        shares = lanes > 1
        self.prompts = Pages(shape, slots, prompt, dtype=dtype, device=device) if shares else None
        self.answers = Pages(shape, rows, answer if shares else prompt + answer, dtype=dtype, device=device)
        self.slots, self.lanes = slots, lanes

        # tokens of the prompt in each slot, and of each row's answer
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
        prompts = dict(zip(slots, lengths, strict=True))
        self.lengths[torch.tensor(slots, device=device)] = torch.tensor(lengths, device=device)
        for slot, length in prompts.items():
            self.length_of_slot[slot] = length

        # page and column of every token, one prompt after another: [T] each
        pages = self.prompts or self.answers
        pages.reserve(prompts)
        places = [(pages.of[slot][at // PAGE], at % PAGE) for slot, length in prompts.items() for at in range(length)]
        self.filling = torch.tensor(places, device=device).unbind(1)

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
        """0 where a row sees a token of its prompt or answer in this step, else -inf: [R, 1, 1, S + N] fp32."""
        device, now = self.lane.device, self.positions()[:, None]  # [R, 1]
        column = torch.arange(self.answers.room, device=device).expand(len(now), -1)
        # the position of the token in each column, and whether it is one of the row's: [R, S + N]
        if self.prompts is None:
            at, seen = column, column <= now
        else:
            in_prompt = torch.arange(self.prompts.room, device=device).expand(len(now), -1)
            written = self.written[:, None]
            at = torch.cat((in_prompt, now - written + column), dim=1)
            seen = torch.cat((in_prompt < now - written, column <= written), dim=1)

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
        # store the new token in the last page of its row
        (rows, heads, _, head_dim), key_heads, dtype = q.shape, k.shape[1], q.dtype
        at = self.positions() if self.prompts is None else self.written
        self.answers.write(layer, k[:, :, 0], v[:, :, 0], self.answers.last, at % PAGE)

        # G query heads share a key head: [R, H_kv, G, D]
        q = q.view(rows, key_heads, -1, head_dim)

        # scores against the answer [R, H_kv, G, N], and before them those against the prompt [R, H_kv, G, S]
        scores = self.answers.scores(layer, q, scale)
        if self.prompts is not None:
            read = self._by_row(self.prompts.scores(layer, self._by_slot(q), scale))
            scores = torch.cat((read, scores), dim=-1)
        scores = scores + bias if softcap is None else soft_cap(scores, softcap) + bias

        # one softmax over both, then the values of each: [R, H_kv, G, D]
        weights = scores.softmax(-1).to(self.answers.values.dtype)
        out = self.answers.mix(layer, weights[..., -self.answers.room :])
        if self.prompts is not None:
            out = out + self._by_row(self.prompts.mix(layer, self._by_slot(weights[..., : self.prompts.room])))

        # a layer in fp32 may use a half-precision cache
        return out.view(rows, heads, 1, head_dim).to(dtype)

    def advance(self) -> None:
        """Count the token that every layer has just stored. Idle rows do not advance."""
        self.written.add_(1).mul_(self.slot < self.slots)

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
