"""What a GPU would be asked to do: launches, bytes moved, waits of the host, and what it would refuse.

A *launch* is an operator on the device that is neither a view nor an allocation: most are one kernel. A *wait* is a
place where the host stands still until the device has caught up:

    read    a number or a tensor is copied to the host
    write   a tensor is copied from the host's pageable memory
    shape   how large a result is depends on values: a boolean index, nonzero

Each is counted under the innermost function of the project that asked, as "training/precision.py:step"; what autograd's
own thread does, under "backward".
"""

from __future__ import annotations

import inspect
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.cuda.fake.device import MODE, ROOT

HALF = (torch.float16, torch.bfloat16)
PRODUCTS = {"mm", "addmm", "addmm_", "bmm", "baddbmm", "baddbmm_", "mv", "addmv", "dot", "linear"}
# What loses its meaning in half precision: sums of squares, exponentials, probabilities.
DELICATE = {
    "_softmax", "_log_softmax", "exp", "exp_", "log", "log_", "rsqrt", "rsqrt_", "linalg_vector_norm", "logsumexp",
    "native_layer_norm", "pow", "cumsum", "mean", "tanh", "tanh_", "cos", "sin",
}  # fmt: skip
ALLOCATIONS = ("empty", "new_empty", "_unsafe_view", "lift_fresh", "lift_fresh_copy", "device", "sym_", "is_", "detach")
ANSWERS = {"_local_scalar_dense", "allclose", "equal", "is_nonzero"}  # end in a number of Python
INDEXING = {"index", "index_put_", "_index_put_impl_", "index_put"}


def _to_float(name: str, args) -> bool:
    """Whether an operator reads half precision and computes in fp32."""
    return name == "_log_softmax" and args[2]


