"""The loss on held-out rows while training goes on, and the weights with which it was lowest."""

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
from lora.inject import trainable
from model.decoder import Decoder
from model.loss import causal_lm_loss, supervised_tokens
from training.parallel import rank, share, total
from training.precision import Precision
from training.sharding import own_part, own_rows, whole


@torch.no_grad()
def validation_loss(decoder: Decoder, rows: list[list[Example]], precision: Precision) -> float:
    """Nats per supervised token over all rows: a ratio of sums, so that rows weigh as much as they hold."""
    decoder.eval()
    loss = supervised = 0.0
    for row in share(rows):
        batch = to_batch(row, precision.device)
        with precision.autocast():
            hidden_states = decoder.hidden_states(batch.input_ids, batch.lengths)
            loss += causal_lm_loss(hidden_states, decoder.head_weight, batch.labels, softcap=decoder.softcap).item()
        supervised += supervised_tokens(batch.labels).item()
    decoder.train()
    return total(loss) / total(supervised)


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
            tensors = {name: whole(part.detach(), part) for name, part in self._learning()}
            if rank() == 0:
                with new_file(self.path) as target:
                    safetensors.torch.save_file({name: t.cpu().contiguous() for name, t in tensors.items()}, target)
        since = [loss for _, loss in self.losses[self._at + 1 :]]
        return len(since) >= self.patience

    @torch.no_grad()
    def restore(self) -> None:
        """Go back to the weights that were best."""
        if not self.patience or not self.losses or self.step == self.losses[-1][0]:
            return
        tensors = safetensors.torch.load_file(self.path)
        for name, part in self._learning():
            part.copy_(own_rows(tensors[name], part))
        print(f"best     the weights after step {self.step} are kept: validation loss {self.losses[self._at][1]:.4f}")

    def _learning(self) -> Iterator[tuple[str, nn.Parameter]]:
        return ((name, own_part(parameter)) for name, parameter in trainable(self.network))

    @property
    def step(self) -> int:
        """After which the loss was lowest."""
        return self.losses[self._at][0]

    @property
    def _at(self) -> int:
        return min(range(len(self.losses)), key=lambda i: (not math.isfinite(self.losses[i][1]), self.losses[i][1]))
