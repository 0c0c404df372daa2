"""Validation during training: the loss on held-out rows, and early stopping by it (--patience)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import safetensors.torch
import torch
from torch import nn

from common.files import new_file
from data.masking import Example
from data.packing import to_batch
from lora.adapter import trainable
from model.decoder import Decoder
from model.loss import causal_lm_loss, supervised_tokens
from training import parallel
from training.precision import Precision
from training.sharding import own_part, own_rows, whole


@torch.no_grad()
def validation_loss(decoder: Decoder, rows: list[list[Example]], precision: Precision) -> float:
    """Nats per supervised token over all packed rows: sum of losses ÷ sum of tokens, over all ranks."""
    # dropout off; sums over this rank's rows
    decoder.eval()
    loss = supervised = 0.0
    for row in parallel.share(rows):
        batch = to_batch(row, precision.device)
        with precision.autocast():
            hidden_states = decoder.hidden_states(batch.input_ids, batch.lengths)  # [1, T, D]
            loss += causal_lm_loss(hidden_states, decoder.head_weight, batch.labels, softcap=decoder.softcap).item()
        supervised += supervised_tokens(batch.labels).item()

    # divided once, at the end: a mean of the rows' means would weigh short rows more
    decoder.train()
    return float(parallel.total(loss) / parallel.total(supervised))


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

        # a new lowest loss: keep its weights, on disk rather than in memory. All ranks gather, rank 0 writes
        if self.best_step == step:
            tensors = {name: whole(part.detach(), part) for name, part in self._parameters()}
            if parallel.rank() == 0:
                with new_file(self.path) as target:
                    safetensors.torch.save_file({name: t.cpu().contiguous() for name, t in tensors.items()}, target)

        # validations since the lowest
        return len(self.losses) - 1 - self._best() >= self.patience

    @torch.no_grad()
    def restore(self) -> None:
        """Put the best weights back into the network."""
        # nothing to restore if the last validation was the best
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
