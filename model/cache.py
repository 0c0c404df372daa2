"""The KV cache: what was read and written so far, in blocks of memory of fixed size.

Sampling asks one prompt for several answers, and much of a step's time goes into reading the cache. So a prompt is kept
once and read once for all rows that continue it (bifurcated attention, arXiv:2403.08845), while each row keeps what it
has written itself:

    prompt_keys  [L, P, H_kv, D, S]    P slots for prompts of unequal length, filled from the left
    keys         [L, R, H_kv, D, N]    R rows, one token a step each, filled from the left

             slot 0   The meaning of life is          row 0  → lane 0   _to _be _happy
                                                      row 2  → lane 1   _to
             slot 1   def add(a, b):                  row 1  → lane 3   \\n _return _a _+

A row sits in a lane of its prompt's slot (lanes lie side by side, `lanes` to a slot), so that all queries to a prompt
are one matrix. Values are laid out [S, D] and [N, D], keys [D, S] and [D, N]: each as its product reads it. What lies
beyond a prompt's or a row's end is masked. Rows come and go at any step (continuous batching, Orca, OSDI 2022): a row
that begins anew just starts at its left end again.

What moves from step to step is held in tensors, so that a step can be recorded once as a CUDA graph.
"""

from __future__ import annotations

import torch

from model.attention import soft_cap


