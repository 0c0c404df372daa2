"""Walks of the two loops that train a decoder: train_cpt.learn and train_sft.learn, on fake weights."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import torch

import train_cpt
from common.options import parse_with_recipe
from data.masking import Example
from model.device import choose_dtype
from model.loss import IGNORE
from tests.cuda.fake.count import Count
from tests.cuda.fake.device import DEVICE, become
from tests.cuda.fake.models import fake_decoder
from tests.cuda.fake.walk import NO_DEADLINE, Figures, Saved, WalkedSteps
from training.methods import with_method
from training.run import Run
from training.setup import prepare

METHODS = {
    "lora": [],
    "full": ["--method", "full"],
    "nf4": ["--quantize", "nf4"],
    "dora": ["--dora"],
}
# what virtual tokens are drawn from
TOKENIZER = SimpleNamespace(
    unused_ids=[], backend=SimpleNamespace(get_vocab_size=lambda: 100, get_added_tokens_decoder=dict)
)
CHECKPOINTING = ("none", "selective", "full", "offload")
ROWS = {"packed": [[130, 90, 36], [200, 50, 6]], "single": [[256], [256]]}  # tokens of the documents of each row
CAPABILITIES = ((7, 5), (8, 0), (9, 0))
OPTIMIZERS = ("adamw", "adamw8bit")


def grid() -> Iterator[tuple[str, str, str, tuple[int, int], str]]:
    """Settings in which every pair of values occurs: (method, checkpointing, rows, capability, optimizer)."""
    for i, j in itertools.product(range(4), repeat=2):
        yield (
            list(METHODS)[i], CHECKPOINTING[j], list(ROWS)[(i + j) % 2], CAPABILITIES[(i + 2 * j) % 3],
            OPTIMIZERS[j == (0, 1, 3, 2)[i]],
        )  # fmt: skip


def examples(row: list[int]) -> list[Example]:
    """Documents of so many tokens, of which the first quarter is not learnt."""
    return [
        Example(list(range(2, tokens + 2)), [IGNORE] * (tokens // 4) + list(range(tokens - tokens // 4)))
        for tokens in row
    ]


def train(
    out: Path,
    *more: str,
    script=train_cpt,
    family: str = "qwen2",
    rows: str = "packed",
    capability: tuple[int, int] = (9, 0),
    dtype: str = "auto",
    changes: dict | None = None,
) -> Figures:
    """`learn` for two steps, and the figures of the second."""
    become(capability)
    where = ["--corpus", "none"] if script is train_cpt else ["--data", "none"]
    flags = ["--model", "none", *where, "--out", str(out), "--checkpoint-every", "0", "--device", "cuda", *more]
    resolved = with_method(parse_with_recipe(script.Options, flags), "cpt" if script is train_cpt else "sft")
    options = resolved.values
    run = Run(options.out, "cpt" if script is train_cpt else "sft", resolved, resume=options.resume)
    computed = choose_dtype(DEVICE, dtype)
    weights = torch.float32 if options.method == "full" else computed
    decoder = fake_decoder(family, weights, quantize=options.quantize, **changes or {})
    precision = prepare(decoder, TOKENIZER, options, DEVICE, computed)
    with mock.patch("training.run.input_hashes", lambda options: {}):  # its model is no file
        run.start(device=DEVICE, dtype=computed, data={})
    packed = [examples(row) for row in ROWS[rows]]
    with mock.patch.object(script, "Steps", WalkedSteps), Count() as count, Saved(decoder) as saved:
        script.learn(
            run, decoder, precision, packed, [[0], [1]],
            validation=packed[:1], sample=lambda: "", deadline=NO_DEADLINE,
        )  # fmt: skip
    tokens = sum(ROWS[rows][1])
    return Figures.of(count, saved, tokens=tokens)
