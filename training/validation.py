"""The validation loss during training."""

from __future__ import annotations

import torch

from data.masking import Example
from data.packing import to_batch
from model.decoder import Decoder
from model.loss import causal_lm_loss, supervised_tokens
from training.parallel import share, total
from training.precision import Precision


@torch.no_grad()
def validation_loss(decoder: Decoder, rows: list[list[Example]], precision: Precision) -> float:
    """Nats per supervised token over all packed rows: sum of losses ÷ sum of tokens, over all ranks."""
    decoder.eval()
    loss = supervised = 0.0
    for row in share(rows):
        batch = to_batch(row, precision.device)
        with precision.autocast():
            hidden_states = decoder.hidden_states(batch.input_ids, batch.lengths)  # [1, T, D]
            loss += causal_lm_loss(hidden_states, decoder.head_weight, batch.labels, softcap=decoder.softcap).item()
        supervised += supervised_tokens(batch.labels).item()
    decoder.train()
    return float(total(loss) / total(supervised))