class Count(TorchDispatchMode):
    """Counts what passes. `values` says what the host is told: {"file:function": tensor -> value}."""

    active: Count | None = None
    is_recording = False  # a CUDA graph: the host may wait for nothing

    def __init__(self, values: dict | None = None) -> None:
        super().__init__()
        self.recordings = self.replays = 0  # of CUDA graphs
        self.values = values or {}
        self.faults: Counter[str] = Counter()  # what a GPU would refuse
        self.delicate: Counter[str] = Counter()  # operators of DELICATE on half precision
        self._kinds: dict = {}
        self.reset()

    def reset(self) -> None:
        """Forget the figures, for another step; faults stay."""
        self.launches = self.bytes = 0
        self.waits: Counter[str] = Counter()
        self.products: Counter[str] = Counter()  # matrix products by dtype
        self.attention: Counter[str] = Counter()  # attention kernels by name, forward

    def __enter__(self) -> Count:
        self._above = [*getattr(self, "_above", []), Count.active]
        Count.active = self
        return super().__enter__()

    def __exit__(self, *error) -> None:
        Count.active = self._above.pop()
        super().__exit__(*error)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        kind = self._kinds.get(func) or self._kinds.setdefault(func, _kind(func))
        if kind == "view":
            return func(*args, **kwargs)
        if kind == "composite":
            with self:
                return func.decompose(*args, **kwargs)
        name = func._schema.name.partition("::")[2]
        inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        if name in ANSWERS:
            return self.read(inputs[0], lambda: func(*args, **kwargs), as_bool=name != "_local_scalar_dense")
        if name == "nonzero":
            self._wait("shape")
            return torch.empty(inputs[0].numel(), inputs[0].ndim, dtype=torch.int64, device=inputs[0].device)
        if name in INDEXING:
            args = self._indexed(name, args)
        result = _attention_backward(*args) if name == "_efficient_attention_backward" else func(*args, **kwargs)
        outputs = [leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        if any(map(_is_on_device, (*inputs, *outputs))):
            self._launch(func, name, inputs, outputs, args, kwargs)
        return result

    def _launch(self, func, name, inputs, outputs, args, kwargs) -> None:
        self.launches += 1
        self.bytes += sum(tensor.nbytes for tensor in (*inputs, *outputs))
        if name in ("_to_copy", "copy_"):
            source, target = (inputs[0], outputs[0]) if name == "_to_copy" else (inputs[1], inputs[0])
            non_blocking = kwargs.get("non_blocking", False) or (name == "copy_" and len(args) > 2 and args[2])
            if _is_on_device(source) != _is_on_device(target) and not non_blocking:
                self._wait("read" if _is_on_device(source) else "write")
            return
        on_host = [tensor for tensor in inputs if not _is_on_device(tensor)]
        if name not in (*INDEXING, "fill_") and any(t.ndim or torch.Tag.pointwise not in func.tags for t in on_host):
            self._fault(f"{name} mixes devices: {[f'{t.device.type} {list(t.shape)}' for t in inputs]}")
        floats = {str(t.dtype).removeprefix("torch.") for t in inputs if t.is_floating_point()}
        if name in PRODUCTS:
            self.products[min(floats)] += 1
            if len(floats) > 1 and "dtype" not in func._overloadname:
                self._fault(f"{name} mixes dtypes: {sorted(floats)}")
        elif name.endswith("attention") or name == "_efficient_attention_forward":
            self.attention[name] += 1
            if len({t.dtype for t in inputs[:3]}) > 1:
                self._fault(f"{name} mixes dtypes: {[str(t.dtype).removeprefix('torch.') for t in inputs[:3]]}")
        elif name in DELICATE and inputs and inputs[0].dtype in HALF and not _to_float(name, args):
            self.delicate[f"{name} {site()}"] += 1

    def _indexed(self, name: str, args) -> tuple:
        """Masks replaced by as many indices as if all of them were true; counts what the host waits for."""
        self_, indices, *rest = args
        replaced = []
        for index in indices:
            if index is not None and index.dtype in (torch.bool, torch.uint8):
                if name == "index" or rest[0].numel() > 1:  # one number is filled in without looking
                    self._wait("shape")
                count = torch.empty(index.numel(), dtype=torch.int64, device=index.device)
                replaced += [count] * index.ndim
                continue
            if index is not None and self_.is_cuda and not index.is_cuda:
                self._wait("write")
            replaced.append(index)
        if name != "index" and (rest[0].ndim and rest[0].is_cuda != self_.is_cuda):
            self._fault(f"{name} mixes devices: {self_.device.type} and {rest[0].device.type}")
        return (self_, replaced if name == "index" else indices, *rest)

    def read(self, tensor: torch.Tensor, known=None, *, as_bool: bool = False):
        """What the host is told of a number; from the device it has to wait for it."""
        where = site()
        if tensor.is_cuda:
            self._wait("read", where)
        elif not isinstance(tensor, FakeTensor) or (known and tensor.constant is not None):
            return known()
        if where in self.values:
            return self.values[where](tensor)
        if as_bool or tensor.dtype == torch.bool:
            return True
        return 0.0 if tensor.is_cuda and tensor.is_floating_point() else 1  # GradScaler found 0.0 infinities

    def _wait(self, kind: str, where: str | None = None) -> None:
        self.waits[f"{where or site()} {kind}"] += 1
        if self.is_recording:
            self._fault(f"waits ({kind}) inside a CUDA graph")

    def _fault(self, what: str) -> None:
        self.faults[f"{site()} {what}"] += 1


# torch.compile's guard around it would take a sixth of the time.
Count.__torch_dispatch__ = inspect.unwrap(Count.__torch_dispatch__)


def _is_on_device(tensor: torch.Tensor) -> bool:
    """tensor.is_cuda, which of a fake tensor is an operator by itself."""
    return (tensor.fake_device if isinstance(tensor, FakeTensor) else tensor.device).type == "cuda"


def site() -> str:
    """The innermost function of the project that is being called, as "model/cache.py:reserve"."""
    frame = sys._getframe(1)
    while frame is not None:
        path, name = frame.f_code.co_filename, frame.f_code.co_name
        if path.startswith(str(ROOT)) and "/tests/" not in path and "/.venv/" not in path and name[0] != "<":
            return f"{path[len(str(ROOT)) + 1 :]}:{name}"
        frame = frame.f_back
    return "backward"


def _kind(func) -> str:
    """ "composite": made of other operators, which are what is counted; under inference mode they arrive whole."""
    namespace, _, name = func._schema.name.partition("::")
    if namespace == "prim":
        return "view"
    if func.has_kernel_for_dispatch_key(torch._C.DispatchKey.CompositeImplicitAutograd):
        return "composite"
    if name.startswith(ALLOCATIONS) and name not in ("is_nonzero",):
        return "view"
    is_view = any(r.alias_info is not None and not r.alias_info.is_write for r in func._schema.returns)
    return "view" if is_view else "launch"


def _attention_backward(grad, query, key, value, *rest) -> tuple[torch.Tensor, ...]:
    """The gradients' shapes: PyTorch's own function for them (2.13) lacks the argument `out`."""
    return (*map(torch.empty_like, (query, key, value)), torch.empty((), device=query.device))


def _tolist(tensor: FakeTensor) -> list:
    """Tensor.tolist without memory: as many numbers as there are."""
    value = Count.active.read(tensor)
    if isinstance(value, list):
        return value
    for size in reversed(tensor.shape):
        value = [value] * size
    return value


def _numpy(tensor: FakeTensor, **_) -> np.ndarray:
    """Tensor.numpy, of a tensor on the host: vectors of unit length, all of them different."""
    assert not tensor.is_cuda, "a tensor on the device has no numpy()"
    numbers = np.random.default_rng(0).random(tuple(tensor.shape))
    if numbers.ndim:
        numbers /= np.linalg.norm(numbers, axis=-1, keepdims=True)
    return numbers.astype(str(tensor.dtype).removeprefix("torch."))


class _Graph:
    """A CUDA graph: what is recorded is walked once, a replay does nothing."""

    def replay(self) -> None:
        Count.active.replays += 1


@contextmanager
def _record(graph, *args, **kwargs) -> Iterator[None]:
    Count.active.recordings += 1
    Count.active.is_recording = True
    yield
    Count.active.is_recording = False


def _submit(pool: ThreadPoolExecutor, function, *args, **kwargs) -> Future:
    """What a walk does in another thread is walked too: modes are a thread's own."""
    count = Count.active

    def walked(*args, **kwargs):
        with MODE, count:
            return function(*args, **kwargs)

    return _submit_as_is(pool, walked if count else function, *args, **kwargs)


_submit_as_is, ThreadPoolExecutor.submit = ThreadPoolExecutor.submit, _submit
torch.cuda.synchronize = lambda device=None: Count.active._wait("read")
torch.cuda.CUDAGraph, torch.cuda.graph = _Graph, _record
FakeTensor.tolist, FakeTensor.numpy = _tolist, _numpy
