"""Keys and values in pages (PagedAttention, arXiv:2309.06180), so that a step reads only what is in use.

    owner 0   page 3 [To be or not …]  page 1 [to   ]          of = [[3, 1], [2], …]      free = [4, 5]
    owner 1   page 2 [def add(a, b):]

Every page meets the queries of its owner in one product, whatever the lengths of the owners. All that changes between
steps is held in tensors, so that a step can be recorded once as a CUDA graph. The owners are those of model/cache.py.
"""

from __future__ import annotations

import math
import mmap

import torch
from torch.nn.functional import pad

from model.device import on_gpu

PAGE = 64  # tokens
RESERVED = 1 << 30  # bytes up front, of keys and of values; a CPU's system provides memory when it is first written


class Pages:
    """Keys and values [L, M, H_kv, PAGE, D] of several owners.

    More may be allocated than the M pages that are read. An owner's tokens fill its pages in order. Page 0 has no
    owner: tokens of idle rows are written there.
    """

    def __init__(self, shape: tuple[int, int, int], owners: int, tokens: int, *, dtype, device: torch.device) -> None:
        """shape: layers, key heads, head dimension. tokens: expected maximum per owner."""
        layers, heads, head_dim = shape
        # page 0 and all that may be needed: growing later copies everything, and a step is then recorded anew
        longest, bytes_each = -(-tokens // PAGE), layers * heads * PAGE * head_dim * dtype.itemsize
        pages = 1 + min(owners * longest, RESERVED // bytes_each)

        # on a CPU an fp32 product is faster than exact scores from half precision (scores_in_fp32)
        keys_dtype = dtype if on_gpu(device) else torch.promote_types(dtype, torch.float32)
        shape_of_all = layers, pages, heads, PAGE, head_dim
        self.keys, self.values = (_zeros(shape_of_all, each, device) for each in (keys_dtype, dtype))

        # the pages of each owner, and those of none; a recorded step reads as many of each as the longest may have
        self.of: list[list[int]] = [[] for _ in range(owners)]
        self.least = longest if on_gpu(device) else 1
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
        most = max(self.least, *map(len, self.of))

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

    def places(self, tokens: dict[int, int]) -> tuple[torch.Tensor, ...]:
        """Page and column of the first tokens of these owners, one owner after another: [T] int64 each."""
        places = [(self.of[owner][at // PAGE], at % PAGE) for owner, count in tokens.items() for at in range(count)]
        return torch.tensor(places, device=self.keys.device).unbind(1)

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

    def write_next(self, layer: int, k: torch.Tensor, v: torch.Tensor, at: torch.Tensor) -> None:
        """Store each owner's next token, which is its at-th: k, v [O, H_kv, D], at [O]; it goes into its last page."""
        self.write(layer, k, v, self.last, at % PAGE)

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
