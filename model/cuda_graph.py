"""A decoding step recorded as a CUDA graph: hundreds of small kernels started by one call.

A single answer is written at the speed at which the weights can be read only when nobody waits for Python between two
kernels. Everything that changes from step to step lies in tensors of fixed address (model/cache.py), so a recorded step
stays right while tokens are written, rows begin anew and prompts come and go.
"""

from __future__ import annotations

import torch

from model.cache import KVCache
from model.decoder import Decoder

GRAIN = 128  # tokens; the cache is read up to the next multiple, so that one recording serves this many steps


class GraphedStep:
    """One token a row in, hidden states out: the same as decoder.hidden_states(tokens[:, None], cache=cache)[:, 0]."""

    def __init__(self, decoder: Decoder, cache: KVCache) -> None:
        self.decoder, self.cache = decoder, cache
        self.keys: torch.Tensor | None = None  # the memory that the recordings are of
        self.recorded: dict[tuple, tuple[torch.cuda.CUDAGraph, torch.Tensor, torch.Tensor]] = {}

    def __call__(self, tokens: torch.Tensor) -> torch.Tensor:
        """tokens [R] int64 -> [R, D], overwritten by the next call."""
        if self.keys is not self.cache.keys:  # rows have left, the cache has moved
            self.recorded, self.keys = {}, self.cache.keys
        self.cache.read_limits = limits = self._rounded(*self.cache.read_limits)
        if limits not in self.recorded:
            self.recorded[limits] = self._record(tokens)
        graph, static_tokens, hidden = self.recorded[limits]
        static_tokens.copy_(tokens)
        graph.replay()
        return hidden

    def _rounded(self, slots: int, prompt_tokens: int, new_tokens: int) -> tuple[int, int, int]:
        def up(tokens: int, limit: int) -> int:
            return min(-(-tokens // GRAIN) * GRAIN, limit)

        _, all_slots, _, _, past = self.cache.prompt_keys.shape
        return all_slots, up(prompt_tokens, past), up(new_tokens, self.cache.keys.shape[-1])

    def _record(self, tokens: torch.Tensor):
        static_tokens, written = tokens.clone(), self.cache.written.clone()
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # libraries choose their kernels and make their workspaces before the recording
            for _ in range(2):
                self._step(static_tokens)
        torch.cuda.current_stream().wait_stream(stream)
        self.cache.written.copy_(written)  # the trial steps have stored the same token twice, and are forgotten
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            hidden = self._step(static_tokens)
        return graph, static_tokens, hidden

    def _step(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.decoder.hidden_states(tokens[:, None], cache=self.cache)[:, 0]
