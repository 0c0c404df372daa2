from __future__ import annotations

import numpy as np
import pytest
import torch

from model import generate
from model.console import UserError
from model.generate import _Picker

PROMPTS = [[5, 9, 11, 30, 7], [8], [4, 17, 6, 3, 3, 12, 40, 41, 2, 9], [21, 22]]


def alone(decoder, prompt, **settings):
    return generate(decoder, [prompt], **settings)[0]


def test_cached_generation_equals_recomputing_everything(tiny):
    for prompt in PROMPTS:
        ids = list(prompt)
        for _ in range(12):
            ids.append(int(tiny(torch.tensor([ids]))[0, -1].argmax()))
        assert alone(tiny, prompt, max_new_tokens=12, stop_ids=())[0] == ids[len(prompt) :]


@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_a_batch_gives_what_each_prompt_gives_alone(tiny, temperature):
    """Greedy, and sampled: the random numbers follow the prompt's index, so `alone` is the same batch cut by `rows`."""
    settings = {"max_new_tokens": 14, "temperature": temperature, "samples": 3, "stop_ids": {1, 2, 7}, "seed": 3}
    together = generate(tiny, PROMPTS, rows=64, **settings)
    one_by_one = generate(tiny, PROMPTS, rows=1, **settings)
    assert together == one_by_one
    if temperature:
        assert len({tuple(answer) for answers in together for answer in answers}) > 6  # the samples differ
        assert together != generate(tiny, PROMPTS, rows=64, **settings | {"seed": 4})


def test_stops_at_the_stop_token_and_leaves_it_out(tiny):
    free = alone(tiny, PROMPTS[0], max_new_tokens=10, stop_ids=())[0]
    stopped = alone(tiny, PROMPTS[0], max_new_tokens=10, stop_ids={free[4]})[0]
    assert stopped == free[: free.index(free[4])]


def test_each_sample_may_have_a_temperature_of_its_own(tiny):
    greedy = alone(tiny, PROMPTS[0], max_new_tokens=8, stop_ids=())[0]
    mixed = alone(tiny, PROMPTS[0], max_new_tokens=8, stop_ids=(), samples=3, temperature=[0.0, 2.0, 2.0])
    assert mixed[0] == greedy and mixed[1] != mixed[2]


def test_sampling_follows_the_softmax():
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0]])
    n = 20_000
    uniforms = np.random.default_rng(0).random((n, 1))
    tokens = _Picker([0.7] * n, 1.0, uniforms)(logits.expand(n, 4), list(range(n)), 0)
    expected = torch.softmax(logits[0] / 0.7, -1)
    assert torch.allclose(torch.bincount(tokens, minlength=4) / n, expected, atol=0.015)


def test_top_p_keeps_the_smallest_nucleus():
    probabilities = torch.tensor([0.5, 0.3, 0.15, 0.05])
    n = 4_000
    uniforms = np.random.default_rng(0).random((n, 1))
    tokens = _Picker([1.0] * n, 0.7, uniforms)(probabilities.log().expand(n, 4), list(range(n)), 0)
    shares = torch.bincount(tokens, minlength=4) / n
    assert shares[2:].sum() == 0 and abs(shares[0] - 0.5 / 0.8) < 0.03


def test_a_nucleus_wider_than_the_first_guess_is_whole():
    flat, peaked = torch.full((1000,), 0.001), torch.tensor([0.9, *[0.1 / 999] * 999])
    n = 4_000  # rows of both kinds in one batch
    logits = torch.stack([flat, peaked] * (n // 2)).log()
    tokens = _Picker([1.0] * n, 0.8, np.random.default_rng(0).random((n, 1)))(logits, list(range(n)), 0)
    from_flat, from_peaked = tokens[::2], tokens[1::2]
    assert 700 < len(set(from_flat.tolist())) <= 801 and set(from_peaked.tolist()) == {0}


def test_more_tokens_than_positions_are_refused(tiny):
    with pytest.raises(UserError, match="256 positions"):
        generate(tiny, [[3] * 250], max_new_tokens=7, stop_ids=())
