"""Data-parallel training with torchrun. In a single process every function here returns its input unchanged.

    torchrun --nproc-per-node 2 -- train_sft.py …             each rank has the network and a share of the rows
    torchrun --nproc-per-node 2 -- train_sft.py … --shard     and a share of the layers' weights (training/sharding.py)

The lone -- keeps torchrun from reading --r as its own option.

    rank 0   rows 0, 2, … of a window ─ forward ─ backward ─┐
                                                            Σ gradients ─ the same step on every rank
    rank 1   rows 1, 3, … of a window ─ forward ─ backward ─┘

This is the arithmetic of DDP (arXiv:2006.15704) without its wrapper, which averages over ranks where a sum is needed:
the loss is already divided by the supervised tokens of the whole window. Losses and gradients equal those of a single
process.

The size of a step is --step-tokens for any number of ranks; if it has fewer rows than ranks, some are idle. All ranks
read the same files and evaluate the untrained network; only rank 0 writes, prints, and continues after training.
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
from lora.adapter import trainable
from model.device import choose_device
from model.loss import IGNORE
from training.sharding import is_part, sharded, take_gradient

BUCKET = 25 * 2**20  # bytes per all-reduce, as in DDP: one for each small gradient would be dominated by latency
NOTHING = [Example([0, 0], [IGNORE, IGNORE])]  # a row without supervised tokens: it contributes exactly 0
TIMEOUT = timedelta(hours=12)  # for the slowest evaluation; torchrun itself ends all ranks when one dies


def start(wanted: str, *, shard: bool = False) -> torch.device:
    """Join the process group, if torchrun started this process. Returns this process's device.

    wanted  --device; under torchrun it must have no number, since each process gets its own device
    shard   --shard

    Raises UserError for an unavailable device, and for --shard without torchrun.
    """
    # a single process
    device = choose_device(wanted)
    if not dist.is_torchelastic_launched():
        if shard:
            raise UserError("--shard divides the weights among processes: start them with torchrun --nproc-per-node N")
        return device

    # one of several: its own GPU, and a process group
    if device.index is not None:
        raise UserError(f"--device {wanted}: torchrun gives each process its own device; give auto, cuda or cpu")
    if device.type == "cuda":
        device = choose_device(f"cuda:{os.environ['LOCAL_RANK']}")
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=TIMEOUT)

    # only rank 0 prints
    if rank() > 0:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 (open as long as the process is)
        sys.stderr.isatty = lambda: False  # silences progress bars, but not errors
    return device


def rank() -> int:
    """This process's number, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    """The number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def own_folder(folder: Path) -> Path:
    """Where this process writes a run: rank 0 into `folder`, the others into a temporary copy of its logs."""
    # the logs are copied because a resumed run reads them
    own = folder
    if rank() > 0:
        own = Path(tempfile.mkdtemp(prefix="tritune-"))
        atexit.register(shutil.rmtree, own, ignore_errors=True)
        for log in folder.glob("*.json*"):
            shutil.copy(log, own)
    of_every_rank(None)  # a barrier: nobody writes before all have read
    return own


@contextmanager
def together(network: nn.Module, *, seed: int, shard: bool = False) -> Iterator[None]:
    """Inside the block all ranks train the network; afterwards rank 0 continues alone, the other processes exit.

    The ranks start from rank 0's weights and draw different dropout masks, reproducibly.
    shard  divide the layers of the network, a Decoder, among the ranks
    """
    if not dist.is_initialized():
        yield
        return

    # equal weights, different dropout masks
    for _, parameter in trainable(network):
        dist.broadcast(parameter.data, src=0)
    if rank() > 0:
        torch.manual_seed(random.Random(f"{seed}/{rank()}").getrandbits(63))

    # training, then rank 0 alone: evaluation and saving are those of a single process
    with sharded(network) if shard else nullcontext():  # pyright: ignore[reportArgumentType]
        yield
    of_every_rank(None)  # a barrier: nobody leaves while another still waits for it
    is_first = rank() == 0
    dist.destroy_process_group()
    if not is_first:
        _leave()


