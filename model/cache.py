"""The KV cache: what was read and written so far, so that the next token need not read everything again.

Sampling asks one prompt for several answers, and much of a step's time goes into reading the cache. So a prompt is kept
once and read once for all rows that continue it (bifurcated attention, arXiv:2403.08845). What a row has written itself
lies in pages (PagedAttention, arXiv:2309.06180), so that a row reads as much as it wrote, whatever its neighbours did:

    slot 0   To be or not to               row 0 → lane 0   [be that is …] [question …    ]     page 0, page 3
                                           row 2 → lane 1   [err          ]                     page 2
    slot 1   def add(a, b):                row 1 → lane 3   [⏎ return a   ]                     page 1

    prompt_keys  [L, P, H_kv, D, S]    P slots for prompts of unequal length, filled from the left
    keys         [L, M, H_kv, D, PAGE] M pages

A row sits in a lane of its prompt's slot (lanes lie side by side, `lanes` to a slot), so that all queries to a prompt
are one matrix. Values are laid out [S, D] and [PAGE, D], keys [D, S] and [D, PAGE]: each as its product reads it. What
lies beyond a prompt's or a row's end is masked. Rows come and go at any step (continuous batching, Orca, OSDI 2022).

What moves from step to step is held in tensors, so that a step can be recorded once as a CUDA graph.
"""

from __future__ import annotations

import torch
from torch.nn.functional import pad

from model.attention import soft_cap

PAGE = 64  # tokens


