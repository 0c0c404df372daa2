"""Several processes train one network. Without torchrun there is one, and every function here leaves all as it is.

    torchrun --nproc-per-node 2 -- train_sft.py …             each device has the network, and its share of the rows
    torchrun --nproc-per-node 2 -- train_sft.py … --shard     and of the layers' weights (training/sharding.py)

The lone -- keeps torchrun from reading --r as an option of its own.

    rank 0   rows 0, 2, … of a window ─ forward ─ backward ─┐
                                                            Σ gradients ─ everywhere the same step
    rank 1   rows 1, 3, … of a window ─ forward ─ backward ─┘

This is the arithmetic of DDP (arXiv:2006.15704) without its wrapper, which averages over ranks where a sum is needed:
the loss is already divided by the supervised tokens of the whole window. Losses and gradients are those of one process.

A step is what --step-tokens says, however many share it: with fewer rows in it than processes some have nothing to do.
All ranks read the same files and measure the network before it is trained; rank 0 alone writes, speaks, and goes on
when the training is over.
"""

from __future__ import annotations

import atexit
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

from common.console import UserError
from data.masking import Example
from lora.inject import trainable
from model.device import choose_device
from model.loss import IGNORE
from training.sharding import is_part, sharded, take_gradient

BUCKET = 25 * 2**20  # bytes that travel together, as in DDP: small gradients alone would wait for each other
NOTHING = [Example([0, 0], [IGNORE, IGNORE])]  # a row of which nothing is learnt: it adds exactly 0
PATIENCE = timedelta(hours=12)  # ranks wait for the slowest measurement; torchrun itself ends them when one has died


def start(wanted: str, *, shard: bool = False) -> torch.device:
    """Meet the other processes that torchrun started, if it did. Returns the device of this one.

    wanted  the option --device; under torchrun without a number, each process has a device of its own
    shard   the option --shard
    Raises UserError for a device that is not there, and for --shard without torchrun.
    """
    device = choose_device(wanted)
    if not dist.is_torchelastic_launched():
        if shard:
            raise UserError("--shard divides the weights among processes; start them: torchrun --nproc-per-node N …")
        return device
    if device.index is not None:
        raise UserError(f"--device {wanted}: torchrun gives each process a device of its own; give auto, cuda or cpu")
    if device.type == "cuda":
        device = choose_device(f"cuda:{os.environ['LOCAL_RANK']}")
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    if rank() > 0:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 (open as long as the process is)
        sys.stderr.isatty = lambda: False  # so that progress bars stay quiet, but errors do not
    return device


def rank() -> int:
    """The number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    """How many processes there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def own_folder(folder: Path) -> Path:
    """Where this process writes a run: rank 0 into `folder`, the others into a copy of its logs that ends with them."""
    own = folder
    if rank() > 0:
        own = Path(tempfile.mkdtemp(prefix="tritune-"))
        atexit.register(shutil.rmtree, own, ignore_errors=True)
        for log in folder.glob("*.json*"):
            shutil.copy(log, own)
    of_every_rank(None)  # nobody writes before all have looked at what is there
    return own


@contextmanager
def together(network: nn.Module, *, seed: int, shard: bool = False) -> Iterator[None]:
    """Inside the block all ranks train the network; behind it rank 0 goes on alone, the other processes end there.

    The ranks begin with the weights of rank 0, and draw different dropout, the same in every run.
    shard  divide the layers of the network, a Decoder, among them
    """
    if not dist.is_initialized():
        yield
        return
    for _, parameter in trainable(network):
        dist.broadcast(parameter.data, src=0)
    if rank() > 0:
        torch.manual_seed(random.Random(f"{seed}/{rank()}").getrandbits(63))
    with sharded(network) if shard else nullcontext():
        yield
    of_every_rank(None)  # nobody leaves while another still waits for it
    is_first = rank() == 0
    dist.destroy_process_group()
    if not is_first:
        _leave()


