"""The KV cache: what was read and written so far, so that the next token need not read everything again.

Sampling asks one prompt for several answers, and much of a step's time goes into reading the cache. So a prompt is kept
once and read once for all rows that continue it (bifurcated attention, arXiv:2403.08845), and everything lies in pages
(PagedAttention, arXiv:2309.06180), so that no more is read than there is, whatever the neighbours' lengths are:

    slot 0   [To be or not …] [to   ]      row 0 → slot 0, lane 0   [be that is …] [the question]
                                           row 2 → slot 0, lane 1   [err         ]
    slot 1   [def add(a, b):]              row 1 → slot 1, lane 0   [⏎ return a  ]

Slots own the pages of prompts, rows those of answers. The rows of a slot sit in its lanes, so that all queries to a
prompt are one matrix. Where every slot has but one lane nothing is shared: a row then writes on where its prompt ended,
and slot and row are one. Rows come and go at any step (continuous batching, Orca, OSDI 2022).

What moves from step to step is held in tensors, so that a step can be recorded once as a CUDA graph.
"""

from __future__ import annotations

import math
import mmap

import torch
from torch.nn.functional import pad

from model.attention import soft_cap
from model.device import on_gpu

PAGE = 64  # tokens
UNTOUCHED = 1 << 30  # bytes of a CPU's memory to ask for at once; it is there when it is first written


