"""Prefix tuning and prompt tuning in PEFT's format: one tensor, prompt_embeddings, with a row for each virtual token.

    PROMPT_TUNING   [P, D]                  input vectors
    PREFIX_TUNING   [P, L · 2 · H_kv · D]   keys of the first layer, all heads, its values, keys of the second layer, …
                                            as the MLP made them, if there was one: it is not saved, in PEFT neither

Checked against peft in tests/parity/test_virtual_tokens.py.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import cast

import torch
from torch import nn

from common.console import UserError
from lora.adapter import Adapter, Method
from lora.peft_format import INERT as INERT_IN_ALL
from lora.peft_format import refuse_missing, refuse_unread
from lora.prefix import Prefix
from lora.prompt import Prompt
from model.decoder import Decoder

# The keys of adapter_config.json that must be what this model has …
READ = {
    "peft_type", "num_virtual_tokens", "num_transformer_submodules", "token_dim", "num_attention_heads", "num_layers",
}  # fmt: skip
# … and those that say where training began. Any other key that is set is refused.
INERT = INERT_IN_ALL | {
    "encoder_hidden_size", "prefix_projection", "init_weights", "prompt_tuning_init", "prompt_tuning_init_text",
    "tokenizer_name_or_path", "tokenizer_kwargs",
}  # fmt: skip


def describe(adapter: Adapter) -> str:
    """The method, its size, and what makes it while it is trained."""
    learnt = _only(adapter)
    if isinstance(learnt, Prompt):
        return f"prompt of {learnt.count} virtual tokens before every text"
    by_mlp = f", made by an MLP of width {learnt.hidden}" if learnt.hidden else ""
    return f"prefix of {learnt.count} virtual tokens in each layer{by_mlp}"


def to_config(network: nn.Module, adapter: Adapter) -> dict:
    """All that PEFT needs to build the same module, without its MLP."""
    learnt = _only(adapter)
    start = {"prompt_tuning_init": "RANDOM"} if isinstance(learnt, Prompt) else {"prefix_projection": False}
    return learnt.sizes() | start


def from_config(kind: type[Prefix] | type[Prompt], network: nn.Module, config: dict, where: Path) -> Adapter:
    """Fresh virtual tokens, as adapter_config.json describes them. UserError if they are for another model."""
    refuse_unread(config, READ | INERT, where)
    refuse_missing(config, {"num_virtual_tokens": int}, where)
    if not isinstance(network, Decoder):
        raise UserError(f"{where}: {kind.peft_type} is implemented for decoders only")
    count, positions = config["num_virtual_tokens"], network.config.max_tokens
    if not 0 < count < positions:
        raise UserError(f"{where}: adapter_config.json: {count} virtual tokens in a model of {positions} positions")
    fresh = kind(network, count)
    for key, expected in fresh.sizes().items():
        if config.get(key, expected) not in (expected, None):
            raise UserError(
                f"{where}: the adapter does not fit this model: adapter_config.json: {key}={config[key]!r}, "
                f"expected {expected}"
            )
    return {kind.place: fresh}


def to_tensors(adapter: Adapter) -> dict[str, torch.Tensor]:
    """The one tensor. Without an MLP it is the parameter itself, not copied."""
    return {"prompt_embeddings": _only(adapter).folded().detach()}


def _only(adapter: Adapter) -> Prefix | Prompt:
    (learnt,) = adapter.values()
    return cast(Prefix | Prompt, learnt)


PREFIX_TUNING = Method(Prefix, describe, to_config, partial(from_config, Prefix), to_tensors)
PROMPT_TUNING = Method(Prompt, describe, to_config, partial(from_config, Prompt), to_tensors)
