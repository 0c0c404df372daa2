"""Activation checkpointing: what each way keeps for the backward pass."""

from __future__ import annotations

import pytest
import torch


def test_less_is_kept_from_each_way_of_checkpointing_to_the_next(tiny):
    ids = torch.arange(10, 74)[None]
    kept = {}
    for checkpointing in ("none", "selective", "full"):
        tiny.checkpointing, held = checkpointing, {}

        def pack(tensor, held=held):
            held[tensor.data_ptr()] = tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            tiny.hidden_states(ids)
        kept[checkpointing] = sum(held.values())
    assert kept["none"] > kept["selective"] > kept["full"]
    with pytest.raises(ValueError, match="none, selective, full, offload"):
        tiny.checkpointing = "half"
