"""--patience: stop when the validation loss no longer improves, and keep the weights with which it was lowest."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import safetensors.torch
import torch
from torch import nn

from common.files import new_file
from lora.inject import trainable
from training.parallel import rank
from training.sharding import own_part, own_rows, whole


class EarlyStopping:
    """Saves the trainable parameters at the lowest validation loss to a file, and restores them at the end.

    patience  validations without a new lowest loss after which to stop; 0: never stop, keep nothing
    past      (step, loss) of the validations before a resume
    """

    def __init__(self, path: Path, network: nn.Module, patience: int, past: list[tuple[int, float]]) -> None:
        self.path, self.network, self.patience, self.losses = path, network, patience, list(past)

    def update(self, step: int, loss: float) -> bool:
        """Record a validation, saving the weights if its loss is the lowest; returns whether to stop."""
        self.losses.append((step, loss))
        if not self.patience:
            return False
        if self.best_step == step:
            tensors = {name: whole(part.detach(), part) for name, part in self._parameters()}
            if rank() == 0:
                with new_file(self.path) as target:
                    safetensors.torch.save_file({name: t.cpu().contiguous() for name, t in tensors.items()}, target)
        return len(self.losses) - 1 - self._best() >= self.patience

    @torch.no_grad()
    def restore(self) -> None:
        """Put the best weights back into the network."""
        if not self.patience or not self.losses or self.best_step == self.losses[-1][0]:
            return
        tensors = safetensors.torch.load_file(self.path)
        for name, part in self._parameters():
            part.copy_(own_rows(tensors[name], part))
        loss = self.losses[self._best()][1]
        print(f"best     restored the weights after step {self.best_step}: validation loss {loss:.4f}")

    @property
    def best_step(self) -> int:
        """The step after which the loss was lowest."""
        return self.losses[self._best()][0]

    def _best(self) -> int:
        """Index of the lowest loss, the first of equal ones; NaN and inf come last."""
        return min(range(len(self.losses)), key=lambda i: (not math.isfinite(self.losses[i][1]), self.losses[i][1]))

    def _parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        return ((name, own_part(parameter)) for name, parameter in trainable(self.network))