class KVCache:
    """Keys and values of `slots` prompts and `rows` answers to them."""

    def __init__(
        self,
        shape: tuple[int, int, int],
        *,
        slots: int,
        lanes: int,
        rows: int,
        prompt_tokens: int,
        new_tokens: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        """shape: layers, key heads, numbers a head. prompt_tokens, new_tokens: room for each prompt, for each row."""
        layers, heads, head_dim = shape
        options = {"dtype": dtype, "device": device}
        self.lanes = lanes
        self.prompt_keys = torch.zeros(layers, slots, heads, head_dim, prompt_tokens, **options)
        self.prompt_values = torch.zeros(layers, slots, heads, prompt_tokens, head_dim, **options)
        self.keys = torch.zeros(layers, rows, heads, head_dim, new_tokens, **options)
        self.values = torch.zeros(layers, rows, heads, new_tokens, head_dim, **options)
        self.nobody = slots * lanes  # the lane of a row in which nobody sits, behind all slots
        self.lengths = torch.zeros(slots + 1, dtype=torch.int64, device=device)  # tokens of the prompt in each slot
        self.lane = torch.full((rows,), self.nobody, device=device)  # of each row: slot · lanes + its place there
        self.written = torch.zeros(rows, dtype=torch.int64, device=device)  # tokens of each row
        self.filling: list[int] = []  # slots that the next pass over prompts fills
        self.read_limits = (slots, prompt_tokens, new_tokens)  # no more is read of each: slots, tokens, new tokens

    def admit(self, slots: list[int], lengths: list[int]) -> None:
        """Say which slots the next pass over prompts fills, and how long the prompts are."""
        self.filling = slots
        self.lengths[torch.tensor(slots, device=self.lengths.device)] = torch.tensor(lengths).to(self.lengths.device)

    def seat(self, rows: list[int], lanes: list[int]) -> None:
        """Let these rows begin anew, in these lanes."""
        at = torch.tensor(rows, device=self.lane.device)
        self.lane[at] = torch.tensor(lanes, device=self.lane.device)
        self.written[at] = 0

    def leave(self, rows: list[int]) -> None:
        """Nobody sits in these rows now. They go on computing, from nothing and for nobody."""
        self.seat(rows, [self.nobody] * len(rows))

    def keep(self, rows: list[int]) -> None:
        """Go on with these rows alone, in this order."""
        at = torch.tensor(rows, device=self.lane.device)
        self.keys, self.values = self.keys[:, at], self.values[:, at]
        self.lane, self.written = self.lane[at], self.written[at]

    def positions(self) -> torch.Tensor:
        """Position of the next token of every row: [R] int64."""
        return self.lengths[self.lane // self.lanes] + self.written

    def visible(self, window: int | None) -> torch.Tensor:
        """Which of the prompt's and of its own tokens each row sees in this step: [R, 1, 1, S + N] bool."""
        _, prompt_tokens, new_tokens = self.read_limits
        device, now = self.lane.device, self.positions()[:, None]  # [R, 1]
        in_prompt = torch.arange(prompt_tokens, device=device).expand(len(now), -1)
        column = torch.arange(new_tokens, device=device)
        length = now - self.written[:, None]
        seen = torch.cat((in_prompt < length, column <= self.written[:, None]), dim=1)
        if window is not None:
            seen &= torch.cat((in_prompt, length + column), dim=1) > now - window
        return seen[:, None, None]

    def fill(self, layer: int, k: torch.Tensor, v: torch.Tensor, lengths: list[int]) -> None:
        """Store prompts: k, v [1, H_kv, T, D] hold them one after another, `lengths` long."""
        prompts = zip(self.filling, k.split(lengths, 2), v.split(lengths, 2), strict=True)
        for slot, key, value in prompts:
            self.prompt_keys[layer, slot, :, :, : key.shape[2]] = key[0].transpose(-1, -2)
            self.prompt_values[layer, slot, :, : key.shape[2]] = value[0]

    def attend(self, layer, q, k, v, *, visible: torch.Tensor, scale: float, softcap: float | None) -> torch.Tensor:
        """Store one new token of every row, and attend to its prompt and to what it has written.

        q [R, H, 1, D]; k, v [R, H_kv, 1, D]; visible as above. Returns [R, H, 1, D]. Softmax in fp32.
        """
        (rows, heads, _, head_dim), key_heads = q.shape, k.shape[1]
        slots, past, new = self.read_limits
        at = torch.arange(rows, device=q.device)
        self.keys[layer][at, :, :, self.written] = k[:, :, 0].to(self.keys.dtype)
        self.values[layer][at, :, self.written] = v[:, :, 0].to(self.values.dtype)
        q = (q * scale).to(self.keys.dtype).view(rows, key_heads, -1, head_dim)  # [R, H_kv, G, D]
        read = self._by_row(self._by_slot(q) @ self.prompt_keys[layer, :slots, :, :, :past])  # [R, H_kv, G, S]
        wrote = q @ self.keys[layer, :, :, :, :new]  # [R, H_kv, G, N]
        scores = soft_cap(torch.cat((read, wrote), dim=-1).float(), softcap)
        weights = scores.masked_fill_(~visible, float("-inf")).softmax(-1).to(self.values.dtype)
        out = self._by_row(self._by_slot(weights[..., :past]) @ self.prompt_values[layer, :slots, :, :past])
        out = out + weights[..., past:] @ self.values[layer, :, :, :new]
        return out.reshape(rows, heads, 1, head_dim)

    def advance(self) -> None:
        """Count the token that every layer has just stored. A row that nobody sits in stays inside its memory."""
        self.written.add_(1).clamp_(max=self.keys.shape[-1] - 1)

    def _by_slot(self, x: torch.Tensor) -> torch.Tensor:
        """[R, H_kv, G, *] -> [P, H_kv, lanes·G, *]: whoever shares a prompt becomes its queries. Empty lanes ask 0."""
        count = self.read_limits[0] * self.lanes
        lanes = x.new_zeros(count + 1, *x.shape[1:]).index_copy_(0, self.lane.clamp(max=count), x)[:-1]
        return lanes.view(-1, self.lanes, *x.shape[1:]).transpose(1, 2).flatten(2, 3)

    def _by_row(self, x: torch.Tensor) -> torch.Tensor:
        """And back: [P, H_kv, lanes·G, *] -> [R, H_kv, G, *]."""
        x = x.unflatten(2, (self.lanes, -1)).transpose(1, 2).flatten(0, 1)
        return x[self.lane.clamp(max=len(x) - 1)]
