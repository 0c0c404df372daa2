"""Every token has a text of its own."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.token_text import exact_text
from model.tokenizer import Tokenizer

TEXT = "naïve café 😀 日本\ufffd <0xE6>"


@pytest.fixture(scope="session", params=["strip", "metaspace"])
def sentencepiece(request):
    """Llama 2's kind: a space before each text, which decoding takes away; bytes for what has no piece."""
    from tokenizers import Tokenizer as Backend
    from tokenizers import decoders, models, normalizers, pre_tokenizers

    pieces = ["<unk>", "</s>", *(f"<0x{i:02X}>" for i in range(256)), *"▁thedfx:()", "th", "the", "▁the"]
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    merges = [("t", "h"), ("th", "e"), ("▁", "the")]
    backend = Backend(models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True))
    if request.param == "strip":
        backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    else:
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=False)
        steps = [decoders.ByteFallback(), decoders.Metaspace(prepend_scheme="always")]
    backend.decoder = decoders.Sequence(steps)
    backend.add_special_tokens(["</s>"])
    return Tokenizer(backend, {"eos_token": "</s>"})


def test_a_token_that_is_part_of_a_character_is_its_bytes(tokenizer, sentencepiece):
    for one, lead in ((tokenizer, ""), (sentencepiece, " ")):
        ids = one.encode("é日")
        single = [exact_text(one, [token]) for token in ids if exact_text(one, [token]) != " "]
        assert single == ["<0xC3>", "<0xA9>", "<0xE6>", "<0x97>", "<0xA5>"]
        assert exact_text(one, ids) == f"{lead}é日"
        assert exact_text(one, ids[:-1]) == f"{lead}é<0xE6><0x97>" and exact_text(one, ids[-1:]) == "<0xA5>"


def test_no_two_tokens_of_a_vocabulary_read_the_same(tokenizer):
    texts = [exact_text(tokenizer, [token]) for token in range(tokenizer.backend.get_vocab_size())]
    assert len(set(texts)) == len(texts) > 300 and not any("\ufffd" in text for text in texts)


def test_a_leading_space_and_control_tokens_are_kept(tokenizer, sentencepiece):
    space, bare = (sentencepiece.backend.token_to_id(piece) for piece in ("▁the", "the"))
    assert (exact_text(sentencepiece, [space]), exact_text(sentencepiece, [bare])) == (" the", "the")
    end = sentencepiece.eos_id
    assert exact_text(sentencepiece, [space, space, end]) == " the the</s>"
    assert sentencepiece.decode([space, space, end], keep_special=True) == " the the</s>"
    assert sentencepiece.decode([space, space, end]) == "the the"
    assert exact_text(tokenizer, [tokenizer.eos_id]) == "<|endoftext|>"


@given(st.text())
def test_whole_texts_are_as_they_were(tokenizer, sentencepiece, text):
    assert exact_text(tokenizer, tokenizer.encode(text)) == text
    if text and "▁" not in text:
        assert exact_text(sentencepiece, sentencepiece.encode(text)) == f" {text}"


def test_an_id_without_a_token_says_so(tokenizer):
    beyond = tokenizer.backend.get_vocab_size() + 7
    assert exact_text(tokenizer, [beyond]) == f"<unused {beyond}>"
    assert exact_text(tokenizer, []) == ""
    assert exact_text(tokenizer, tokenizer.encode(TEXT)) == TEXT
