"""A fake CUDA device: import this before torch, and tensors on "cuda" have shape, dtype and device, but no memory.

Every operator goes through PyTorch's own dispatcher, autograd and autocast; only kernels are left out. What a CPU build
of PyTorch refuses on the way is replaced below, each with its reason. `DEVICE` is what the walks put tensors on, inside
of `MODE`.
"""

from __future__ import annotations

import ctypes
import functools
import logging
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

from tests.cuda.fake import build

ROOT = Path(__file__).resolve().parents[3]
if "torch" in sys.modules:
    raise ImportError("the fake CUDA device is loaded before torch, in a process of its own")
_guard = ctypes.CDLL(str(build.guard()), mode=ctypes.RTLD_GLOBAL)

import safetensors.torch  # noqa: E402
import torch  # noqa: E402
import torch.cuda.amp.common  # noqa: E402
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily  # noqa: E402

DEVICE = torch.device("cuda:0")
GIB = 2**30


class _Mode(FakeTensorMode):
    @property
    def avoid_device_init(self) -> bool:
        """torch.tensor(values, device="cuda") is built on the CPU and then copied, which is what has to be counted."""
        return True


torch.set_num_threads(1)
MODE = _Mode(allow_non_fake_inputs=True)  # numpy arrays and random states are real tensors, on the CPU


def become(capability: tuple[int, int]) -> None:
    """From now on be a device of this compute capability, with nothing left in any cache of the project."""
    torch.manual_seed(0)
    torch.cuda.get_device_capability = lambda device=None: capability
    _guard.set_capability(10 * capability[0] + capability[1])
    for module in list(sys.modules.values()):
        if str(getattr(module, "__file__", None)).startswith(str(ROOT)):
            for value in vars(module).values():
                if isinstance(value, functools._lru_cache_wrapper):
                    value.cache_clear()


# What torch.cuda says of its device. A CPU build says that there is none.
for _name, _value in {
    "is_available": True,
    "is_initialized": True,
    "device_count": 1,
    "current_device": 0,
    "get_device_name": "fake",
    "_is_compiled": True,
    "_lazy_init": None,
    "_exchange_device": 0,
    "_maybe_exchange_device": 0,
    "set_device": None,
    "manual_seed": None,
    "manual_seed_all": None,
    "set_rng_state": None,
    "empty_cache": None,
    "reset_peak_memory_stats": None,
    "max_memory_allocated": 2 * GIB,
    "memory_allocated": GIB,
    "memory_reserved": GIB,
    "mem_get_info": (12 * GIB, 15 * GIB),
    "get_device_properties": SimpleNamespace(name="fake", total_memory=15 * GIB, major=9, minor=0),
}.items():
    setattr(torch.cuda, _name, lambda *args, value=_value, **kwargs: value)
torch.cuda.get_rng_state = lambda device=None: torch.zeros(16, dtype=torch.uint8)

# GradScaler switches itself off where this says that there is no CUDA.
torch.cuda.amp.common.amp_definitely_not_available = lambda: False


class _Stream:
    """A stream and an event: everything is done in order, and at once."""

    def __init__(self, *args, **kwargs) -> None:
        self.device = DEVICE

    def wait_stream(self, other) -> None: ...
    def synchronize(self) -> None: ...
    def record(self, stream=None) -> None: ...
    def record_event(self, event=None): ...
    def wait_event(self, event) -> None: ...


torch.cuda.Stream = torch.cuda.Event = _Stream
torch.cuda.current_stream = torch.cuda.default_stream = lambda device=None: _Stream()
torch.cuda.stream = lambda stream: nullcontext()


def _apply(module: torch.nn.Module, fn, recurse: bool = True) -> torch.nn.Module:
    """Module.to and the like. PyTorch swaps the insides of fake parameters, but not of shared ones."""
    for child in module.children() if recurse else ():
        child._apply(fn)
    for name, parameter in module._parameters.items():
        if parameter is not None:
            with torch.no_grad():
                moved = fn(parameter)
            if (moved.dtype, moved.device) != (parameter.dtype, parameter.device):
                module._parameters[name] = torch.nn.Parameter(moved, parameter.requires_grad)
    for name, buffer in module._buffers.items():
        if buffer is not None:
            module._buffers[name] = fn(buffer)
    return module


torch.nn.Module._apply = _apply
logging.getLogger("torch._subclasses.fake_tensor").setLevel(logging.CRITICAL)  # a walk reports its own failures


def _save_file(tensors: dict, path, metadata: dict | None = None) -> None:
    """Write zeros in place of fake tensors: what follows reads a real file. A tensor on the device is refused."""
    wrong = [name for name, tensor in tensors.items() if tensor.is_cuda or not tensor.is_contiguous()]
    assert not wrong, f"{wrong[0]} is on the device, or not contiguous"
    with unset_fake_temporarily():
        real = {
            name: torch.zeros(tuple(tensor.shape), dtype=tensor.dtype) if isinstance(tensor, FakeTensor) else tensor
            for name, tensor in tensors.items()
        }
        _real_save(real, path, metadata)


def _load_file(path, device="cpu") -> dict:
    with unset_fake_temporarily():
        return _real_load(path)


_real_save, _real_load = safetensors.torch.save_file, safetensors.torch.load_file
safetensors.torch.save_file, safetensors.torch.load_file = _save_file, _load_file
