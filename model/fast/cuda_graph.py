"""A decoding step recorded as a CUDA graph: hundreds of small kernels started by one call.

Decoding one answer runs at the speed of reading the weights only if no kernel waits for Python. Everything that changes
from step to step lies in tensors of fixed address (model/cache.py), so a recorded step stays valid while tokens are
written, rows restart and prompts come and go, until the cache grows or rows are dropped.
"""

from __future__ import annotations

import torch

from model.cache import KVCache
from model.decoder import Decoder


class GraphedStep:
    """One token a row in, hidden states out, as decoder.hidden_states(tokens[:, None], cache=cache)[:, 0]."""

    def __init__(self, decoder: Decoder, cache: KVCache) -> None:
        self.decoder, self.cache = decoder, cache
        self.recorded: tuple[torch.cuda.CUDAGraph, torch.Tensor, torch.Tensor] | None = None
        self.memory: tuple[torch.Tensor, ...] = ()  # the tensors that the recording reads and writes

    def __call__(self, tokens: torch.Tensor) -> torch.Tensor:
        """tokens [R] int64 -> [R, D], overwritten by the next call."""
        # the tensors of the cache are others if rows were dropped or it grew: record anew
        kinds = [pages for pages in (self.cache.prompts, self.cache.answers) if pages is not None]
        memory = (self.cache.slot, *(tensor for pages in kinds for tensor in (pages.keys, pages.owner)))
        if len(self.memory) != len(memory) or any(a is not b for a, b in zip(self.memory, memory, strict=True)):
            self.recorded, self.memory = None, ()  # free the old graph first
            self.recorded, self.memory = self._record(tokens), memory
        assert self.recorded is not None
        # the tokens go to where the recording reads them
        graph, static_tokens, hidden = self.recorded
        static_tokens.copy_(tokens)
        graph.replay()
        return hidden

    def _record(self, tokens: torch.Tensor):
        static_tokens, written = tokens.clone(), self.cache.written.clone()
        device = self.decoder.device  # not necessarily the current one
        stream = torch.cuda.Stream(device)

        # warm-up: one-time allocations of workspaces, choice of kernels
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(stream):
            for _ in range(2):
                self._step(static_tokens)
                self.cache.written.copy_(written)  # the next step overwrites the same token
        torch.cuda.current_stream(device).wait_stream(stream)

        # record: nothing runs here, and every tensor keeps its address
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            hidden = self._step(static_tokens)
        return graph, static_tokens, hidden

    def _step(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.decoder.hidden_states(tokens[:, None], cache=self.cache)[:, 0]
