"""Peak memory of training, for decoders of well-known shapes with random weights: nothing is downloaded.

    python -m bench.memory --shape mistral-7b --quantize nf4 --rank 16 --rows 2 --tokens 2048 --checkpointing full

The step of train_sft.py: LoRA on every linear layer, or all weights; a loss over all tokens. Weights are created one by
one, as when they are read from a file. Memory is counted from the first weight on.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from bench.measure import GPUOptions, Memory, be_turing, row
from common.console import progress, run_command
from common.files import write_json
from common.options import as_settings, option, parse
from eval.environment import environment
from lora.adapter import trainable
from lora.frozen_weight import QUANTIZE
from lora.inject import DECODER_TARGETS, inject
from model.config import ModelConfig
from model.decoder import CHECKPOINTING, Decoder
from model.device import DTYPES, choose_device, choose_dtype, shapes_alone
from model.loss import causal_lm_loss, supervised_tokens
from model.weights import Put, fill
from training.optim import OPTIMIZERS, adamw
from training.precision import Precision

SHAPES = {  # from the models' config.json
    "mistral-7b": {
        "model_type": "mistral", "vocab_size": 32_000, "hidden_size": 4096, "intermediate_size": 14_336,
        "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "sliding_window": 4096,
        "max_position_embeddings": 32_768, "rms_norm_eps": 1e-5, "tie_word_embeddings": False,
    },
    "qwen2.5-1.5b": {
        "model_type": "qwen2", "vocab_size": 151_936, "hidden_size": 1536, "intermediate_size": 8960,
        "num_hidden_layers": 28, "num_attention_heads": 12, "num_key_value_heads": 2, "rope_theta": 1e6,
        "max_position_embeddings": 32_768, "tie_word_embeddings": True,
    },
    "qwen2.5-0.5b": {
        "model_type": "qwen2", "vocab_size": 151_936, "hidden_size": 896, "intermediate_size": 4864,
        "num_hidden_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2, "rope_theta": 1e6,
        "max_position_embeddings": 32_768, "tie_word_embeddings": True,
    },
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ShapeOptions:
    """A network of a well-known shape, with random weights."""

    shape: str = option("qwen2.5-0.5b", "shape of the network", choices=tuple(SHAPES))
    layers: int | None = option(None, "number of layers (default: as many as the shape has)")


@dataclass(frozen=True, kw_only=True)
class Options(ShapeOptions, GPUOptions):
    """Options of this command."""

    quantize: str = option("none", "format of the frozen linear layers", choices=tuple(QUANTIZE))
    rank: int = option(16, "LoRA rank")
    rows: int = option(2, "texts of a step")
    tokens: int = option(2048, "tokens of a text")
    steps: int = option(2, "training steps")
    checkpointing: str = option("none", "activations to recompute in the backward pass", choices=CHECKPOINTING)
    full: bool = option(False, "train all weights in fp32 instead of an adapter")
    optimizer: str = option("adamw", "adamw8bit: moments in a quarter of the memory", choices=tuple(OPTIMIZERS))
    dtype: str = option("auto", "compute dtype", choices=("auto", *DTYPES))


def main() -> None:
    """Command line."""
    options = parse(Options, description=__doc__)
    device = choose_device(options.device)
    if options.turing:
        be_turing(device)
    dtype = choose_dtype(device, options.dtype)
    torch.manual_seed(options.seed)
    figures = measure(options, device, dtype)
    for name, unit, value in figures:
        print(f"{options.shape}, {name:24} {value:8.2f} {unit}")
    if options.out is not None:
        asked = {name: str(value) for name, value in as_settings(options, without=("out",)).items()}
        rows = [row(name, unit, [value], []) for name, unit, value in figures]
        write_json(options.out, {"rows": rows, "options": asked, "environment": environment(device, dtype)})


def measure(options: Options, device: torch.device, dtype: torch.dtype) -> list[tuple[str, str, float]]:
    """Build and train; returns (name, unit, value) rows."""
    memory = Memory(device)
    started = time.perf_counter()
    weights_dtype = torch.float32 if options.full else dtype
    decoder = random_decoder(config_of(options), weights_dtype, device, QUANTIZE[options.quantize])
    built = time.perf_counter() - started
    weights, most_to_build = memory.now(), memory.peak()
    seconds = train(decoder, options, Precision(device, dtype))
    return [
        ("weights", "GiB", weights),
        ("peak while creating them", "GiB", most_to_build),
        ("peak", "GiB", memory.peak()),
        ("to create the weights", "s", built),
        ("the last step", "s", seconds),
    ]


def config_of(options: ShapeOptions) -> ModelConfig:
    """The configuration of --shape with --layers layers."""
    return ModelConfig.from_dict(
        SHAPES[options.shape] | ({"num_hidden_layers": options.layers} if options.layers else {})
    )


def random_decoder(config: ModelConfig, dtype: torch.dtype, device: torch.device, put: Put) -> Decoder:
    """A decoder with small normal weights, each placed before the next one is created."""
    with shapes_alone():
        decoder = Decoder(config)
    shapes = {name: parameter.shape for name, parameter in decoder.named_parameters()}

    def tensors() -> Iterator[tuple[str, torch.Tensor]]:
        for name, shape in progress(shapes.items(), what="weights", unit="matrix"):
            yield name, torch.empty(shape, dtype=dtype, device=device).normal_(std=0.02)

    fill(decoder, tensors(), dtype=dtype, device=device, where="random", skip=lambda name: False, put=put)
    return decoder


def train(decoder: Decoder, options: Options, precision: Precision) -> float:
    """--steps steps on random ids; returns the seconds of the last one."""
    if not options.full:
        inject(decoder, r=options.rank, alpha=2.0 * options.rank, targets=DECODER_TARGETS)
    decoder.train()
    decoder.checkpointing = options.checkpointing
    optimizer = adamw(decoder, options.optimizer, lr=1e-4, weight_decay=0.0)
    learning = [parameter for _, parameter in trainable(decoder)]
    seconds = 0.0
    for _ in progress(range(options.steps), what="steps", unit="step"):
        started = time.perf_counter()
        ids = torch.randint(decoder.config.vocab_size, (options.rows, options.tokens), device=precision.device)
        with precision.autocast():
            hidden_states = decoder.hidden_states(ids)
            loss = causal_lm_loss(hidden_states, decoder.head_weight, ids, softcap=decoder.softcap)
        precision.backward(loss / supervised_tokens(ids))
        precision.step(optimizer, learning, 1.0)  # reads the gradient norm: waits for the device
        seconds = time.perf_counter() - started
    return seconds


if __name__ == "__main__":
    sys.exit(run_command(main))
