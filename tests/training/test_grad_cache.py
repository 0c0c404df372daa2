"""A batch in chunks has the gradients of the batch in one piece, at the memory of a chunk."""

from __future__ import annotations

import weakref

import pytest
import torch
from torch.testing import assert_close

from data.contrastive import PairTable
from lora.inject import inject
from model import load_encoder
from model.device import cpu_has_bf16
from training import grad_cache
from training.contrastive_loss import ContrastiveLoss
from training.grad_cache import embed_in_chunks, embedder
from training.precision import Precision
from training.setup import train_top_layers

PAIRS = [
    {
        "query": f"find {'abcdefghijk'[i]}",
        "code": f"def {'lmnopqrstuv'[i]} " + "x y " * i,
        "negatives": [f"{'pqr'[i % 3]} {i}"],
    }
    for i in range(11)
]


@pytest.fixture
def encoder(reference_encoder):
    return load_encoder(str(reference_encoder[1]))


def chunks(rows, chunk_tokens):
    """The same cuts, by hand."""
    parts = [[]]
    for row in rows:
        if parts[-1] and sum(map(len, [*parts[-1], row])) > chunk_tokens:
            parts.append([])
        parts[-1].append(row)
    return parts


def gradients(encoder, embed, *, precision=None):
    precision = precision or Precision(torch.device("cpu"), torch.float32)
    batch = PairTable(PAIRS, encoder, negatives=1).batch(list(range(len(PAIRS))))
    objective = ContrastiveLoss(48, temperature=0.05)
    torch.manual_seed(1)
    encoder.zero_grad()
    with precision.autocast():
        loss = objective(embed(batch.queries), embed(batch.documents), batch)
    precision.backward(loss)
    found = {n: p.grad.clone() for n, p in encoder.named_parameters() if p.grad is not None}
    assert found and all(gradient.abs().max() > 0 for n, gradient in found.items() if "key.bias" not in n)
    return loss.detach(), found


def test_the_gradients_are_those_of_one_piece_and_the_last_chunk_is_shorter(encoder):
    cuts = chunks(PairTable(PAIRS, encoder, negatives=1).batch(list(range(11))).documents, 40)
    assert len(cuts) > 3 and sum(map(len, cuts[-1])) < sum(map(len, cuts[0]))
    plain = gradients(encoder, encoder.embed)
    cached = gradients(encoder, lambda rows: embed_in_chunks(encoder, rows, chunk_tokens=40))
    assert_close(cached, plain, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("dtype", ["fp32", "fp16", *(["bf16"] if cpu_has_bf16() else [])])
@pytest.mark.parametrize("what", ["all", "lora", "top"])
def test_what_is_computed_again_draws_the_same_dropout_under_autocast_and_a_loss_scale(encoder, dtype, what):
    if what == "lora":
        inject(encoder, r=4, alpha=8, targets="all-linear", dropout=0.3)
        for name, parameter in encoder.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.1)
    elif what == "top":
        train_top_layers(encoder, 1)
    encoder.train()
    assert encoder.config.hidden_dropout_prob > 0
    dtypes = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
    precision = Precision(torch.device("cpu"), dtypes[dtype])
    assert (precision.scale > 1) == (dtype == "fp16")

    def by_hand(rows):
        torch.set_autocast_cache_enabled(False)  # each chunk's gradients are fp32 before they are summed
        return torch.cat([encoder.embed(chunk) for chunk in chunks(rows, 40)])

    kept = gradients(encoder, by_hand, precision=precision)
    cached = gradients(encoder, lambda rows: embed_in_chunks(encoder, rows, chunk_tokens=40), precision=precision)
    assert torch.equal(cached[0], kept[0])
    assert_close(cached[1], kept[1], atol=0, rtol=0)
    torch.manual_seed(2)  # and dropout was drawn
    assert not torch.equal(by_hand([[2, 5, 6, 3]]), by_hand([[2, 5, 6, 3]]))


def test_one_chunk_at_a_time_is_in_memory(encoder):
    made, most, recorded = [], [], []

    def watch(module, inputs, output):
        recorded.append(output.requires_grad)
        most.append(sum(tensor() is not None for tensor in made))
        made.append(weakref.ref(output))

    encoder.embeddings.register_forward_hook(watch)
    rows = encoder.tokenize([pair["code"] for pair in PAIRS], kind="passage")
    torch.cat([encoder.embed(chunk) for chunk in chunks(rows, 40)]).sum().backward()
    count = len(made)
    assert max(most) == count - 1 > 2  # in pieces alone nothing is saved
    made.clear(), most.clear(), recorded.clear()
    vectors = embed_in_chunks(encoder, rows, chunk_tokens=40)
    assert len(made) == count and sum(tensor() is not None for tensor in made) == 0
    vectors.sum().backward()
    assert len(made) == 2 * count and max(most) <= 1
    assert recorded == [False] * count + [True] * count  # what a graph keeps would leave holes in memory


def test_chunks_are_used_only_for_a_batch_that_does_not_fit(encoder, monkeypatch):
    batch = PairTable(PAIRS, encoder, negatives=1).batch([0, 1])
    assert embedder(encoder, batch, batch.tokens) == encoder.embed
    assert embedder(encoder, batch, batch.tokens - 1) != encoder.embed
    monkeypatch.setattr(grad_cache.parallel, "world", lambda: 2)
    assert embedder(encoder, batch, batch.tokens // 2 + 1) == encoder.embed  # each rank has half of it
