from __future__ import annotations

import math
import sys
from dataclasses import replace

import pytest
import torch

from common.console import UserError
from model import Sampling, Stop, generate
from model.generate import before_stop
from model.sampling import GREEDY

PROMPTS = [[5, 9, 11, 30, 7], [8], [4, 17, 6, 3, 3, 12, 40, 41, 2, 9], [21, 22]]


@pytest.fixture
def exact(tiny):
    """In fp64: batches of different shapes round differently, and a draw could then fall on the next token."""
    return tiny.double()


def up_to(max_new_tokens, ids=(), **strings):
    return Stop(max_new_tokens=max_new_tokens, ids=ids, **strings)


def alone(decoder, prompt, stop, sampling=GREEDY):
    return generate(decoder, [prompt], stop, sampling)[0]


def test_cached_generation_equals_recomputing_everything(tiny):
    for prompt in PROMPTS:
        ids = list(prompt)
        for _ in range(12):
            ids.append(int(tiny(torch.tensor([ids]))[0, -1].argmax()))
        assert alone(tiny, prompt, up_to(12))[0] == ids[len(prompt) :]


@pytest.mark.parametrize(
    "rules", [{}, {"temperature": 1.5}, {"temperature": 1.2, "repetition_penalty": 1.3, "top_k": 40, "min_p": 0.001}]
)
@pytest.mark.parametrize("samples", [1, 4])
def test_a_sample_does_not_depend_on_its_batch(exact, rules, samples):
    """20 samples on few rows: every row is reused several times, and prompts come and go between them."""
    prompts = [*PROMPTS, [33, 3, 5, 7, 11, 13, 17]] * (4 // samples)
    stop, sampling = up_to(14, range(20, 50)), Sampling(samples=samples, seed=3, **rules)
    together = generate(exact, prompts, stop, sampling, rows=64)
    for rows in (1, 3, 8):
        assert generate(exact, prompts, stop, sampling, rows=rows) == together, rows
    lengths = {len(answer) for answers in together for answer in answers}
    if rules:
        assert len(lengths) > 5, "the answers must end at different steps"
        assert len({tuple(answer) for answers in together for answer in answers}) > 12  # the samples differ
        assert together != generate(exact, prompts, stop, replace(sampling, seed=4), rows=64)


def test_a_prompt_may_have_more_samples_than_there_are_rows(exact):
    settings = up_to(9, {1, 2, 7}), Sampling(1.5, samples=7, seed=1)
    assert generate(exact, PROMPTS[:2], *settings, rows=3) == generate(exact, PROMPTS[:2], *settings, rows=14)


def test_prompts_are_read_in_passes_of_bounded_size(tiny, monkeypatch):
    whole = generate(tiny, PROMPTS, up_to(5))
    monkeypatch.setattr(sys.modules["model.generate"], "PREFILL_TOKENS", {"cpu": 6})
    seen = []
    hidden_states = tiny.hidden_states
    monkeypatch.setattr(
        tiny, "hidden_states", lambda ids, *rest, **named: seen.append(ids) or hidden_states(ids, *rest, **named)
    )
    assert generate(tiny, PROMPTS, up_to(5)) == whole
    assert [ids.shape[1] for ids in seen if ids.shape[0] == 1] == [3, 5, 10]  # 1 + 2, 5, and the longest alone


def test_stops_at_the_stop_token_and_leaves_it_out(tiny):
    free = alone(tiny, PROMPTS[0], up_to(10))[0]
    stopped = alone(tiny, PROMPTS[0], up_to(10, {free[4]}))[0]
    assert stopped == free[: free.index(free[4])]


def test_stops_after_a_stop_string_that_spans_tokens(tiny):
    free = alone(tiny, PROMPTS[0], up_to(10), Sampling(1.5))[0]
    assert len(set(free)) > 6

    def decode(ids):
        return "".join(f"<{i}>" for i in ids)

    stop = f"{free[3]}><{free[4]}"
    ids = alone(tiny, PROMPTS[0], up_to(10, strings=["absent", stop], decode=decode), Sampling(1.5))[0]
    assert ids == free[:5]
    assert before_stop(decode(ids), [stop]) == decode(free[:3]) + "<"
    assert before_stop("abc", ["x"]) == "abc"
    with pytest.raises(ValueError, match="need decode"):
        up_to(10, strings=[stop])


def test_streaming_reports_each_token_of_each_sample_in_order(tiny):
    heard = {}
    answers = generate(
        tiny, PROMPTS, up_to(6, {7}), Sampling(1.0, samples=2),
        on_token=lambda prompt, sample, token: heard.setdefault((prompt, sample), []).append(token),
    )  # fmt: skip
    assert heard == {(p, s): ids for p, both in enumerate(answers) for s, ids in enumerate(both) if ids}


def test_each_answer_is_reported_once_when_it_is_finished(tiny):
    finished, tokens = [], []
    answers = generate(
        tiny, PROMPTS, up_to(6, {7}), Sampling(1.0, samples=2), rows=3,
        on_token=lambda *token: tokens.append(token),
        on_answer=lambda prompt, sample, ids: finished.append((prompt, sample, list(ids), len(tokens))),
    )  # fmt: skip
    assert sorted((p, s, ids) for p, s, ids, _ in finished) == [
        (p, s, ids) for p, both in enumerate(answers) for s, ids in enumerate(both)
    ]
    assert finished[0][-1] < len(tokens)  # not all of them at the end


def test_with_a_seed_of_its_own_a_prompt_is_sampled_alike_among_any_others(exact):
    stop, seeds = up_to(8), [11, 12, 13, 14]
    together = generate(exact, PROMPTS, stop, Sampling(1.5, samples=2, seed=seeds))
    backwards = generate(exact, PROMPTS[::-1], stop, Sampling(1.5, samples=2, seed=seeds[::-1]))
    assert backwards == together[::-1]
    assert generate(exact, PROMPTS, stop, Sampling(1.5, samples=2, seed=[11, 12, 13, 15]))[3] != together[3]


def test_each_sample_may_have_a_temperature_of_its_own(tiny):
    greedy = alone(tiny, PROMPTS[0], up_to(8))[0]
    mixed = alone(tiny, PROMPTS[0], up_to(8), Sampling([0.0, 2.0, 2.0], samples=3))
    assert mixed[0] == greedy and mixed[1] != mixed[2]


def test_more_tokens_than_positions_are_refused(tiny):
    with pytest.raises(UserError, match="256 positions"):
        generate(tiny, [[3] * 250], up_to(7))


def test_no_tokens_and_no_prompts_give_nothing(tiny):
    assert generate(tiny, [], up_to(7)) == []
    assert generate(tiny, [[3], [4]], up_to(0), Sampling(samples=2)) == [[[], []], [[], []]]


@pytest.mark.parametrize(("samples", "rows"), [(1, 2), (3, 5), (3, 1)])  # a single sample shares its prompt's pages
@pytest.mark.parametrize(("page", "untouched"), [(1, 0), (3, 0), (3, 1 << 12), (3, 1 << 30), (200, 1 << 30)])
def test_pages_of_any_size_may_grow_and_free_ones_are_not_read(exact, monkeypatch, page, untouched, samples, rows):
    settings = up_to(10, range(20, 50)), Sampling(1.2, samples=samples)
    expected = generate(exact, 2 * PROMPTS, *settings, rows=64)
    batch, free = sys.modules["model.generate"]._Batch, []
    refill = batch.refill

    def with_other_free_pages(self):
        for pages in filter(None, (self.cache.prompts, self.cache.answers)):
            free.append(len(pages.free))
            pages.keys[:, pages.free] = pages.values[:, pages.free] = 1e6
            pages.keys[:, 0] = pages.values[:, 0] = math.nan  # the page that stands in where an owner has none
        return refill(self)

    monkeypatch.setattr(batch, "refill", with_other_free_pages)
    monkeypatch.setattr("model.pages.PAGE", page)
    monkeypatch.setattr("model.pages.RESERVED", untouched)
    assert generate(exact, 2 * PROMPTS, *settings, rows=rows) == expected
    assert max(free) > 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_recorded_step_gives_the_same_tokens(tiny):
    settings = up_to(14, {1, 2, 7}), Sampling(1.2, samples=4)
    expected = generate(tiny, PROMPTS, *settings, rows=5)
    assert generate(tiny.cuda(), PROMPTS, *settings, rows=5) == expected