def _leave() -> None:
    """Exit without tearing down the interpreter, as multiprocessing does.

    A gloo thread may still release a tensor owned by Python; during interpreter shutdown that aborts the process
    ("terminate called without an active exception"), in one of twenty runs.
    """
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def share(rows: list[list[Example]]) -> list[list[Example]]:
    """This rank's rows of a window, padded to the same number on all ranks: sharded layers are computed in lockstep."""
    # rank, rank + N, rank + 2N, …
    own = rows[rank() :: world()]
    return own + [NOTHING] * (-(-len(rows) // world()) - len(own))


def total(value):
    """The sum of a number, or of a tensor, over the ranks."""
    if world() == 1:
        return value
    # a Python float is fp64, and so is the sum
    tensor = torch.as_tensor(value, dtype=torch.float64 if isinstance(value, float) else None).clone()
    dist.all_reduce(tensor)
    return tensor if isinstance(value, torch.Tensor) else tensor.item()


def joined(embed: Callable[[list], torch.Tensor], rows: list) -> torch.Tensor:
    """embed(rows) [N, D]: each rank computes its share, and receives the others' as constants.

    Every rank then has the loss of the whole batch, and the gradients through its own rows; summed over the ranks these
    are the batch's. `embed` always gets at least one row.
    """
    if world() == 1:
        return embed(rows)

    # this rank's share, rows first … last - 1; the last ranks may have none, but still run the network
    size = -(-len(rows) // world())
    first, last = (min(len(rows), size * n) for n in (rank(), rank() + 1))
    own = embed(rows[first:last] or rows[:1])[: last - first]  # [n, D]

    # gathered as a sum: each rank adds its rows to zeros
    everyone = own.new_zeros(len(rows), own.shape[1])  # [N, D]
    everyone[first:last] = own.detach()
    dist.all_reduce(everyone)

    # its own rows with their graph, the others' without
    return torch.cat([everyone[:first], own, everyone[last:]])


def sum_gradients(parameters: list[nn.Parameter]) -> None:
    """Sum the gradients over the ranks, after the last backward pass of a step. A parameter has one on all or on none.

    parameters  `training.sharding.own_parts`. The backward pass has already summed those of sharded parameters; here
                non-finite gradients are propagated to all ranks, so that all skip the step
    """
    if world() == 1 and not any(map(is_part, parameters)):
        return

    # sharded parameters: already summed, row by row
    parts = [parameter for parameter in parameters if is_part(parameter)]
    for part in parts:
        take_gradient(part)

    # replicated ones: many small gradients as one flat tensor
    for bucket in _buckets([p.grad for p in parameters if not is_part(p) and p.grad is not None]):
        flat = torch.cat([gradient.flatten() for gradient in bucket])
        dist.all_reduce(flat)
        for gradient, summed in zip(bucket, flat.split([gradient.numel() for gradient in bucket]), strict=True):
            gradient.copy_(summed.view_as(gradient))

    # the other ranks' rows are unknown here; 0 · norm is 0, or NaN if any rank's gradient is not finite
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
    """torch.nn.utils.clip_grad_norm_, also for sharded gradients. Returns the norm of the whole gradient."""
    # without sharding every rank has the whole gradient
    parts = [p.grad for p in parameters if is_part(p) and p.grad is not None]
    if not parts:
        return torch.nn.utils.clip_grad_norm_(parameters, max_norm)

    # ‖g‖² = the ranks' rows, summed, and the replicated gradients, counted once
    rest = [p.grad for p in parameters if not is_part(p) and p.grad is not None]
    norm = torch.nn.utils.get_total_norm
    squared = torch.as_tensor(total(norm(parts).square())) + (norm(rest).square() if rest else 0)
    torch.nn.utils.clip_grads_with_norm_(parameters, max_norm, squared.sqrt())
    return squared.sqrt()


def of_every_rank(value) -> list:
    """The values of all ranks, by rank; any picklable object."""
    values = [value] * world()
    if world() > 1:
        dist.all_gather_object(values, value)
    return values
