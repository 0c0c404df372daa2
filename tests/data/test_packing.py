from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from data.masking import Example
from data.packing import pack, pieces, plan_windows, to_batch
from model.attention import document_positions
from model.loss import IGNORE, causal_lm_loss


def documents(*lengths):
    generator = torch.Generator().manual_seed(4)
    ids = [torch.randint(3, 320, (n,), generator=generator).tolist() for n in lengths]
    return [Example(row, list(row)) for row in ids]


def test_packed_logits_and_loss_equal_the_unpacked_ones_document_by_document(tiny):
    parts = documents(17, 1, 30, 5)
    batch = to_batch(parts, "cpu")
    packed = tiny(batch.input_ids, batch.lengths)
    start = 0
    alone = 0.0
    for part in parts:
        single = to_batch([part], "cpu")
        stop = start + len(part.input_ids)
        assert_close(packed[:, start:stop], tiny(single.input_ids), atol=1e-5, rtol=0)
        alone += causal_lm_loss(tiny.hidden_states(single.input_ids), tiny.head_weight, single.labels)
        start = stop
    whole = causal_lm_loss(tiny.hidden_states(batch.input_ids, batch.lengths), tiny.head_weight, batch.labels)
    assert_close(whole, alone)
    assert (packed[:, 17:] - tiny(batch.input_ids)[:, 17:]).abs().max() > 1e-3  # without lengths they do see each other


def test_packed_gradients_equal_the_unpacked_ones(tiny):
    parts = documents(17, 4, 30)
    batch = to_batch(parts, "cpu")
    causal_lm_loss(tiny.hidden_states(batch.input_ids, batch.lengths), tiny.head_weight, batch.labels).backward()
    packed = {name: parameter.grad.clone() for name, parameter in tiny.named_parameters()}
    tiny.zero_grad()
    for part in parts:
        single = to_batch([part], "cpu")
        causal_lm_loss(tiny.hidden_states(single.input_ids), tiny.head_weight, single.labels).backward()
    for name, parameter in tiny.named_parameters():
        assert_close(packed[name], parameter.grad, atol=1e-4, rtol=1e-3)


def test_positions_rise_by_one_or_restart():
    positions, ends = document_positions([4, 2, 3], 0, torch.device("cpu"))
    assert positions.tolist() == [[0, 1, 2, 3, 0, 1, 0, 1, 2]]
    assert ends.tolist() == [[4, 4, 4, 4, 2, 2, 3, 3, 3]]


def test_the_first_label_of_each_document_is_ignored():
    batch = to_batch(documents(4, 2, 3), "cpu")
    assert [i for i, label in enumerate(batch.labels[0].tolist()) if label == IGNORE] == [0, 4, 6]


def test_no_dense_attention_mask_is_built_for_a_long_row(tiny):
    sizes = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            out = function(*args, **(kwargs or {}))
            sizes.extend(t.numel() for t in (out if isinstance(out, tuple) else [out]) if isinstance(t, torch.Tensor))
            return out

    lengths = [200] * 20  # a row of 4,000 tokens: a T x T mask would hold 16 million
    with torch.no_grad(), Watch():
        tiny.hidden_states(torch.randint(3, 320, (1, 4000)), lengths)
    assert 0 < max(sizes) < 4000 * 400


@given(st.lists(st.integers(1, 50), min_size=1, max_size=40))
@settings(max_examples=50, deadline=None)
def test_packing_loses_and_splits_nothing(lengths):
    examples = documents(*lengths)
    rows = pack(examples, 50)
    assert sorted(e.input_ids for row in rows for e in row) == sorted(e.input_ids for e in examples)
    assert all(sum(len(e.input_ids) for e in row) <= 50 for row in rows)
    assert len(rows) <= 2 * -(-sum(lengths) // 50)  # first-fit leaves at most one row under half full


def test_an_example_longer_than_a_row_is_an_error():
    with pytest.raises(ValueError, match="51 tokens"):
        pack(documents(51), 50)


@given(st.integers(1, 300), st.integers(2, 60))
@settings(max_examples=60, deadline=None)
def test_pieces_predict_each_token_but_the_first_exactly_once(length, size):
    (example,) = documents(length)
    parts = pieces(example, size)
    assert all(len(part.input_ids) <= size for part in parts)
    predicted = [label for part in parts for label in part.labels[1:]]
    assert predicted == example.labels[1:]


def test_windows_visit_every_row_once_an_epoch_in_an_order_of_the_seed():
    windows = plan_windows(10, rows_per_step=4, epochs=2, seed=1)
    assert [len(window) for window in windows] == [4, 4, 2, 4, 4, 2]
    first, second = ([row for window in epoch for row in window] for epoch in (windows[:3], windows[3:]))
    assert sorted(first) == sorted(second) == list(range(10)) and first != second
    assert (
        windows
        == plan_windows(10, rows_per_step=4, epochs=2, seed=1)
        != plan_windows(10, rows_per_step=4, epochs=2, seed=2)
    )
    assert sum(map(len, plan_windows(10, rows_per_step=4, epochs=1.5, seed=1))) == 15
    assert sum(map(len, plan_windows(4000, rows_per_step=4, epochs=1.0005, seed=1))) == 4002
