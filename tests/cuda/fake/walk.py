"""What a walk brings home."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

from tests.cuda.fake.count import Count
from training.steps import Deadline, Steps


class Saved(torch.autograd.graph.saved_tensors_hooks):
    """Counts the bytes on the device that autograd keeps for the backward pass, beside the network's own weights."""

    active: Saved | None = None

    def __init__(self, network: nn.Module) -> None:
        super().__init__(self._keep, lambda tensor: tensor)
        own = (*network.parameters(), *network.buffers())
        self._own = {tensor.untyped_storage()._cdata for tensor in own}
        self.reset()

    def reset(self) -> None:
        """Forget what was kept, for another step."""
        self._kept: dict[int, torch.UntypedStorage] = {}  # held, so that no address is given out twice

    @property
    def bytes(self) -> int:
        return sum(storage.nbytes() for storage in self._kept.values())

    def _keep(self, tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if tensor.is_cuda and storage._cdata not in self._own:
            self._kept[storage._cdata] = storage
        return tensor

    def __enter__(self) -> Saved:
        Saved.active = self
        super().__enter__()
        return self

    def __exit__(self, *error) -> None:
        Saved.active = None
        super().__exit__(*error)


class WalkedSteps(Steps):
    """Counts the last step alone: the first ones make what is made once."""

    def __iter__(self) -> Iterator[int]:
        for step in super().__iter__():
            if step == self.total:
                Count.active.reset()
                Saved.active.reset()
            yield step


NO_DEADLINE = Deadline(0, 0.0)


@dataclass(frozen=True)
class Figures:
    """Of one step, or of a walk that has none."""

    launches: int
    bytes_per_token: float
    saved_bytes_per_token: float
    waits: dict[str, int]  # "file:function kind" -> count
    faults: dict[str, int]
    products: dict[str, int]  # matrix products by dtype
    attention: dict[str, int]  # attention kernels by name
    delicate: dict[str, int]  # operators in half precision that lose their meaning in it
    recordings: int  # CUDA graphs
    replays: int

    @staticmethod
    def of(count: Count, saved: Saved | None = None, *, tokens: int) -> Figures:
        return Figures(
            count.launches, round(count.bytes / tokens), round(saved.bytes / tokens) if saved else 0,
            dict(count.waits), dict(count.faults), dict(count.products), dict(count.attention),
            dict(count.delicate), count.recordings, count.replays,
        )  # fmt: skip
