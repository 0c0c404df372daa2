"""Checkpoints: the whole state of a run, so that a resumed one continues bit for bit.

    checkpoint/step-00000040/state.json           step, schedule, loss scale, Python's and NumPy's random state
                             tensors.safetensors  trainable weights, optimiser moments, PyTorch's random states, by rank

A checkpoint is written to a hidden folder and renamed once complete; only then are the older one and any partial one
removed. Nothing is pickled. The position in the data is the step number (data/packing.py). Sharded tensors are saved
whole, so any number of processes can resume.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import safetensors.torch
import torch
from torch import nn

from common.console import UserError
from common.files import new_folder, read_json, write_json
from lora.adapter import trainable
from training.overflow import keep_in_fp32
from training.parallel import rank
from training.precision import Precision
from training.random_state import random_state, restore_random_state
from training.sharding import own_part, own_rows, whole


def save_checkpoint(folder: Path, step: int, network: nn.Module, optimizer, schedule, precision: Precision) -> Path:
    """Write the state after `step` steps, then remove older checkpoints. All ranks call it; rank 0 writes."""
    # trainable weights and optimiser moments, gathered from all ranks
    weights = {f"weight.{name}": own_part(parameter) for name, parameter in trainable(network)}
    tensors = {name: whole(part.detach(), part) for name, part in weights.items()}
    optimizer_state, parameters = optimizer.state_dict(), _parameters(optimizer)
    for index, moments in optimizer_state["state"].items():
        for key, value in moments.items():
            tensors[f"optimizer.{index}.{key}"] = whole(value, parameters[index])

    # random states: dropout and sampling continue where they were
    random_tensors, random_values = random_state(precision.device)
    tensors |= random_tensors
    target = folder / f"step-{step:08d}"
    if rank() > 0:
        return target

    # everything that is not a tensor
    state = {
        "step": step,
        "groups": optimizer_state["param_groups"],
        "schedule": {k: v for k, v in schedule.state_dict().items() if isinstance(v, int | float | list)},
        "scaler": precision.scaler.state_dict(),
        "fp32_modules": precision.fp32_modules,
        **random_values,
    }

    # written to a hidden folder and renamed: a kill at any moment leaves a complete checkpoint
    with new_folder(target) as temporary:
        contiguous = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
        safetensors.torch.save_file(contiguous, temporary / "tensors.safetensors")
        write_json(temporary / "state.json", state)

    # the new one is complete: only now do the older ones go, and what a kill left of a partial one
    for older in [*folder.glob("step-*"), *folder.glob(".step-*")]:
        if older != target:
            shutil.rmtree(older, ignore_errors=True)
    return target


def latest_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint, or None. A partial one has a hidden name and is ignored."""
    return max((path for path in folder.glob("step-*") if (path / "state.json").is_file()), default=None)


def load_checkpoint(path: Path, network: nn.Module, optimizer, schedule, precision: Precision) -> int:
    """Restore everything in place; returns the number of completed steps. UserError if it is not this network's."""
    # everything that was saved
    state = read_json(path / "state.json")
    try:
        tensors = safetensors.torch.load_file(path / "tensors.safetensors")
    except (safetensors.SafetensorError, OSError) as error:
        raise UserError(f"{path}: unreadable checkpoint ({error}); start again with another --out") from None

    # trainable weights: exactly those of this network, or it is refused
    weights = {f"weight.{name}": own_part(parameter) for name, parameter in trainable(network)}
    saved = {name for name in tensors if name.startswith("weight.")}
    if weights.keys() != saved:
        differing = sorted(weights.keys() ^ saved)[0]
        raise UserError(f"{path}: the checkpoint belongs to another model or adapter (differs at {differing})")
    with torch.no_grad():
        for name, part in weights.items():
            part.copy_(own_rows(tensors[name], part))

    # optimiser: "optimizer.7.exp_avg" is a moment of its parameter 7
    moments: dict[int, dict] = {}
    parameters = _parameters(optimizer)
    for name, tensor in tensors.items():
        if name.startswith("optimizer."):
            _, index, key = name.split(".")
            moments.setdefault(int(index), {})[key] = own_rows(tensor, parameters[int(index)])
    optimizer.load_state_dict({"state": moments, "param_groups": state["groups"]})

    # schedule, loss scale, modules that overflowed
    schedule.load_state_dict(state["schedule"])
    precision.scaler.load_state_dict(state["scaler"])
    keep_in_fp32(network, state["fp32_modules"], precision)

    # last, so that loading itself does not disturb them
    restore_random_state(tensors, state, precision.device)
    return state["step"]


def _parameters(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    """In the order in which the optimiser's state numbers them."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
