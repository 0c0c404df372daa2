"""Walks of encoders: embedding, and the loop of train_embed."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import torch

import train_embed
from common.options import parse_with_recipe
from data.contrastive import PairTable, plan_batches
from model.device import choose_dtype
from tests.cuda.fake.count import Count
from tests.cuda.fake.device import DEVICE, become
from tests.cuda.fake.models import fake_encoder
from tests.cuda.fake.walk import NO_DEADLINE, Figures, Saved, WalkedSteps
from training.fit_chunks import fitted_chunk_tokens
from training.methods import with_method
from training.precision import Precision
from training.run import Run
from training.setup import add_lora, train_top_layers

PAIRS = [
    {
        "id": str(n), "query": f"query {n} " * 5, "code": f"def f{n}(): ..." * (n + 1), "negatives": [f"x = {n}"],
        "scores": [0.9, 0.4],
    }
    for n in range(6)
]  # fmt: skip


def learn(out: Path, family: str, *more: str, capability: tuple[int, int] = (9, 0), values=None) -> Figures:
    """`train_embed.learn` for two steps of three pairs; the figures of the second."""
    become(capability)
    flags = ["--model", "none", "--data", "none", "--out", str(out), "--checkpoint-every", "0", "--device", "cuda"]
    resolved = with_method(
        parse_with_recipe(train_embed.Options, [*flags, "--batch", "3", "--epochs", "1", *more]), "embed"
    )
    options, dtype = resolved.values, choose_dtype(DEVICE)
    run, encoder = Run(options.out, "embed", resolved, resume=False), fake_encoder(family)
    if options.method == "lora":
        add_lora(encoder, options)
    elif options.top_layers:
        train_top_layers(encoder, options.top_layers)
    precision, encoder.compute_dtype = Precision(DEVICE, dtype), dtype
    counted = mock.patch.object(train_embed, "Steps", WalkedSteps)
    without_files = mock.patch("training.run.input_hashes", lambda options: {})
    with counted, without_files, Count(values) as count, Saved(encoder) as saved:
        table = PairTable(PAIRS, encoder, negatives=options.negatives)
        plan = plan_batches(table.lengths(), pairs_per_step=options.batch, epochs=options.epochs, seed=0)
        if not options.chunk_tokens:
            run.set_options("--fit", chunk_tokens=fitted_chunk_tokens(run, encoder, precision, table, plan))
        run.start(device=DEVICE, dtype=dtype, data={})
        train_embed.learn(run, encoder, precision, table, plan, deadline=NO_DEADLINE)
    return Figures.of(count, saved, tokens=table.batch(plan[-1][1]).tokens)


def encode(family: str, *, capability: tuple[int, int] = (9, 0)) -> Figures:
    """`encode` of texts of many lengths."""
    become(capability)
    encoder = fake_encoder(family)
    encoder.compute_dtype = choose_dtype(DEVICE)
    texts = ["def f(): ..." * (1 + n % 20) for n in range(30)]
    with Count() as count:
        vectors = encoder.encode(texts)
    assert vectors.device.type == "cpu" and vectors.dtype == torch.float32
    return Figures.of(count, tokens=sum(map(len, encoder.tokenize(texts, "passage"))))
