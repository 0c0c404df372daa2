"""A step that overflowed: name the first layer that left the range, and compute it in fp32 from then on.

A smaller loss scale cures gradients that overflow, but not activations beyond fp16's 65,504. For these, the layer's
attention or MLP moves to fp32, weights included.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from common.console import UserError
from data.packing import Batch
from model.decoder import Decoder
from training.parallel import of_every_rank
from training.precision import Precision
from training.sharding import is_sharded

BLOCK = re.compile(r"model\.layers\.\d+\.(self_attn|mlp)\b")  # the modules that can be moved to fp32
BRANCHES = {".attention_adapter": ".self_attn", ".mlp_adapter": ".mlp"}  # what a bottleneck stands after


def repair_overflow(decoder: Decoder, window: list[Batch], precision: Precision) -> str:
    """After a skipped step: if an activation overflowed in fp16, compute its attention or MLP in fp32 from now on.

    window   the micro-batches of the step
    Returns  a sentence for the log
    """

    def forward() -> None:
        for batch in window:
            decoder.hidden_states(batch.input_ids, batch.lengths)

    # what overflowed, and the attention or MLP that it belongs to; a bottleneck computes in the dtype of its branch
    name, sentence = locate_overflow(decoder, forward, precision)
    for adapter, branch in BRANCHES.items():
        name = (name or "").replace(adapter, branch)
    block = BLOCK.match(name or "")
    # gradients, an embedding or a norm: nothing to move; nor in bf16, whose range is that of fp32
    if precision.dtype != torch.float16 or not block or block[0] in precision.fp32_modules or is_sharded(decoder):
        return sentence
    keep_in_fp32(decoder, [block[0]], precision)
    return f"{sentence}; {block[0]} is computed in fp32 from now on"


def locate_overflow(network: nn.Module, forward: Callable[[], object], precision: Precision) -> tuple[str | None, str]:
    """`first_overflow` on any rank, so that all repair the same module, and a sentence for the log."""
    # the step's forward pass again, in its precision; the ranks must agree, or their networks would differ
    with precision.autocast():
        name = first_overflow(network, forward)
    name = next(filter(None, of_every_rank(name)), None)
    where = f"the output of {name}" if name else "the gradients, not the activations,"
    return name, f"{where} left the range of {str(precision.dtype).removeprefix('torch.')}"


@torch.no_grad()
def first_overflow(network: nn.Module, forward: Callable[[], object]) -> str | None:
    """Repeat a forward pass; returns the name of the first module whose output is not finite, or None.

    A module's hook runs after those of its children, so the first one found is the innermost.
    """
    found: list[str] = []

    def watch(name: str):
        def hook(module, inputs, output) -> None:
            if not found and isinstance(output, torch.Tensor) and not torch.isfinite(output).all():
                found.append(name)

        return hook

    # hooks on every module, for this one pass
    handles = [module.register_forward_hook(watch(name)) for name, module in network.named_modules()]
    try:
        forward()
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else None


def keep_in_fp32(network: nn.Module, names: list[str], precision: Precision) -> None:
    """Compute these modules, each a layer's self_attn or mlp, in fp32 from now on. UserError when sharded."""
    for name in names:
        if name not in precision.fp32_modules:
            if is_sharded(network):
                raise UserError(f"{name} is computed in fp32 since it overflowed; resume without --shard")
            # weights in fp32, and a forward pass that leaves autocast
            module = network.get_submodule(name).float()
            module.forward = partial(_in_fp32, module.forward, precision.device.type)
            precision.fp32_modules.append(name)


def _in_fp32(forward, device_type: str, x: torch.Tensor, *rest) -> torch.Tensor:
    with torch.autocast(device_type, enabled=False):
        return forward(x.float(), *rest)


def modules_named(decoder: Decoder, pattern: str) -> list[str]:
    """The modules for `keep_in_fp32` whose full name matches a regular expression. UserError when none does."""
    # among the modules that can be moved
    names = [name for name, _ in decoder.named_modules() if BLOCK.fullmatch(name)]
    try:
        found = [name for name in names if re.fullmatch(pattern, name)]
    except re.error as error:
        raise UserError(f"--fp32-modules {pattern}: not a regular expression ({error})") from None
    if not found:
        raise UserError(f"--fp32-modules {pattern}: matches none of {names[0]}, {names[1]} … {names[-1]}")
    return found
