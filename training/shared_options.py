"""The options that the training scripts share; each script adds its own at its top."""

from __future__ import annotations

from dataclasses import dataclass

from common.options import option
from lora.bottleneck import ACTIVATIONS, PLACES
from lora.frozen_weight import QUANTIZE
from lora.inject import DECODER_TARGETS
from model.decoder import CHECKPOINTING
from model.device import DTYPES
from training.methods import LEARNING_RATES
from training.optim import OPTIMIZERS, SCHEDULES

DATA = "what to learn from"
MODEL = "the model"
ADAPTER = "the adapter"
OPTIMISER = "the optimiser"
LOSS = "the loss"
MEMORY = "memory and speed"
MEASURING = "measuring"
RUN = "the run"

METHOD_HELP = "what is trained: an adapter, or all weights (docs/methods.md)"
TARGETS_HELP = "layers with an adapter: comma-separated last names, a regular expression for full names, or all-linear"


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """Options of all three scripts."""

    GROUPS = (DATA, MODEL, RUN, OPTIMISER, LOSS, ADAPTER, MEMORY, MEASURING)

    # which model, where to, and how far
    model: str = option(help="folder, .gguf file, hub id or embedded default (smollm2-135m)", group=MODEL)
    out: str = option(help="folder of the run", metavar="RUN", group=RUN)
    resume: bool = option(False, "continue the run in --out from its last checkpoint", RUN)
    dry_run: bool = option(False, "print what would be trained, with an estimate of time and memory, and exit", RUN)
    plain: bool = option(False, "run the textbook forms alone: slower, to step through or to edit")

    # LoRA
    r: int = option(16, "LoRA rank", ADAPTER, least=1)
    alpha: float = option(32.0, "LoRA scale: the low-rank update is multiplied by alpha / r", ADAPTER)
    dropout: float = option(0.0, "LoRA dropout, 0 to 1", ADAPTER, least=0, most=1)
    targets: str = option(",".join(DECODER_TARGETS), TARGETS_HELP, ADAPTER)
    rank_pattern: str | None = option(
        None, "ranks by layer, such as q_proj=8,down_proj=32 (default: --r for all)", ADAPTER, metavar="PATTERN"
    )
    alpha_pattern: str | None = option(
        None, "alphas by layer, in the same form (default: --alpha for all)", ADAPTER, metavar="PATTERN"
    )
    rslora: bool = option(False, "scale by alpha / sqrt(r) instead, for ranks above about 32", ADAPTER)
    dora: bool = option(False, "DoRA: train the norm of each weight row separately from its direction; slower", ADAPTER)
    lora_plus_ratio: float = option(
        1.0, "LoRA+: learning rate of B divided by that of A, which is --lr (1: plain LoRA; the paper uses 16)", ADAPTER
    )

    # AdamW and its schedule; each script may have its own defaults
    epochs: float = option(1.0, "passes over the training rows", OPTIMISER, least=0)
    lr: float | None = option(None, "peak learning rate (default: that of the method)", OPTIMISER, least=0)
    optimizer: str = option(
        "adamw", "adamw8bit stores its moments in a quarter of the memory", OPTIMISER, choices=tuple(OPTIMIZERS)
    )
    schedule: str = option("cosine", "decay of the learning rate after its peak", OPTIMISER, choices=tuple(SCHEDULES))
    warmup: float = option(0.1, "share of the steps over which the learning rate rises", OPTIMISER, least=0, most=1)
    initial_lr: float = option(0.0, "learning rate at the first step, as a share of --lr", OPTIMISER, least=0, most=1)
    final_lr: float = option(0.1, "learning rate at the last step, as a share of --lr", OPTIMISER, least=0, most=1)
    weight_decay: float = option(0.01, "AdamW's weight decay, applied to matrices", OPTIMISER, least=0)
    max_norm: float = option(1.0, "clip the gradient norm to this (0: do not clip)", OPTIMISER, least=0)

    # time, checkpoints, logs
    max_minutes: float = option(
        0.0, "stop after this many minutes with a checkpoint to --resume from (0: no limit)", RUN, least=0
    )
    checkpoint_every: int = option(10, "steps between checkpoints (0: none)", RUN, least=0)
    log_to: str | None = option(
        None, "tensorboard, wandb or both, comma-separated, in addition to metrics.jsonl", RUN, metavar="NAMES"
    )

    # hardware, and the seed of everything
    device: str = option("auto", "auto, cpu, cuda or cuda:N", MODEL)
    dtype: str = option(
        "auto", "compute dtype; auto: half precision where the hardware is faster in it", MODEL,
        choices=("auto", *DTYPES),
    )  # fmt: skip
    seed: int = option(0, "seed of the split, the adapter, the row order, dropout and sampling", RUN)


