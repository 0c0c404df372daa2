"""The loss on held-out rows while training goes on, and the weights with which it was lowest."""

from __future__ import annotations

import math
from pathlib import Path

import safetensors.torch
import torch
from torch import nn

from data.masking import Example
from data.packing import to_batch
from lora.inject import trainable
from model.decoder import Decoder
from model.files import new_file
from model.loss import causal_lm_loss, supervised_tokens
from training.precision import Precision


@torch.no_grad()
def validation_loss(decoder: Decoder, rows: list[list[Example]], precision: Precision) -> float:
    """Nats per supervised token over all rows: a ratio of sums, so that rows weigh as much as they hold."""
    decoder.eval()
    loss = supervised = 0.0
    for row in rows:
        batch = to_batch(row, precision.device)
        with precision.autocast():
            hidden_states = decoder.hidden_states(batch.input_ids, batch.lengths)
            loss += causal_lm_loss(hidden_states, decoder.head_weight, batch.labels, softcap=decoder.softcap).item()
        supervised += supervised_tokens(batch.labels).item()
    decoder.train()
    return loss / supervised


class Best:
    """What learns, as it was when the validation loss was lowest: kept in a file, and put back at the end.

    patience  validations without a new lowest loss after which `offer` says to stop; 0: nothing is kept
    past      (step, loss) of the validations before, when a run is resumed
    """

    def __init__(self, path: Path, network: nn.Module, patience: int, past: list[tuple[int, float]]) -> None:
        self.path, self.network, self.patience, self.losses = path, network, patience, list(past)

    def offer(self, step: int, loss: float) -> bool:
        """Keep the weights after this step if its loss is the lowest; says whether patience is over."""
        self.losses.append((step, loss))
        if not self.patience:
            return False
        if self.step == step:
            with new_file(self.path) as target:
                tensors = {name: p.detach().cpu().contiguous() for name, p in trainable(self.network)}
                safetensors.torch.save_file(tensors, target)
        since = [loss for _, loss in self.losses[self._at + 1 :]]
        return len(since) >= self.patience

    @torch.no_grad()
    def restore(self) -> None:
        """Go back to the weights that were best."""
        if not self.patience or not self.losses or self.step == self.losses[-1][0]:
            return
        tensors = safetensors.torch.load_file(self.path)
        for name, parameter in trainable(self.network):
            parameter.copy_(tensors[name])
        print(f"best     the weights after step {self.step} are kept: validation loss {self.losses[self._at][1]:.4f}")

    @property
    def step(self) -> int:
        """After which the loss was lowest."""
        return self.losses[self._at][0]

    @property
    def _at(self) -> int:
        return min(range(len(self.losses)), key=lambda i: (not math.isfinite(self.losses[i][1]), self.losses[i][1]))
