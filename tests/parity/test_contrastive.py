"""Our losses, plain and in chunks, against sentence-transformers' on the same texts: values and every gradient."""

from __future__ import annotations

import math

import pytest
import torch
from torch.testing import assert_close

from data.contrastive import PairTable
from model import load_encoder, save_encoder
from training.contrastive_loss import ContrastiveLoss
from training.grad_cache import embed_in_chunks

QUERIES = ["sort a list", "open the file", "a", "find the shortest path in a graph", "b c", "x y z"]
CODES = ["def s a return b", "with o as f", "x", "while queue not empty pop and push each neighbour", "z", "q r"]
HARD = [["def t", "u v"], ["f g h", "i"], ["j", "k l"], ["m n o p", "def w"], ["y", "c d e"], ["o", "p q r s"]]
SCORES = [[3.0, 2.0, 1.5], [1.0, 2.0, 0.0], [0.5, 0.5, 0.5], [9.0, 1.0, 2.0], [2.0, 1.0, 4.0], [1.0, 0.0, 0.5]]


@pytest.fixture(scope="module")
def both(reference_encoder, tmp_path_factory):
    """(our encoder, sentence-transformers' model of the same files)."""
    from sentence_transformers import SentenceTransformer

    ours = load_encoder(str(reference_encoder[1]))
    folder = tmp_path_factory.mktemp("saved") / "model"
    save_encoder(ours, folder)
    return ours, SentenceTransformer(str(folder), device="cpu").eval()


def of_ours(encoder, *, hard=0, scores=False, embed=None, **options):
    """Loss and gradients by name."""
    rows = [
        {"query": q, "code": c, "negatives": n, **({"scores": s} if scores else {})}
        for q, c, n, s in zip(QUERIES, CODES, HARD, SCORES, strict=True)
    ]
    batch = PairTable(rows, encoder, negatives=hard).batch(list(range(len(rows))))
    assert batch.same.sum() == len(rows)  # nothing is masked that they do not mask
    embed = embed or encoder.embed
    objective = ContrastiveLoss(48, temperature=0.05, **options)
    encoder.zero_grad()
    loss = objective(embed(batch.queries), embed(batch.documents), batch)
    loss.backward()
    return loss.detach(), {name: p.grad for name, p in encoder.named_parameters()}


def of_theirs(model, make, *, hard=0, labels=None):
    columns = [QUERIES, CODES, *(list(column) for column in list(zip(*HARD, strict=True))[:hard])]
    model.zero_grad()
    loss = make(model)([model.preprocess(texts) for texts in columns], labels)
    loss.backward()
    network = next(module for name, module in model.named_modules() if type(module).__name__ == "BertModel")
    return loss.detach(), {n: p.grad for n, p in network.named_parameters() if not n.startswith("pooler.")}


def assert_same(ours, theirs, *, factor=1.0):
    assert_close(ours[0], theirs[0].float() * factor, atol=1e-5, rtol=1e-5)
    assert ours[1].keys() == theirs[1].keys()
    moved = 0
    for name, gradient in ours[1].items():
        expected = theirs[1][name] * factor
        moved += int(expected.abs().max() > 1e-4)
        tolerance = 2e-5 * max(1.0, expected.abs().max().item())
        assert_close(gradient, expected, atol=tolerance, rtol=0, msg=lambda text, name=name: f"{name}: {text}")
    assert moved > 30  # not passing because everything is zero


def ranking(cached=False, symmetric=False):
    from sentence_transformers.sentence_transformer import losses

    kind = losses.CachedMultipleNegativesRankingLoss if cached else losses.MultipleNegativesRankingLoss
    directions = ("query_to_doc", "doc_to_query") if symmetric else ("query_to_doc",)
    more = {"mini_batch_size": 4} if cached else {}
    return lambda model: kind(
        model, scale=20.0, directions=directions, partition_mode="per_direction" if symmetric else "joint", **more
    )


@pytest.mark.parametrize("hard", [0, 2])
@pytest.mark.parametrize("symmetric", [False, True])
def test_info_nce_is_their_ranking_loss(both, hard, symmetric):
    ours, theirs = both
    assert_same(
        of_ours(ours, hard=hard, symmetric=symmetric), of_theirs(theirs, ranking(symmetric=symmetric), hard=hard)
    )


@pytest.mark.parametrize("symmetric", [False, True])
def test_the_loss_in_chunks_is_their_cached_one(both, symmetric):
    ours, theirs = both

    def embed(rows):
        return embed_in_chunks(ours, rows, chunk_tokens=20)

    chunked = of_ours(ours, hard=2, symmetric=symmetric, embed=embed)
    assert_same(chunked, of_theirs(theirs, ranking(cached=True, symmetric=symmetric), hard=2))


def test_shorter_embeddings_are_their_matryoshka_loss(both):
    from sentence_transformers.sentence_transformer import losses

    ours, theirs = both

    def make(model):
        return losses.MatryoshkaLoss(model, ranking()(model), matryoshka_dims=[48, 24, 8])

    assert_same(of_ours(ours, hard=1, symmetric=False, dimensions="24,8"), of_theirs(theirs, make, hard=1))


def test_distillation_is_their_divergence(both):
    from sentence_transformers.sentence_transformer import losses

    ours, theirs = both
    temperature, weight = 0.05, 0.5
    plain = of_ours(ours, hard=2, symmetric=False)
    with_teacher = of_ours(ours, hard=2, symmetric=False, scores=True, distill=weight, teacher_temperature=2.0)
    share = with_teacher[0] - plain[0], {n: with_teacher[1][n] - plain[1][n] for n in plain[1]}

    def make(model):
        return losses.DistillKLDivLoss(model, student_temperature=temperature, teacher_temperature=2.0)

    # theirs is multiplied by the square of the temperature, after Hinton et al.
    expected = of_theirs(theirs, make, hard=2, labels=torch.tensor(SCORES))
    assert_same(share, expected, factor=weight / temperature**2)
    assert math.isfinite(share[0]) and share[0] > 0.05
