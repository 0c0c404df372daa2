"""The states of all random number generators: PyTorch's on each rank and device, Python's and NumPy's."""

from __future__ import annotations

import random

import numpy as np
import torch

from training.parallel import of_every_rank, rank


def random_state(device: torch.device) -> tuple[dict[str, torch.Tensor], dict[str, list]]:
    """PyTorch's states of every rank as tensors, Python's and NumPy's as JSON values. All ranks call it together."""
    # PyTorch's: dropout, which differs between ranks
    tensors = {_of_rank("random.cpu", n): state for n, state in enumerate(of_every_rank(torch.get_rng_state()))}
    if device.type == "cuda":
        states = of_every_rank(torch.cuda.get_rng_state(device))
        tensors |= {_of_rank("random.cuda", n): state for n, state in enumerate(states)}

    # Python's and NumPy's
    version, python_state, gauss = random.getstate()
    _, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    values = {
        "python_random": [version, list(python_state), gauss],
        "numpy_random": [np.asarray(keys).tolist(), position, has_gauss, cached],
    }
    return tensors, values


def restore_random_state(tensors: dict[str, torch.Tensor], values: dict[str, list], device: torch.device) -> None:
    """Restore what `random_state` returned. A rank that the saved run did not have keeps its own PyTorch state."""
    of_cpu, of_cuda = _of_rank("random.cpu", rank()), _of_rank("random.cuda", rank())
    if of_cpu in tensors:
        torch.set_rng_state(tensors[of_cpu])
    if of_cuda in tensors and device.type == "cuda":
        torch.cuda.set_rng_state(tensors[of_cuda], device)

    # JSON has lists; these modules expect tuples and arrays
    version, python_state, gauss = values["python_random"]
    random.setstate((version, tuple(python_state), gauss))
    keys, position, has_gauss, cached = values["numpy_random"]
    np.random.set_state(("MT19937", np.array(keys, dtype=np.uint32), position, has_gauss, cached))


def _of_rank(name: str, number: int) -> str:
    return f"{name}.{number}" if number else name
