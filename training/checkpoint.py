"""Everything that a run needs to go on as if it had never stopped, written so that a kill leaves a whole one.

    checkpoint/step-00000040/state.json           step, schedule, scaler, random states that are numbers
                             tensors.safetensors  trainable weights, optimiser moments, PyTorch's random states by rank

A checkpoint is written beside the last one under another name, renamed when it is complete, and only then is the older
one removed. Nothing is pickled. The position in the data is the number of the step (data/packing.py). The tensors are
whole, however many processes had parts of them: any number goes on with what any other has left.
"""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from torch import nn

from common.console import UserError
from common.files import new_folder, read_json, write_json
from lora.inject import trainable
from training.parallel import of_every_rank, rank
from training.precision import Precision, keep_in_fp32
from training.sharding import own_part, own_rows, whole


def save_checkpoint(folder: Path, step: int, network: nn.Module, optimizer, schedule, precision: Precision) -> Path:
    """Write the state after `step` steps into `folder`, then remove older ones. Returns the new checkpoint.

    All ranks call it together; rank 0 writes.
    """
    learning = {f"weight.{name}": own_part(parameter) for name, parameter in trainable(network)}
    tensors = {name: whole(part.detach(), part) for name, part in learning.items()}
    optimizer_state, updated = optimizer.state_dict(), _updated(optimizer)
    for index, moments in optimizer_state["state"].items():
        for key, value in moments.items():
            tensors[f"optimizer.{index}.{key}"] = whole(value, updated[index])
    tensors |= {_of_rank("random.cpu", n): state for n, state in enumerate(of_every_rank(torch.get_rng_state()))}
    if precision.device.type == "cuda":
        states = of_every_rank(torch.cuda.get_rng_state(precision.device))
        tensors |= {_of_rank("random.cuda", n): state for n, state in enumerate(states)}
    target = folder / f"step-{step:08d}"
    if rank() > 0:
        return target
    version, python_state, gauss = random.getstate()
    _, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    numbers = {
        "step": step,
        "groups": optimizer_state["param_groups"],
        "schedule": {k: v for k, v in schedule.state_dict().items() if isinstance(v, int | float | list)},
        "scaler": precision.scaler.state_dict(),
        "fp32_modules": precision.fp32_modules,
        "python_random": [version, list(python_state), gauss],
        "numpy_random": [keys.tolist(), position, has_gauss, cached],
    }
    with new_folder(target) as temporary:
        contiguous = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
        safetensors.torch.save_file(contiguous, temporary / "tensors.safetensors")
        write_json(temporary / "state.json", numbers)
    for older in folder.glob("step-*"):
        if older != target:
            shutil.rmtree(older, ignore_errors=True)
    return target


def latest_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint. What a killed run left half-written lies under a hidden name and is not seen."""
    return max((path for path in folder.glob("step-*") if (path / "state.json").is_file()), default=None)


def load_checkpoint(path: Path, network: nn.Module, optimizer, schedule, precision: Precision) -> int:
    """Restore everything in place; returns the number of steps that were done."""
    numbers = read_json(path / "state.json")
    try:
        tensors = safetensors.torch.load_file(path / "tensors.safetensors")
    except (safetensors.SafetensorError, OSError) as error:
        raise UserError(f"{path}: checkpoint not readable ({error}); start anew with another --out") from None
    learning = {f"weight.{name}": own_part(parameter) for name, parameter in trainable(network)}
    saved = {name for name in tensors if name.startswith("weight.")}
    if learning.keys() != saved:
        odd = sorted(learning.keys() ^ saved)[0]
        raise UserError(f"{path}: the checkpoint belongs to another model or adapter (differs at {odd})")
    with torch.no_grad():
        for name, part in learning.items():
            part.copy_(own_rows(tensors[name], part))
    moments: dict[int, dict] = {}
    updated = _updated(optimizer)
    for name, tensor in tensors.items():
        if name.startswith("optimizer."):
            _, index, key = name.split(".")
            moments.setdefault(int(index), {})[key] = own_rows(tensor, updated[int(index)])
    optimizer.load_state_dict({"state": moments, "param_groups": numbers["groups"]})
    schedule.load_state_dict(numbers["schedule"])
    precision.scaler.load_state_dict(numbers["scaler"])
    keep_in_fp32(network, numbers["fp32_modules"], precision)
    of_cpu, of_cuda = _of_rank("random.cpu", rank()), _of_rank("random.cuda", rank())
    if of_cpu in tensors:  # a rank that there was not when it was written goes on with its own
        torch.set_rng_state(tensors[of_cpu])
    if of_cuda in tensors and precision.device.type == "cuda":
        torch.cuda.set_rng_state(tensors[of_cuda], precision.device)
    version, python_state, gauss = numbers["python_random"]
    random.setstate((version, tuple(python_state), gauss))
    keys, position, has_gauss, cached = numbers["numpy_random"]
    np.random.set_state(("MT19937", np.array(keys, dtype=np.uint32), position, has_gauss, cached))
    return numbers["step"]


def _updated(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    """Parameters in the order in which the optimiser's state numbers them."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _of_rank(name: str, number: int) -> str:
    return f"{name}.{number}" if number else name
