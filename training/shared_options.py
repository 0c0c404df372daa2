"""The options that the scripts share; what a script asks besides is written at its top."""

from __future__ import annotations

from dataclasses import dataclass

from lora.frozen_weight import QUANTIZE
from lora.inject import DECODER_TARGETS
from model.decoder import CHECKPOINTING
from training.optim import OPTIMIZERS, SCHEDULES
from training.options import option


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """Of all three scripts: the model, its adapter, the steps, the run."""

    model: str = option(text="folder, .gguf file, hub id or embedded default (smollm2-135m)")
    out: str = option(text="the run's folder")
    resume: bool = option(False, "go on with the run in --out from its last checkpoint")
    dry_run: bool = option(False, "say what would be trained, how long it takes and in what memory, and stop")
    plain: bool = option(False, "run the textbook forms alone: slower, to step through or to edit")
    r: int = option(16, "LoRA rank", least=1)
    alpha: float = option(32.0, "LoRA scale: the low-rank part is multiplied by alpha / r")
    dropout: float = option(0.0, "LoRA dropout, 0 to 1", least=0, most=1)
    targets: str = option(
        ",".join(DECODER_TARGETS),
        "layers that get an adapter: last names, an expression for whole names, or all-linear",
    )
    rank_pattern: str | None = option(None, "other ranks by layer, as q_proj=8,down_proj=32 (default: all have --r)")
    alpha_pattern: str | None = option(None, "other alphas by layer, written the same way (default: all have --alpha)")
    rslora: bool = option(False, "multiply by alpha / sqrt(r) instead: for ranks above 32 or so")
    dora: bool = option(False, "learn the length of each row of a weight apart from its direction; slower")
    lora_plus_ratio: float = option(1.0, "LoRA+: B learns at this many times --lr (1: as A does; the paper has 16)")
    epochs: float = option(1.0, "passes over the training rows", least=0)
    optimizer: str = option(
        "adamw", "adamw8bit keeps its moments in a quarter of the memory", choices=tuple(OPTIMIZERS)
    )
    lr: float = option(2e-4, "peak learning rate", least=0)
    schedule: str = option("cosine", "how the rate falls after its peak", choices=tuple(SCHEDULES))
    warmup: float = option(0.1, "share of the steps with a rising rate", least=0, most=1)
    initial_lr: float = option(0.0, "where the warm-up begins, a share of --lr", least=0, most=1)
    final_lr: float = option(0.1, "where the schedule ends, a share of --lr", least=0, most=1)
    weight_decay: float = option(0.01, "AdamW's, on matrices", least=0)
    max_norm: float = option(1.0, "gradient norm is clipped to this (0: not)", least=0)
    max_minutes: float = option(
        0.0, "end after so many in a checkpoint to --resume from (0: when all is done)", least=0
    )
    checkpoint_every: int = option(10, "steps between checkpoints (0: none)", least=0)
    log_to: str | None = option(None, "tensorboard, wandb or both, beside metrics.jsonl (default: neither)")
    device: str = option("auto", "auto, cpu, cuda or cuda:N")
    dtype: str = option(
        "auto", "auto takes what the hardware multiplies itself", choices=("auto", "fp32", "bf16", "fp16")
    )
    seed: int = option(0, "of the split, the adapter, the order of rows, dropout and sampling")


@dataclass(frozen=True, kw_only=True)
class DecoderOptions(TrainOptions):
    """Of the two scripts that train a causal LM."""

    full: bool = option(False, "train all weights instead of a LoRA adapter")
    quantize: str = option("none", "how the frozen linear layers are kept; nf4: in 4 bits", choices=tuple(QUANTIZE))
    shard: bool = option(False, "under torchrun: divide the layers' weights among the processes too")
    step_tokens: int = option(4096, "tokens of an optimiser step, in packed rows that are accumulated", least=1)
    fit: bool = option(False, "choose --micro-batch and --checkpointing by measuring what fits into memory")
    micro_batch: int = option(1, "packed rows of one forward and backward pass", least=1)
    checkpointing: str = option("none", "which activations are made again instead of kept", choices=CHECKPOINTING)
    fp32_modules: str | None = option(None, "self_attn or mlp in fp32: an expression for whole names (default: none)")
    validate_every: int = option(10, "steps between validations (0: none)", least=0)
    patience: int = option(
        0, "stop after so many validations without a lower loss and keep the best (0: do not)", least=0
    )
    sample_every: int = option(0, "steps between samples, written to samples.md (0: only at the end)", least=0)