@dataclass(frozen=True, kw_only=True)
class DecoderOptions(TrainOptions):
    """Options of the two scripts that train a causal LM."""

    # what is trained, and the options of LoRA's relatives; training/methods.py says what goes with which
    method: str = option("lora", METHOD_HELP, ADAPTER, choices=tuple(LEARNING_RATES))
    placement: str = option(
        "houlsby", "where bottlenecks stand: houlsby, on each branch; pfeiffer, after each layer", ADAPTER,
        choices=tuple(PLACES),
    )  # fmt: skip
    reduction_factor: float = option(
        16.0, "width of the model divided by the size of a bottleneck", ADAPTER, least=0.01
    )
    activation: str | None = option(
        None, "of a bottleneck (default: swish for houlsby, relu for pfeiffer)", ADAPTER, choices=tuple(ACTIVATIONS)
    )

    # prefix and prompt, which only a decoder has places for as well
    virtual_tokens: int = option(20, "virtual tokens of a prefix or a prompt", ADAPTER, least=1)
    init_text: str | None = option(
        None, "text that they start as, repeated or cut to their number (default: frequent tokens, drawn by --seed)",
        ADAPTER, metavar="TEXT",
    )  # fmt: skip
    random_init: bool = option(False, "start from random numbers instead, as peft does", ADAPTER)
    prefix_mlp: int = option(
        0, "width of an MLP that makes the prefix while it is trained, from random numbers (0: none)", ADAPTER, least=0
    )

    # how the weights are stored
    quantize: str = option("none", "the frozen linear layers in 8 or 4 bits", MODEL, choices=tuple(QUANTIZE))
    shard: bool = option(False, "under torchrun: also divide the weights of the layers among the processes", MEMORY)

    # the size of a step, and of the passes that make it up
    step_tokens: int = option(
        4096, "tokens of an optimiser step; packed rows are accumulated up to this number", OPTIMISER, least=1
    )
    fit: bool = option(False, "choose --micro-batch and --checkpointing by measuring what fits in memory", MEMORY)
    micro_batch: int = option(1, "packed rows per forward and backward pass", MEMORY, least=1)
    checkpointing: str = option("none", "activations to recompute in the backward pass", MEMORY, choices=CHECKPOINTING)
    fp32_modules: str | None = option(
        None,
        "compute these self_attn or mlp modules in fp32: a regular expression for full names",
        MODEL,
        metavar="REGEX",
    )

    # what is measured before the first step, and between steps
    sweep: str | None = option(
        None, "choose --lr by short trials on the validation rows, such as lr=1e-4,3e-4,1e-3", MEASURING,
        metavar="lr=VALUES",
    )  # fmt: skip
    validate_every: int = option(10, "steps between validations (0: none)", MEASURING, least=0)
    patience: int = option(
        0, "stop after this many validations without a lower loss, keep the best weights (0: never)", MEASURING, least=0
    )
    sample_every: int = option(
        0, "steps between samples, written to samples.md (0: only at the end)", MEASURING, least=0
    )
