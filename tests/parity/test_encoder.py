"""Our encoder against transformers' BertModel and against sentence-transformers."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from model import load_encoder, save_encoder

IDS = torch.randint(4, 50, (2, 23), generator=torch.Generator().manual_seed(5))
TEXTS = [
    "where is the shortest path computed?",
    "def add(a, b):\n    return a + b",
    "",
    "Ünïcode, [SEP] and numbers 12345 " * 90,  # longer than the model reads
    "x",
]


def test_hidden_states_equal_transformers(reference_encoder):
    reference, folder = reference_encoder
    expected = reference(IDS).last_hidden_state
    assert_close(load_encoder(str(folder))(IDS), expected, atol=1e-4, rtol=0)


def test_texts_packed_in_a_row_do_not_see_each_other(reference_encoder):
    reference, folder = reference_encoder
    lengths = [7, 1, 15]
    packed = load_encoder(str(folder))(IDS[:1], lengths)
    start = 0
    for length in lengths:
        alone = reference(IDS[:1, start : start + length]).last_hidden_state
        assert_close(packed[:, start : start + length], alone, atol=1e-4, rtol=0)
        start += length


def test_embeddings_equal_sentence_transformers_for_the_embedded_encoder(tmp_path):
    sentence_transformers = pytest.importorskip("sentence_transformers")
    ours = load_encoder("all-minilm-l6-v2")
    save_encoder(ours, tmp_path / "saved")
    from model.weights import locate

    texts = [text for text in TEXTS if "[SEP]" not in text]  # they read a control token out of the text, we do not
    texts += ["numbers 12345 and words " * 90]
    for folder in (locate("all-minilm-l6-v2"), tmp_path / "saved"):  # the published one, and what we save
        theirs = sentence_transformers.SentenceTransformer(str(folder), device="cpu").encode(texts)
        assert_close(ours.encode(texts), torch.from_numpy(theirs), atol=1e-5, rtol=0)


def test_the_text_of_a_control_token_is_plain_text(reference_encoder):
    encoder = load_encoder(str(reference_encoder[1]))
    (ids,) = encoder.tokenize(["a [SEP] b"], kind="query")
    separator = encoder.tokenizer.control_tokens["[SEP]"]
    assert ids.count(separator) == 1 and ids[-1] == separator


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_each_pooling_equals_sentence_transformers_on_what_we_save(reference_encoder, tmp_path, pooling):
    sentence_transformers = pytest.importorskip("sentence_transformers")
    ours = load_encoder(str(reference_encoder[1]), pooling=pooling, query_prefix="find ", passage_prefix="")
    save_encoder(ours, tmp_path / "saved")
    theirs = sentence_transformers.SentenceTransformer(str(tmp_path / "saved"), device="cpu")
    texts = ["a graph of b", "x", "the quick brown fox " * 30]
    assert_close(ours.encode(texts), torch.from_numpy(theirs.encode(texts)), atol=1e-5, rtol=0)
    with_prefix = torch.from_numpy(theirs.encode(texts, prompt_name="query"))
    assert_close(ours.encode(texts, kind="query"), with_prefix, atol=1e-5, rtol=0)
    assert (with_prefix - ours.encode(texts)).abs().max() > 1e-3


def test_texts_that_are_cut_are_counted(reference_encoder):
    encoder = load_encoder(str(reference_encoder[1]), max_length=8)
    texts = ["a b c", "a b c d e", "a b c d e f", "a b c d e f g"]  # with [CLS] and [SEP]: 5, 7, 8 and 9 tokens
    assert encoder.reach_the_limit(texts, kind="passage") == 2
    assert [len(row) for row in encoder.tokenize(texts, kind="passage")] == [5, 7, 8, 8]