class KVCache:
    """Keys and values of `slots` prompts and `rows` answers to them."""

    def __init__(
        self,
        shape: tuple[int, int, int],
        *,
        slots: int,
        lanes: int,
        rows: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        """shape: layers, key heads, numbers a head."""
        layers, heads, head_dim = shape
        options = {"dtype": dtype, "device": device}
        self.lanes, self.read_slots = lanes, slots  # slots beyond read_slots are not read
        self.prompt_keys = torch.zeros(layers, slots, heads, head_dim, 0, **options)
        self.prompt_values = torch.zeros(layers, slots, heads, 0, head_dim, **options)
        self.lengths = torch.zeros(slots + 1, dtype=torch.int64, device=device)  # tokens of the prompt in each slot
        self.filling: list[int] = []  # slots that the next pass over prompts fills
        # Where each row sits. Behind the last slot there is room for rows in which nobody sits.
        self.slot = torch.full((rows,), slots, device=device)
        self.lane = torch.zeros(rows, dtype=torch.int64, device=device)
        self.written = torch.zeros(rows, dtype=torch.int64, device=device)  # tokens of each row
        # Page 0 is a scratch page: rows in which nobody sits write there, and nobody reads it.
        self.keys = torch.zeros(layers, 1, heads, head_dim, PAGE, **options)
        self.values = torch.zeros(layers, 1, heads, PAGE, head_dim, **options)
        self.pages: list[list[int]] = [[] for _ in range(rows)]  # of each row, in order
        self.free_pages: list[int] = []
        self._lay_out()

    def admit(self, slots: list[int], lengths: list[int]) -> None:
        """Say which slots the next pass over prompts fills, and how long the prompts are."""
        self.filling = slots
        self.lengths[torch.tensor(slots, device=self.lengths.device)] = torch.tensor(lengths).to(self.lengths.device)
        room = -(-max(lengths) // PAGE) * PAGE - self.prompt_values.shape[3]
        if room > 0:  # S is exact: a product over a slice of a larger block would copy the slice first
            self.prompt_keys = pad(self.prompt_keys, (0, room))
            self.prompt_values = pad(self.prompt_values, (0, 0, 0, room))

    def seat(self, rows: list[int], slots: list[int], lanes: list[int]) -> None:
        """Let these rows begin anew, in these places."""
        at, slot, lane = (torch.tensor(values, device=self.lane.device) for values in (rows, slots, lanes))
        self.slot[at], self.lane[at], self.written[at] = slot, lane, 0

    def leave(self, rows: list[int]) -> None:
        """Nobody sits in these rows now: their pages are free. They go on computing, from nothing and for nobody."""
        self.seat(rows, [len(self.lengths) - 1] * len(rows), [0] * len(rows))
        for row in rows:
            self.free_pages += self.pages[row]
            self.pages[row] = []
        self._lay_out()

    def reserve(self, rows: dict[int, int]) -> None:
        """Make room in each of these rows for so many tokens."""
        short = [row for row, tokens in rows.items() if tokens > len(self.pages[row]) * PAGE]
        if not short:
            return
        missing = len(short) - len(self.free_pages)
        if missing > 0:
            held = self.keys.shape[1]
            self.free_pages += range(held, held + missing)
            self.keys = pad(self.keys, (0, 0) * 3 + (0, missing))
            self.values = pad(self.values, (0, 0) * 3 + (0, missing))
        for row in short:
            self.pages[row].append(self.free_pages.pop(0))
        self._lay_out()

    def keep(self, rows: list[int]) -> None:
        """Go on with these rows alone, in this order, and with their pages."""
        kept = [0, *(page for row in rows for page in self.pages[row])]
        new_name = {page: i for i, page in enumerate(kept)}
        self.pages, self.free_pages = [[new_name[page] for page in self.pages[row]] for row in rows], []
        at, pages = (torch.tensor(values, device=self.lane.device) for values in (rows, kept))
        self.keys, self.values = self.keys[:, pages], self.values[:, pages]
        self.slot, self.lane, self.written = self.slot[at], self.lane[at], self.written[at]
        self._lay_out()

    def _lay_out(self) -> None:
        """Tensors that say whose each page is, which of that row's, and where each row writes."""
        owner, number = [len(self.pages)] * self.keys.shape[1], [0] * self.keys.shape[1]
        for row, pages in enumerate(self.pages):
            for i, page in enumerate(pages):
                owner[page], number[page] = row, i
        last = [pages[-1] if pages else 0 for pages in self.pages]
        self.page_owner, self.page_number, self.last_page = (
            torch.tensor(values, device=self.lane.device) for values in (owner, number, last)
        )
        self.most_pages = max(1, *map(len, self.pages))

    def positions(self) -> torch.Tensor:
        """Position of the next token of every row: [R] int64."""
        return self.lengths[self.slot] + self.written

    def bias(self, window: int | None) -> torch.Tensor:
        """0 for the tokens of its prompt and its own that a row sees in this step, else -inf: [R, 1, 1, S + N] fp32."""
        device, now = self.lane.device, self.positions()[:, None]  # [R, 1]
        in_prompt = torch.arange(self.prompt_values.shape[3], device=device).expand(len(now), -1)
        column = torch.arange(self.most_pages * PAGE, device=device)
        length = now - self.written[:, None]
        seen = torch.cat((in_prompt < length, column <= self.written[:, None]), dim=1)
        if window is not None:
            seen &= torch.cat((in_prompt, length + column), dim=1) > now - window
        return torch.zeros(seen.shape, device=device).masked_fill_(~seen, float("-inf"))[:, None, None]

    def fill(self, layer: int, k: torch.Tensor, v: torch.Tensor, lengths: list[int]) -> None:
        """Store prompts: k, v [1, H_kv, T, D] hold them one after another, `lengths` long."""
        prompts = zip(self.filling, k.split(lengths, 2), v.split(lengths, 2), strict=True)
        for slot, key, value in prompts:
            self.prompt_keys[layer, slot, :, :, : key.shape[2]] = key[0].transpose(-1, -2)
            self.prompt_values[layer, slot, :, : key.shape[2]] = value[0]

    def attend(self, layer, q, k, v, *, bias: torch.Tensor, scale: float, softcap: float | None) -> torch.Tensor:
        """Store one new token of every row, and attend to its prompt and to what it has written.

        q [R, H, 1, D]; k, v [R, H_kv, 1, D]; bias as above. Returns [R, H, 1, D]. Softmax in fp32.
        """
        (rows, heads, _, head_dim), key_heads = q.shape, k.shape[1]
        past, column = self.prompt_values.shape[3], self.written % PAGE
        self.keys[layer][self.last_page, :, :, column] = k[:, :, 0]
        self.values[layer][self.last_page, :, column] = v[:, :, 0]
        q = (q * scale).view(rows, key_heads, -1, head_dim)  # [R, H_kv, G, D]
        read = self._by_row(self._by_slot(q) @ self.prompt_keys[layer, : self.read_slots])  # [R, H_kv, G, S]
        wrote = self._to_rows(self._by_page(q) @ self.keys[layer])  # [R, H_kv, G, N]
        scores = torch.cat((read, wrote), dim=-1)
        scores = scores + bias if softcap is None else soft_cap(scores.float(), softcap) + bias  # fp32
        weights = scores.softmax(-1).to(q.dtype)
        out = self._by_row(self._by_slot(weights[..., :past]) @ self.prompt_values[layer, : self.read_slots])
        of_page = weights[..., past:].unflatten(-1, (-1, PAGE))  # [R, H_kv, G, pages, PAGE]
        of_page = pad(of_page, (0, 0) * 4 + (0, 1))[self.page_owner, :, :, self.page_number]
        out = pad(out, (0, 0) * 3 + (0, 1)).index_add_(0, self.page_owner, of_page @ self.values[layer])
        return out[:rows].view(rows, heads, 1, head_dim)

    def advance(self) -> None:
        """Count the token that every layer has just stored. A row that nobody sits in stays at its left end."""
        self.written.add_(1).mul_(self.slot < len(self.lengths) - 1)

    def _by_page(self, x: torch.Tensor) -> torch.Tensor:
        """[R, H_kv, G, D] -> [M, H_kv, G, D]: each page is asked by the row that wrote it, a free one by any."""
        return x[self.page_owner.clamp(max=len(x) - 1)]

    def _to_rows(self, x: torch.Tensor) -> torch.Tensor:
        """[M, H_kv, G, PAGE] -> [R, H_kv, G, N]: what each row's own pages answered, in order."""
        _, key_heads, groups, _ = x.shape
        rows = x.new_zeros(len(self.pages) + 1, key_heads, groups, self.most_pages, PAGE)
        rows[self.page_owner, :, :, self.page_number] = x
        return rows[:-1].flatten(3)

    def _by_slot(self, x: torch.Tensor) -> torch.Tensor:
        """[R, H_kv, G, *] -> [P, H_kv, lanes·G, *]: whoever shares a prompt becomes its queries.

        Lanes without a row ask 0: a row in which nobody sits reads one of them, and must write nothing but numbers.
        """
        _, key_heads, groups, width = x.shape
        lanes = x.new_zeros(self.read_slots + 1, key_heads, self.lanes, groups, width)
        lanes[self.slot.clamp(max=self.read_slots), :, self.lane] = x
        return lanes[:-1].view(self.read_slots, key_heads, -1, width)

    def _by_row(self, x: torch.Tensor) -> torch.Tensor:
        """And back: [P, H_kv, lanes·G, *] -> [R, H_kv, G, *]."""
        lanes = x.unflatten(2, (self.lanes, -1))
        return lanes[self.slot.clamp(max=self.read_slots - 1), :, self.lane]
