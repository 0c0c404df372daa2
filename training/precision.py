"""The AMP step: what learns is fp32, matrix products are in the compute dtype (model/device.py chooses it).

Frozen weights are kept in the compute dtype, trainable ones in fp32 and cast where they are used. Attention or MLP of a
layer whose numbers do not fit into fp16 is computed in fp32, weights and all, when asked or from its first overflow on.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial

import torch
from torch import nn

from common.console import UserError
from data.packing import Batch
from lora.inject import lora_layers
from model.decoder import Decoder
from training.parallel import clip_gradients, of_every_rank
from training.sharding import is_sharded

BLOCK = re.compile(r"model\.layers\.\d+\.(self_attn|mlp)")


class Precision:
    """Autocast, and in fp16 a loss scale.

    The scale starts at 2^12 rather than PyTorch's 2^16: a run of fifty steps cannot lose its first four to finding it.
    """

    def __init__(self, device: torch.device, dtype: torch.dtype, *, initial_scale: float = 2.0**12) -> None:
        self.device, self.dtype = device, dtype
        enabled = dtype == torch.float16
        self.scaler = torch.amp.GradScaler(device.type, enabled=enabled, init_scale=initial_scale, growth_interval=200)
        self.fp32_modules: list[str] = []

    @property
    def scale(self) -> float:
        """The loss scale; 1 where there is none."""
        return self.scaler.get_scale()

    def autocast(self) -> AbstractContextManager:
        """Matrix products in the compute dtype, everything delicate in fp32: around one forward pass, never a loop.

        Nothing is cached: autocast would keep the cast weights until the outermost block ends, and an optimiser step
        or a switch to gradients inside it would go unnoticed. Each weight is cast once a pass in any case.
        """
        enabled = self.dtype != torch.float32
        return torch.autocast(self.device.type, dtype=self.dtype, enabled=enabled, cache_enabled=False)

    @contextmanager
    def as_loaded(self, decoder: Decoder) -> Iterator[None]:
        """Inside the block the decoder computes what its saved files do when they are loaded in the compute dtype.

        Weights that are trained in fp32 (--full) are rounded to the compute dtype; modules kept in fp32 stay there, and
        so does an adapter, whose base is in the compute dtype already.
        """
        kept = [decoder.get_submodule(name) for name in self.fp32_modules] + list(lora_layers(decoder).values())
        stays = {parameter for module in kept for parameter in module.parameters()}
        masters = {p: p.data for p in decoder.parameters() if p.is_floating_point() and p not in stays}
        for parameter, master in masters.items():
            parameter.data = master.to(self.dtype)
        try:
            yield
        finally:
            for parameter, master in masters.items():
                parameter.data = master

    def backward(self, loss: torch.Tensor) -> None:
        """Gradients of the loss, times the scale in fp16."""
        self.scaler.scale(loss).backward()

    def step(
        self, optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter], max_norm: float
    ) -> tuple[bool, float]:
        """Unscale, clip to `max_norm` (0: no clipping), step, and forget the gradients.

        Returns whether the weights moved, and the gradient norm before clipping. With inf or NaN in a gradient nothing
        moves, in any dtype.
        """
        self.scaler.unscale_(optimizer)
        norm = clip_gradients(parameters, max_norm or math.inf).item()
        stepped = math.isfinite(norm)
        if stepped or self.scaler.is_enabled():  # the scaler itself skips the step, and lowers its scale
            self.scaler.step(optimizer)
        self.scaler.update()
        optimizer.zero_grad(set_to_none=True)
        return stepped, norm


def keep_in_fp32(decoder: Decoder, names: list[str], precision: Precision) -> None:
    """From now on compute these modules, each a layer's self_attn or mlp, in fp32. UserError when they are divided."""
    for name in names:
        if name not in precision.fp32_modules:
            if is_sharded(decoder):
                raise UserError(f"{name} is computed in fp32 since it overflowed; go on without --shard")
            module = decoder.get_submodule(name).float()
            module.forward = partial(_in_fp32, module.forward, precision.device.type)
            precision.fp32_modules.append(name)


def _in_fp32(forward, device_type: str, x: torch.Tensor, *rest) -> torch.Tensor:
    with torch.autocast(device_type, enabled=False):
        return forward(x.float(), *rest)


def modules_named(decoder: Decoder, pattern: str) -> list[str]:
    """Those modules that keep_in_fp32 takes whose whole name an expression matches. UserError when there are none."""
    names = [name for name, _ in decoder.named_modules() if BLOCK.fullmatch(name)]
    try:
        found = [name for name in names if re.fullmatch(pattern, name)]
    except re.error as error:
        raise UserError(f"--fp32-modules {pattern}: not a regular expression ({error})") from None
    if not found:
        raise UserError(f"--fp32-modules {pattern}: matches none of {names[0]}, {names[1]} … {names[-1]}")
    return found


def mend_overflow(decoder: Decoder, window: list[Batch], precision: Precision) -> str:
    """Find where numbers left their range in a step that was skipped, and keep that module in fp32 from now on.

    A smaller loss scale mends gradients that overflow, but no activation. Returns a sentence for the log.
    """
    name, said = told_overflow(
        decoder, lambda: [decoder.hidden_states(b.input_ids, b.lengths) for b in window], precision
    )
    block = BLOCK.match(name or "")
    if precision.dtype != torch.float16 or not block or block[0] in precision.fp32_modules or is_sharded(decoder):
        return said
    keep_in_fp32(decoder, [block[0]], precision)
    return f"{said}; {block[0]} is computed in fp32 from now on"


def told_overflow(network: nn.Module, forward, precision: Precision) -> tuple[str | None, str]:
    """`first_overflow` on any rank, for all must mend the same, and a sentence for the log."""
    with precision.autocast():
        name = first_overflow(network, forward)
    name = next(filter(None, of_every_rank(name)), None)
    where = f"the output of {name}" if name else "the gradients, not the activations,"
    return name, f"{where} left the range of {str(precision.dtype).removeprefix('torch.')}"


@torch.no_grad()
def first_overflow(network: nn.Module, forward) -> str | None:
    """Name of the first module whose output is not finite when `forward()` runs once more; None if all are.

    A module's hook runs after those of its children, so that the first one found is the innermost.
    """
    found: list[str] = []

    def watch(name: str):
        def hook(module, inputs, output) -> None:
            if not found and isinstance(output, torch.Tensor) and not torch.isfinite(output).all():
                found.append(name)

        return hook

    handles = [module.register_forward_hook(watch(name)) for name, module in network.named_modules()]
    try:
        forward()
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else None