class Pages:
    """Keys and values [L, M, H_kv, PAGE, D] of several owners.

    There may be more memory than the M pages that are read. An owner's tokens fill its pages in order. Page 0 belongs
    to nobody: what has no place is written there.
    """

    def __init__(self, shape: tuple[int, int, int], owners: int, tokens: int, *, dtype, device: torch.device) -> None:
        """shape: layers, key heads, numbers a head. tokens: an owner will hardly have more."""
        layers, heads, head_dim = shape
        pages = 1
        if not on_gpu(device):  # growing copies
            bytes_each = layers * heads * PAGE * head_dim * dtype.itemsize
            pages += min(owners * -(-tokens // PAGE), UNTOUCHED // bytes_each)
        # A CPU multiplies fp32 in less time than it takes half precision to give scores in fp32 (scores_in_fp32).
        keys_dtype = dtype if on_gpu(device) else torch.promote_types(dtype, torch.float32)
        shape_of_all = layers, pages, heads, PAGE, head_dim
        self.keys, self.values = (_zeros(shape_of_all, each, device) for each in (keys_dtype, dtype))
        self.of: list[list[int]] = [[] for _ in range(owners)]
        self.free = list(range(1, pages))
        self._shape: tuple[int, ...] = ()
        self._lay_out()

    def reserve(self, tokens: dict[int, int]) -> None:
        """Make room: owner → so many tokens."""
        short = [owner for owner, count in tokens.items() for _ in range(-(-count // PAGE) - len(self.of[owner]))]
        if not short:
            return
        held, missing = self.keys.shape[1], len(short) - len(self.free)
        if missing > 0:
            more = max(missing, held // 2)  # by half: growing copies all
            self.free += range(held, held + more)
            self.keys, self.values = (pad(x, (0, 0, 0, 0, 0, 0, 0, more)) for x in (self.keys, self.values))
        self.free.sort()  # the first ones, for pages behind the last that is used are not read
        for owner in short:
            self.of[owner].append(self.free.pop(0))
        self._lay_out()

    def release(self, owners: list[int]) -> None:
        """These owners' tokens are forgotten."""
        for owner in owners:
            self.free += self.of[owner]
            self.of[owner] = []
        self._lay_out()

    def keep(self, owners: list[int]) -> None:
        """Go on with these owners alone, in this order, and with their pages."""
        kept = [0, *(page for owner in owners for page in self.of[owner])]
        new_name = {page: i for i, page in enumerate(kept)}
        self.of = [[new_name[page] for page in self.of[owner]] for owner in owners]
        self.free = list(range(len(kept), self.keys.shape[1]))
        for memory in (self.keys, self.values):
            memory[:, : len(kept)] = memory[:, kept]
        self._lay_out()

    def _lay_out(self) -> None:
        """Tensors: each page's owner [M] and its place among all owners' [M]; each owner's pages and last one [O]."""
        is_recorded = on_gpu(self.keys)  # a recorded step reads all the memory: its shapes must not change
        used = self.keys.shape[1] if is_recorded else 1 + max((page for pages in self.of for page in pages), default=0)
        most = max(1, *map(len, self.of))
        owner, place = [0] * used, [0] * used
        for i, pages in enumerate(self.of):
            for j, page in enumerate(pages):
                owner[page], place[page] = i, i * most + j
        pages = [page for pages in self.of for page in [*pages, *[0] * (most - len(pages))]]  # [O · most]
        last = [pages[-1] if pages else 0 for pages in self.of]
        now = [torch.tensor(values, device=self.keys.device) for values in (owner, place, pages, last)]
        shape = (most, used, len(last))
        if shape == self._shape:  # in place: a recorded step reads these tensors
            for tensor, values in zip((self.owner, self.place, self.pages, self.last), now, strict=True):
                tensor.copy_(values)
        else:
            (self.owner, self.place, self.pages, self.last), self._shape = now, shape

    @property
    def room(self) -> int:
        """Tokens of the owner with the most pages, to whole pages: N below."""
        return self._shape[0] * PAGE

    def write(self, layer: int, k: torch.Tensor, v: torch.Tensor, page: torch.Tensor, column: torch.Tensor) -> None:
        """Store tokens: k, v [T, H_kv, D]; page, column [T] say where."""
        _, _, heads, _, head_dim = self.keys.shape
        head = torch.arange(heads, device=page.device)
        at = ((page[:, None] * heads + head) * PAGE + column[:, None]).flatten()  # [T · H_kv]
        for memory, x in ((self.keys, k), (self.values, v)):
            memory[layer].view(-1, head_dim).index_copy_(0, at, x.to(memory.dtype).flatten(0, 1))

    def scores(self, layer: int, q: torch.Tensor, scale: float) -> torch.Tensor:
        """Of each owner's queries and tokens, in fp32: q [O, H_kv, Q, D] -> [O, H_kv, Q, N], 0 where it has no page."""
        keys = self.keys[layer, : len(self.owner)]  # [M, H_kv, PAGE, D]
        of_page = scores_in_fp32(q.index_select(0, self.owner), keys, scale)  # [M, H_kv, Q, PAGE]
        of_page[0] = 0
        of_owner = of_page.index_select(0, self.pages).unflatten(0, (len(q), -1))  # [O, N / PAGE, H_kv, Q, PAGE]
        return of_owner.permute(0, 2, 3, 1, 4).flatten(3)

    def mix(self, layer: int, weights: torch.Tensor) -> torch.Tensor:
        """Values of each owner's tokens, added up by weight: [O, H_kv, Q, N] -> [O, H_kv, Q, D]."""
        of_owner = weights.unflatten(-1, (-1, PAGE)).permute(0, 3, 1, 2, 4).flatten(0, 1)  # [O · N / PAGE, …, PAGE]
        of_page = of_owner.index_select(0, self.place) @ self.values[layer, : len(self.owner)]  # [M, H_kv, Q, D]
        of_page[0] = 0
        return of_page.index_select(0, self.pages).unflatten(0, (len(weights), -1)).sum(1)


def scores_in_fp32(q: torch.Tensor, k: torch.Tensor, scale: float) -> torch.Tensor:
    """scale · q kᵀ in fp32: q [M, H, Q, D], k [M, H, N, D] in fp32 or half precision -> [M, H, Q, N].

    A product in half precision is summed in fp32 but rounded when it is stored: in bf16 a score of 300 is then off by
    up to 1, and Qwen2 has such scores. What the rounding lost is a second product, which starts at minus the first:
    it is small, so its own rounding is harmless.
    """
    if k.dtype.itemsize >= 4:
        return (q.to(k.dtype) * scale) @ k.mT
    factor, exponent = math.frexp(scale)  # a power of two scales q exactly; without it fp16 scores may overflow
    heads, q, k = q.shape[1], (q * 2.0**exponent).to(k.dtype).flatten(0, 1), k.flatten(0, 1)
    scores = torch.bmm(q, k.mT)
    scores = scores.float().add_(torch.baddbmm(scores, q, k.mT, beta=-1)).mul_(factor)
    return scores.unflatten(0, (-1, heads))


def _zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    if on_gpu(device):
        return torch.zeros(shape, dtype=dtype, device=device)
    return torch.frombuffer(mmap.mmap(-1, math.prod(shape) * dtype.itemsize), dtype=dtype).view(shape)


class KVCache:
    """Keys and values of `slots` prompts and `rows` answers to them."""

    def __init__(
        self, shape: tuple[int, int, int], *, slots: int, lanes: int, rows: int, longest: tuple[int, int], dtype, device
    ) -> None:
        """shape: layers, key heads, numbers a head. lanes: rows that a slot may hold at once; if 1, slots are rows.

        longest  tokens of a prompt and of an answer, at most
        """
        prompt, answer = longest
        shares = lanes > 1
        self.prompts = Pages(shape, slots, prompt, dtype=dtype, device=device) if shares else None
        self.answers = Pages(shape, rows, answer if shares else prompt + answer, dtype=dtype, device=device)
        self.slots, self.lanes = slots, lanes
        self.lengths = torch.zeros(slots + 1, dtype=torch.int64, device=device)  # tokens of the prompt in each slot
        # Where each row sits. Behind the last slot there is room for rows in which nobody sits.
        self.slot = torch.full((rows,), slots, device=device)
        self.lane = torch.zeros(rows, dtype=torch.int64, device=device)
        self.written = torch.zeros(rows, dtype=torch.int64, device=device)  # tokens of each row

    def admit(self, slots: list[int], lengths: list[int]) -> None:
        """Say which slots the next pass over prompts fills, and how long the prompts are."""
        device = self.lengths.device
        self.lengths[torch.tensor(slots, device=device)] = torch.tensor(lengths, device=device)
        pages = self.prompts or self.answers
        pages.reserve(dict(zip(slots, lengths, strict=True)))
        tokens = [(slot, at) for slot, length in zip(slots, lengths, strict=True) for at in range(length)]
        places = [(pages.of[slot][at // PAGE], at % PAGE) for slot, at in tokens]
        self.filling = torch.tensor(places, device=device).unbind(1)  # page and column of every token

    def seat(self, rows: list[int], slots: list[int], lanes: list[int]) -> None:
        """Let these rows begin anew, in these places."""
        at, slot, lane = (torch.tensor(values, device=self.lane.device) for values in (rows, slots, lanes))
        self.slot[at], self.lane[at], self.written[at] = slot, lane, 0

    def reserve(self, answers: dict[int, int]) -> None:
        """Make room: row → so many tokens of its answer."""
        if self.prompts is None:
            lengths, slots = self.lengths.tolist(), self.slot.tolist()
            answers = {row: lengths[slots[row]] + count for row, count in answers.items()}
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
        """Go on with these rows alone, in this order."""
        at = torch.tensor(rows, device=self.lane.device)
        self.slot, self.lane, self.written = self.slot[at], self.lane[at], self.written[at]
        self.answers.keep(rows)

    def positions(self) -> torch.Tensor:
        """Position of the next token of every row: [R] int64."""
        return self.lengths[self.slot] + self.written

    def bias(self, window: int | None) -> torch.Tensor:
        """0 for the tokens of its prompt and its own that a row sees in this step, else -inf: [R, 1, 1, S + N] fp32."""
        device, now = self.lane.device, self.positions()[:, None]  # [R, 1]
        column = torch.arange(self.answers.room, device=device).expand(len(now), -1)
        if self.prompts is None:
            at, seen = column, column <= now
        else:
            in_prompt = torch.arange(self.prompts.room, device=device).expand(len(now), -1)
            written = self.written[:, None]
            at = torch.cat((in_prompt, now - written + column), dim=1)  # the position of every column
            seen = torch.cat((in_prompt < now - written, column <= written), dim=1)
        if window is not None:
            seen = seen & (at > now - window)
        return torch.zeros(seen.shape, device=device).masked_fill_(~seen, float("-inf"))[:, None, None]

    def fill(self, layer: int, k: torch.Tensor, v: torch.Tensor) -> None:
        """Store the prompts that were admitted: k, v [1, H_kv, T, D] hold them one after another."""
        (self.prompts or self.answers).write(layer, k[0].transpose(0, 1), v[0].transpose(0, 1), *self.filling)

    def attend(self, layer, q, k, v, *, bias: torch.Tensor, scale: float, softcap: float | None) -> torch.Tensor:
        """Store one new token of every row, and attend to its prompt and to what it has written.

        q [R, H, 1, D]; k, v [R, H_kv, 1, D]; bias as above. Returns [R, H, 1, D]. Softmax in fp32.
        """
        (rows, heads, _, head_dim), key_heads, dtype = q.shape, k.shape[1], q.dtype
        at = self.positions() if self.prompts is None else self.written
        self.answers.write(layer, k[:, :, 0], v[:, :, 0], self.answers.last, at % PAGE)
        q = q.view(rows, key_heads, -1, head_dim)  # [R, H_kv, G, D]
        scores = self.answers.scores(layer, q, scale)  # [R, H_kv, G, N]
        if self.prompts is not None:
            read = self._by_row(self.prompts.scores(layer, self._by_slot(q), scale))  # [R, H_kv, G, S]
            scores = torch.cat((read, scores), dim=-1)
        scores = scores + bias if softcap is None else soft_cap(scores, softcap) + bias
        weights = scores.softmax(-1).to(self.answers.values.dtype)
        out = self.answers.mix(layer, weights[..., -self.answers.room :])
        if self.prompts is not None:
            out = out + self._by_row(self.prompts.mix(layer, self._by_slot(weights[..., : self.prompts.room])))
        return out.view(rows, heads, 1, head_dim).to(dtype)  # a layer may be in fp32 over a cache that is not

    def advance(self) -> None:
        """Count the token that every layer has just stored. A row in which nobody sits stays where it is."""
        self.written.add_(1).mul_(self.slot < self.slots)

    def _by_slot(self, x: torch.Tensor) -> torch.Tensor:
        """[R, H_kv, G, *] -> [P, H_kv, lanes·G, *]: whoever shares a prompt becomes its queries.

        Lanes without a row ask 0: a row in which nobody sits reads one of them, and must write nothing but numbers.
        """
        _, key_heads, groups, width = x.shape
        lanes = x.new_zeros(self.slots + 1, key_heads, self.lanes, groups, width)
        lanes[self.slot, :, self.lane] = x
        return lanes[:-1].view(self.slots, key_heads, -1, width)

    def _by_row(self, x: torch.Tensor) -> torch.Tensor:
        """And back: [P, H_kv, lanes·G, *] -> [R, H_kv, G, *]."""
        return x.unflatten(2, (self.lanes, -1))[self.slot.clamp(max=self.slots - 1), :, self.lane]