def _leave() -> None:
    """End this process, as multiprocessing ends its own, before the interpreter is taken down.

    A thread of gloo may yet let go of a tensor that Python knows, and from an interpreter half taken down it cannot
    ask for that: the process aborts ("terminate called without an active exception"), one in twenty runs did.
    """
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def share(rows: list[list[Example]]) -> list[list[Example]]:
    """The rows of this rank, of a window's; as many on each, for a sharded layer is computed by all ranks at a time."""
    own = rows[rank() :: world()]
    return own + [NOTHING] * (-(-len(rows) // world()) - len(own))


def total(value):
    """The sum of a number, or of a tensor, over the ranks."""
    if world() == 1:
        return value
    tensor = torch.as_tensor(value, dtype=torch.float64 if isinstance(value, float) else None).clone()
    dist.all_reduce(tensor)
    return tensor if isinstance(value, torch.Tensor) else tensor.item()


def joined(embed: Callable[[list], torch.Tensor], rows: list) -> torch.Tensor:
    """embed(rows) [N, D], of which each rank computes its share and takes that of the others as constants.

    So each knows the loss of the whole batch and the gradients that pass through its own rows; their sum over the
    ranks is the batch's. `embed` gets one row at least.
    """
    if world() == 1:
        return embed(rows)
    size = -(-len(rows) // world())
    first, last = (min(len(rows), size * n) for n in (rank(), rank() + 1))
    own = embed(rows[first:last] or rows[:1])[: last - first]  # [n, D]
    everyone = own.new_zeros(len(rows), own.shape[1])
    everyone[first:last] = own.detach()
    dist.all_reduce(everyone)
    return torch.cat([everyone[:first], own, everyone[last:]])


def sum_gradients(parameters: list[nn.Parameter]) -> None:
    """Sum the gradients over the ranks, after the last backward pass of a step. A parameter has one on all or on none.

    parameters  as training.sharding.own_parts gives them; of those that are divided the backward pass has summed
                the gradients, and gets to know here of any rank's that is not finite: no rank may step alone
    """
    if world() == 1 and not any(map(is_part, parameters)):
        return
    parts = [parameter for parameter in parameters if is_part(parameter)]
    for part in parts:
        take_gradient(part)
    for bucket in _buckets([p.grad for p in parameters if not is_part(p) and p.grad is not None]):
        flat = torch.cat([gradient.flatten() for gradient in bucket])
        dist.all_reduce(flat)
        for gradient, summed in zip(bucket, flat.split([gradient.numel() for gradient in bucket]), strict=True):
            gradient.copy_(summed.view_as(gradient))
    if parts:
        gradients = [part.grad for part in parts if part.grad is not None]
        zero_or_nan = total(torch.nn.utils.get_total_norm(gradients) * 0)
        for gradient in gradients:
            gradient += zero_or_nan


def _buckets(gradients: list[torch.Tensor]) -> Iterator[list[torch.Tensor]]:
    bucket, used = [], 0
    for gradient in gradients:
        if bucket and used + gradient.nbytes > BUCKET:
            yield bucket
            bucket, used = [], 0
        bucket.append(gradient)
        used += gradient.nbytes
    if bucket:
        yield bucket


def clip_gradients(parameters: list[nn.Parameter], max_norm: float) -> torch.Tensor:
    """torch.nn.utils.clip_grad_norm_, also where this rank has but a part of the gradient. Returns the whole's norm."""
    parts = [p.grad for p in parameters if is_part(p) and p.grad is not None]
    if not parts:
        return torch.nn.utils.clip_grad_norm_(parameters, max_norm)
    rest = [p.grad for p in parameters if not is_part(p) and p.grad is not None]
    norm = torch.nn.utils.get_total_norm
    squared = total(norm(parts).square()) + (norm(rest).square() if rest else 0)
    torch.nn.utils.clip_grads_with_norm_(parameters, max_norm, squared.sqrt())
    return squared.sqrt()


def of_every_rank(value) -> list:
    """What every rank has here, by rank: whatever can be pickled."""
    values = [value] * world()
    if world() > 1:
        dist.all_gather_object(values, value)
    return values
