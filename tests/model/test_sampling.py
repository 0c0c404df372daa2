"""The sampling rules against their definitions and against transformers' logits processors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from model.sampling import Sampling, _likeliest, next_tokens


def shares(logits, rules, n=40_000, seen=None):
    """How often each token is drawn, n times."""
    rows = logits.expand(n, -1)
    seen = None if seen is None else seen.expand(n, -1)
    tokens = next_tokens(rows.clone(), np.full(n, rules.temperature), Sampling().uniforms(0, 0, n), rules, seen)
    return torch.bincount(tokens, minlength=logits.shape[-1]) / n


@pytest.mark.parametrize(
    "rules",
    [
        Sampling(temperature=0.7),
        Sampling(temperature=1.3, top_k=5),
        Sampling(temperature=1.0, top_p=0.8),
        Sampling(temperature=1.6, min_p=0.2),
        Sampling(temperature=0.9, repetition_penalty=1.7),
        Sampling(temperature=1.4, top_k=9, top_p=0.85, min_p=0.05, repetition_penalty=1.3),
        Sampling(temperature=1.4, top_k=1000, top_p=0.999),
    ],
)
def test_draws_follow_the_distribution_that_transformers_makes(rules):
    from transformers import (
        MinPLogitsWarper,
        RepetitionPenaltyLogitsProcessor,
        TemperatureLogitsWarper,
        TopKLogitsWarper,
        TopPLogitsWarper,
    )

    logits = 2 * torch.randn(1, 30, generator=torch.Generator().manual_seed(2))
    said = torch.tensor([[3, 4, 4, 11]])
    theirs = logits
    if rules.repetition_penalty != 1:
        theirs = RepetitionPenaltyLogitsProcessor(rules.repetition_penalty)(said, theirs)
    theirs = TemperatureLogitsWarper(rules.temperature)(said, theirs)
    if rules.top_k:
        theirs = TopKLogitsWarper(rules.top_k)(said, theirs)
    if rules.top_p < 1:
        theirs = TopPLogitsWarper(rules.top_p)(said, theirs)
    if rules.min_p:
        theirs = MinPLogitsWarper(rules.min_p)(said, theirs)
    expected = theirs.softmax(-1)[0]
    seen = torch.zeros(1, 30, dtype=torch.bool).index_fill_(1, said[0], True) if rules.repetition_penalty != 1 else None
    drawn = shares(logits, rules, seen=seen)
    assert_close(drawn, expected, atol=0.012, rtol=0)
    assert drawn[expected == 0].sum() == 0
    if rules.top_k == 9:
        assert (expected == 0).sum() > 15


def test_a_nucleus_wider_than_the_first_guess_is_whole():
    flat, peaked = torch.full((1000,), 0.001), torch.tensor([0.9, *[0.1 / 999] * 999])
    n = 4_000  # rows of both kinds in one batch; the nuclei hold 800 words and one
    logits = torch.stack([flat, peaked] * (n // 2)).log()
    tokens = next_tokens(logits, np.ones(n), Sampling().uniforms(0, 0, n), Sampling(temperature=1.0, top_p=0.8))
    from_flat, from_peaked = tokens[::2], tokens[1::2]
    assert 700 < len(set(from_flat.tolist())) <= 801 and set(from_peaked.tolist()) == {0}


@pytest.mark.parametrize(("vocabulary", "k"), [(49152, 256), (49152, 1), (4096, 40), (1000, 40), (1600, 200)])
def test_the_likeliest_are_found_in_groups(vocabulary, k):
    x = torch.randn(7, vocabulary)
    x[0, 100:140] = 9.0  # neighbours
    x[1, :: vocabulary // 16] = 9.0  # words of one group
    top, ids = _likeliest(x, k)
    assert torch.equal(top, x.topk(k).values)
    assert torch.equal(x.gather(1, ids), top) and all(len(set(row.tolist())) == k for row in ids)


def test_the_greedy_token_wears_the_penalty_too():
    logits = torch.tensor([[2.0, 1.9, -1.0], [-0.5, -0.6, -3.0]])
    seen = torch.tensor([[True, False, False], [True, False, False]])
    rules = Sampling(repetition_penalty=1.5)
    assert next_tokens(logits.clone(), np.zeros(2), np.zeros(2), rules, seen).tolist() == [1, 1]
    assert next_tokens(logits.clone(), np.zeros(2), np.zeros(2), rules).tolist() == [0, 0]


@pytest.mark.parametrize("u", [0.0, 1 - 1e-12])
def test_the_ends_of_the_unit_interval_draw_no_token_of_probability_zero(u):
    logits = torch.tensor([[-torch.inf, 1.0, 2.0, -torch.inf]])
    for rules in (Sampling(1.0), Sampling(1.0, top_p=0.99), Sampling(1.0, top_k=3)):
        assert next_tokens(logits.clone(), np.ones(1), np.array([u]), rules).item() in (1, 2)


@pytest.mark.parametrize("wrong", [
    {"temperature": -1.0}, {"top_p": 0.0}, {"min_p": 1.5}, {"top_k": -1}, {"repetition_penalty": 0.0},
    {"temperature": [0.5, float("nan")], "samples": 2}, {"temperature": [0.5, 1.0]},
])  # fmt: skip
def test_senseless_rules_are_refused(wrong):
    with pytest.raises(ValueError, match=r"temperature|top_k"):
        Sampling(**wrong)
