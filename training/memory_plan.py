"""--dry-run without weights: how much memory a run will need, by the arithmetic of its own code.

The network of config.json is built on PyTorch's meta device, whose tensors have a shape and no numbers, and makes one
pass forward and backward. Every tensor that the pass creates is entered in a ledger and struck out when it is freed, so
the sum follows the code: adapter, checkpointing, 4-bit weights and fused kernels included.

Not in the sum: CUDA's own context, and what fragmentation wastes.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from common.console import UserError
from common.files import read_json
from lora.adapter import trainable
from lora.frozen_weight import QUANTIZE
from lora.nf4 import NF4Weight
from model.config import ModelConfig
from model.decoder import Decoder
from model.device import DTYPES
from training.describe import GIB, describe_model
from training.optim import STATE_BYTES
from training.setup import add_lora, refuse_longer_texts
from training.shared_options import DecoderOptions

META = torch.device("meta")
CHUNK = 256  # positions whose logits exist at once, in the compute dtype and in fp32 (model/loss.py)


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes of a run."""

    weights: int
    adapter: int  # fp32
    gradients: int  # of the adapter
    moments: float  # of the optimiser
    peak: float  # all together, in the middle of a pass

    @property
    def activations(self) -> float:
        """What a pass keeps for its way back, and computes with."""
        return self.peak - self.weights - self.adapter - self.gradients - self.moments


def has_no_weights(model: str) -> bool:
    """Whether MODEL is a folder with config.json and no file of weights in any format."""
    folder = Path(model).expanduser()
    weights = [path for pattern in ("*.safetensors*", "*.bin", "*.gguf") for path in folder.glob(pattern)]
    return (folder / "config.json").is_file() and not weights


def describe_without_weights(options: DecoderOptions, *, limit: str, row_tokens: int) -> str:
    """The lines of --dry-run that need config.json alone: model, adapter, memory.

    limit, row_tokens  the option that limits a row, and its value
    UserError for any method but LoRA.
    """
    if options.method != "lora":
        raise UserError(f"{options.model} has no weights; without them --dry-run counts LoRA, not {options.method}")
    dtype = torch.float16 if options.dtype == "auto" else DTYPES[options.dtype]
    decoder = decoder_without_memory(options, dtype)
    refuse_longer_texts(limit, row_tokens, decoder)
    tokens = options.micro_batch * row_tokens
    plan = plan_memory(decoder, dtype, options.optimizer, tokens=tokens)
    parts = {
        "weights": plan.weights, "adapter": plan.adapter, "gradients": plan.gradients,
        f"moments of {options.optimizer}": plan.moments, "activations": plan.activations,
    }  # fmt: skip
    shown = ", ".join(f"{size / GIB:.2f} {name}" for name, size in parts.items())
    return (
        f"{describe_model(options, decoder, dtype)}\n"
        f"memory   about {plan.peak / GIB:.2f} GiB in passes of {tokens:,} tokens: {shown}\n"
        "beside   CUDA's context and fragmentation, about 0.5 GiB; to count steps and time, fetch the weights"
    )


def decoder_without_memory(options: DecoderOptions, dtype: torch.dtype) -> Decoder:
    """--model's decoder with its adapter, from config.json, on the meta device."""
    config = ModelConfig.from_dict(read_json(Path(options.model).expanduser() / "config.json"))
    with META:
        decoder = Decoder(config).to(dtype)
    put = QUANTIZE[options.quantize]
    for name, weight in list(decoder.named_parameters()):
        put(decoder, name, weight.detach())
    for module in decoder.modules():
        if isinstance(module, NF4Weight):
            module.__class__ = _CountedNF4
    add_lora(decoder, options)
    decoder.checkpointing = options.checkpointing
    return decoder.train()


def plan_memory(decoder: Decoder, dtype: torch.dtype, optimizer: str, *, tokens: int) -> MemoryPlan:
    """One pass of a decoder on the meta device over a row of `tokens` tokens, which is one document.

    dtype      of the computation
    optimizer  by name
    """
    # what is there before a pass: weights, adapter, gradients of the window's earlier passes, the optimiser's moments
    learning = [parameter for _, parameter in trainable(decoder)]
    ledger = Ledger()
    for tensor in [*decoder.parameters(), *decoder.buffers()]:
        ledger.enter(tensor)
    adapter = sum(parameter.nbytes for parameter in learning)
    weights = ledger.now - adapter
    for parameter in learning:
        parameter.grad = torch.empty_like(parameter)
        ledger.enter(parameter.grad)
    moments = STATE_BYTES[optimizer] * sum(parameter.numel() for parameter in learning)

    # forward
    config = decoder.config
    with _fused_attention(), ledger:
        hidden_states = decoder.hidden_states(torch.empty(1, tokens, dtype=torch.long, device=META))  # [1, T, D]

        # the loss: a chunk's logits twice, the hidden states once more, and their gradient in fp32
        logits = min(CHUNK, tokens) * config.vocab_size * (dtype.itemsize + 4)
        states = tokens * config.hidden_size * (dtype.itemsize + 4)
        of_loss = torch.empty(logits + states, dtype=torch.uint8, device=META)
        del of_loss

        # backward
        torch.autograd.backward(hidden_states, torch.empty_like(hidden_states))
    return MemoryPlan(weights, adapter, adapter, moments, ledger.peak + moments)


class Ledger(TorchDispatchMode):
    """Within it, `now` is the bytes of all tensors entered or created that still exist, and `peak` the most so far."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._bytes: dict[int, int] = {}  # by storage: views share theirs

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        """Call the operator, and enter what it returns."""
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                self.enter(leaf)
        return out

    def enter(self, tensor: torch.Tensor) -> None:
        """Count a tensor's storage from now until it is freed."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self._bytes:
            self._bytes[key] = storage.nbytes()
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._strike_out, key)

    def _strike_out(self, key: int) -> None:
        self.now -= self._bytes.pop(key)


class _CountedNF4(NF4Weight):
    """A matrix in NF4 on the meta device: its dense form is counted, not the decoder's small buffers."""

    def dense(self) -> torch.Tensor:
        return torch.empty(self.shape, dtype=self.dtype, device=self.device)


@contextmanager
def _fused_attention() -> Iterator[None]:
    """Attention by a GPU's kernel. On the meta device PyTorch would choose the one that keeps all [T, T] scores."""
    chosen = F.scaled_dot_product_attention
    F.scaled_dot_product_attention = _efficient_attention
    try:
        yield
    finally:
        F.scaled_dot_product_attention = chosen


def _efficient_attention(q, k, v, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None) -> torch.Tensor:
    """F.scaled_dot_product_attention by the memory-efficient kernel: keeps q, k, v, the output and [H, T] sums."""
    out, *_ = torch.ops.aten._scaled_dot_product_efficient_attention(
        q, k, v, attn_mask, True, dropout_p, is_causal, scale=scale
    )
    return out
