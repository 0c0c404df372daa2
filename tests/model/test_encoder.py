"""Texts by the batch, on all cores of a CPU."""

from __future__ import annotations

import itertools
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
import torch
from torch.testing import assert_close

from model import encoder as module
from model import load_encoder
from model.encoder import batches_by_length, on_all_cores
from tests.commands import PATIENCE

CPU = torch.device("cpu")
BATCHES = [[n] for n in range(12)]


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield 4
    torch.set_num_threads(before)


def test_batches_hold_so_many_tokens_and_every_text_once():
    rows = [[0] * n for n in (3, 9, 1, 5, 5, 2)]
    batches = batches_by_length(rows, 8)
    assert batches == [[1], [3], [4, 0], [5, 2]]  # longest first; one that is too long is alone


def test_many_texts_have_the_vectors_that_each_has_alone(reference_encoder, threads, monkeypatch):
    encoder = load_encoder(str(reference_encoder[1]))
    texts = [f"def {'xyz'[n % 3]} " + "return a b " * (n % 7) for n in range(40)]
    monkeypatch.setitem(module.TOKENS_PER_BATCH, "cpu", 60)
    seen, embed, calls, both = set(), encoder.embed, itertools.count(), threading.Barrier(2)

    def meeting(rows):
        seen.add(threading.get_ident())
        if next(calls) < 2:  # the first two wait for each other
            both.wait(PATIENCE)
        return embed(rows)

    monkeypatch.setattr(encoder, "embed", meeting)
    vectors = encoder.encode(texts)
    assert len(seen) > 1 and threading.get_ident() not in seen
    assert_close(vectors, torch.cat([encoder.encode([text]) for text in texts]), atol=1e-6, rtol=0)
    assert threading.get_ident() in seen  # a batch alone has all cores
    assert torch.get_num_threads() == threads and not encoder.training


def test_each_batch_is_done_on_a_core_of_its_own(threads):
    def work(batch, barrier):
        barrier.wait(PATIENCE)  # no batch is done before as many others have begun
        return threading.get_ident(), torch.get_num_threads()

    def done(batches, *, at_once, device=CPU):
        return list(on_all_cores(partial(work, barrier=threading.Barrier(at_once)), batches, device))

    idents, each = zip(*done(BATCHES, at_once=4), strict=True)
    assert len(set(idents)) == 4 and set(each) == {1}
    assert {each for _, each in done(BATCHES[:2], at_once=2)} == {2}
    assert done(BATCHES[:1], at_once=1) == [(threading.get_ident(), 4)]
    one_by_one = done(BATCHES, at_once=1, device=torch.device("cuda"))
    assert {ident for ident, _ in one_by_one} == {threading.get_ident()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("batches", [1, 5])
def test_encode_multiplies_in_its_own_dtype_whatever_the_caller_has(reference_encoder, monkeypatch, dtype, batches):
    encoder = load_encoder(str(reference_encoder[1]))
    monkeypatch.setitem(module.TOKENS_PER_BATCH, "cpu", 10_000 if batches == 1 else 6)
    texts = ["shortest path", "tree", "graph of roads", "node", "edge"]
    plain, encoder.compute_dtype = encoder.encode(texts), dtype
    seen = set()
    first = encoder.encoder["layer"][0]
    first.intermediate["dense"].register_forward_hook(lambda layer, inputs, output: seen.add(output.dtype))
    alone = encoder.encode(texts)
    with torch.autocast("cpu", dtype=torch.float16):
        assert torch.equal(encoder.encode(texts), alone)
    assert seen == {dtype} and torch.equal(alone, plain) == (dtype == torch.float32)
    assert_close(alone, plain, atol=0.03, rtol=0)


def test_threads_that_begin_later_have_all_cores_again(threads):
    list(on_all_cores(len, BATCHES, CPU))
    with ThreadPoolExecutor(1) as later:
        assert later.submit(torch.get_num_threads).result() == threads


def test_after_an_error_nothing_more_is_begun_and_the_threads_are_as_before(threads):
    begun = []

    def work(batch):
        begun.append(batch)
        time.sleep(0.05)
        if batch == [1]:
            raise ValueError("no vector")
        return 1

    with pytest.raises(ValueError, match="no vector"):
        list(on_all_cores(work, [[n] for n in range(10_000)], CPU))
    assert len(begun) < 1000 and torch.get_num_threads() == threads
