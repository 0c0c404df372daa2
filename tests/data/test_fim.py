from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.console import UserError
from data.fim import FAMILIES, fill_in_the_middle, fim_pieces, fim_tokens, split_in_three
from data.masking import plain_document
from model import load_tokenizer
from model.loss import IGNORE
from model.tokenizer import Tokenizer

NASTY = [
    "def f(x):\n    return x\n", "a\r\nb\rc\n\n\n\td", "\U0001f469\u200d\U0001f469 é ñ\u0303 \u202eab\ufeff",
    "中文字符かな" * 9, " " * 90 + "x", "<|fim_prefix|>a<|fim_middle|>b<|endoftext|>", "\0\U0010ffff\u2028\x85",
    "x" * 300 + "\n", "\n" * 40, "1234567890 " * 8,
]  # fmt: skip
TOKENIZERS = Path(os.environ.get("TRITUNE_TOKENIZERS", "/nowhere"))


def with_tokens(folder: Path, tokens) -> Tokenizer:
    """The small tokenizer of the tests with more control tokens."""
    from tokenizers import AddedToken

    tokenizer = load_tokenizer(str(folder))
    tokenizer.backend.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in tokens])
    return Tokenizer(tokenizer.backend, tokenizer.settings)


@pytest.fixture(scope="module")
def qwen_like(tokenizer_folder):
    return with_tokens(tokenizer_folder, FAMILIES["Qwen"])


def taken_apart(ids: list[int], tokens) -> tuple[list[int], list[int], list[int]]:
    """Prefix, suffix and what follows <MID>, of an example's ids."""
    assert (ids[0], ids[-1]) == (tokens.prefix, tokens.end) and ids.count(tokens.middle) == 1
    suffix, middle = ids.index(tokens.suffix), ids.index(tokens.middle)
    return ids[1:suffix], ids[suffix + 1 : middle], ids[middle + 1 : -1]


@settings(max_examples=200, deadline=None)
@given(text=st.one_of(st.text(), st.sampled_from(NASTY)), seed=st.integers(0, 99))
def test_the_three_parts_are_the_text_and_so_are_their_tokens_put_back_in_order(qwen_like, text, seed):
    tokens = fim_tokens(qwen_like)
    prefix, middle, suffix = split_in_three(text, random.Random(seed))
    assert prefix + middle + suffix == text
    encode = qwen_like.encode
    psm, spm = (
        fill_in_the_middle(qwen_like, tokens, text, random.Random(seed), suffix_first=first) for first in (False, True)
    )
    assert taken_apart(psm.input_ids, tokens) == (encode(prefix), encode(suffix), encode(middle))
    assert taken_apart(spm.input_ids, tokens) == ([], encode(suffix), encode(prefix) + encode(middle))
    assert qwen_like.decode([*encode(prefix), *encode(middle), *encode(suffix)]) == text
    assert psm.labels[1:] == psm.input_ids[1:] and spm.labels[1:] == spm.input_ids[1:]  # markup, too


def test_the_cuts_fall_on_every_character_and_on_both_ends():
    rng = random.Random(0)
    parts = [split_in_three("abc", rng) for _ in range(400)]
    assert set(parts) == {("abc"[:i], "abc"[i:j], "abc"[j:]) for i in range(4) for j in range(i, 4)}


@settings(max_examples=60, deadline=None)
@given(
    texts=st.lists(st.sampled_from(NASTY), min_size=1, max_size=12),
    size=st.integers(24, 90),
    seed=st.integers(0, 9),
    rate=st.sampled_from([0, 0.5, 1]),
)
def test_parts_fit_a_row_and_join_to_the_text_whatever_the_rate(qwen_like, texts, size, seed, rate):
    tokens, text = fim_tokens(qwen_like), "".join(texts)
    parts = list(fim_pieces(qwen_like, tokens, text, size=size, rate=rate, rng=random.Random(seed)))
    joined = ""
    for part in parts:
        assert len(part.input_ids) <= size
        if tokens.middle in part.input_ids:
            before, after, rest = taken_apart(part.input_ids, tokens)
            # which of `rest` is the prefix cannot be told from SPM's ids alone; its suffix comes last in both orders
            joined += qwen_like.decode([*before, *rest, *after])
        else:
            assert (part.input_ids[-1] == qwen_like.eos_id) == (part is parts[-1])
            joined += qwen_like.decode(part.input_ids)
    assert joined == text


def test_a_text_that_fits_is_one_part_and_at_rate_0_the_plain_document(qwen_like):
    (part,) = fim_pieces(qwen_like, fim_tokens(qwen_like), NASTY[0], size=64, rate=0, rng=random.Random(0))
    assert part == plain_document(qwen_like, NASTY[0])
    (part,) = fim_pieces(qwen_like, fim_tokens(qwen_like), "", size=64, rate=0, rng=random.Random(0))
    assert part == plain_document(qwen_like, "")


def test_parts_are_nearly_full_and_end_where_a_line_does(qwen_like):
    tokens, text = fim_tokens(qwen_like), "def add(a, b):\n    return a + b\n" * 200
    parts = list(fim_pieces(qwen_like, tokens, text, size=128, rate=0, rng=random.Random(0)))
    assert all(qwen_like.decode(part.input_ids).endswith("\n") for part in parts)
    assert sum(len(part.input_ids) for part in parts[:-1]) > 0.85 * 128 * len(parts[:-1])


def test_the_rate_is_of_the_parts_and_half_of_those_moved_begin_with_the_suffix(qwen_like):
    tokens, rng = fim_tokens(qwen_like), random.Random(0)
    text = "x = 1\n" * 20
    made = [part for _ in range(1000) for part in fim_pieces(qwen_like, tokens, text, size=200, rate=0.3, rng=rng)]
    moved = [part for part in made if tokens.middle in part.input_ids]
    assert len(made) == 1000 and 250 < len(moved) < 350
    spm = [part for part in moved if part.input_ids[:2] == [tokens.prefix, tokens.suffix]]
    assert 0.42 < len(spm) / len(moved) < 0.6  # with those of PSM whose prefix is empty


def test_the_seed_alone_decides(qwen_like):
    def made(seed):
        rng = random.Random(seed)
        return list(fim_pieces(qwen_like, fim_tokens(qwen_like), "a = b\n" * 99, size=64, rate=0.5, rng=rng))

    assert made("0/a.py") == made("0/a.py") != made("1/a.py") != made("0/b.py")


def test_markup_in_a_users_code_stays_its_characters(qwen_like):
    tokens, text = fim_tokens(qwen_like), "<|fim_prefix|><|fim_suffix|><|fim_middle|><|endoftext|>" * 3
    for seed in range(20):
        ids = fill_in_the_middle(qwen_like, tokens, text, random.Random(seed), suffix_first=seed % 2 == 0).input_ids
        assert [ids.count(token) for token in (tokens.prefix, tokens.suffix, tokens.middle, tokens.end)] == [1] * 4


@pytest.mark.parametrize("family", FAMILIES)
def test_each_family_has_its_own_four_tokens(tokenizer_folder, family):
    tokenizer = with_tokens(tokenizer_folder, FAMILIES[family])
    tokens = fim_tokens(tokenizer)
    ids = [tokens.prefix, tokens.suffix, tokens.middle, tokens.end]
    assert ids == [tokenizer.backend.token_to_id(token) for token in FAMILIES[family]] and len(set(ids)) == 4


def test_what_a_model_lacks_is_named(tokenizer, tokenizer_folder):
    with pytest.raises(UserError, match=r"<\|fim_prefix\|>, <\|fim_suffix\|>, <\|fim_middle\|> \(Qwen's\) missing"):
        fim_tokens(tokenizer)
    with pytest.raises(UserError, match=r"tokens: <fim_middle> \(StarCoder's\) missing"):
        fim_tokens(with_tokens(tokenizer_folder, ["<fim_prefix>", "<fim_suffix>"]))


def test_sentencepieces_space_stands_where_the_text_begins_and_at_no_cut():
    from tokenizers import AddedToken, models, pre_tokenizers, trainers
    from tokenizers import Tokenizer as Backend

    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    backend.train_from_iterator(["ab cd ef"], trainers.BpeTrainer(vocab_size=20))
    backend.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in FAMILIES["CodeLlama"]])
    tokenizer, text = Tokenizer(backend, {}), "ab cd ef ab cd"
    for seed in range(20):
        for suffix_first in (False, True):
            if split_in_three(text, random.Random(seed))[0]:
                made = fill_in_the_middle(
                    tokenizer, fim_tokens(tokenizer), text, random.Random(seed), suffix_first=suffix_first
                )
                words = [backend.id_to_token(token) for token in made.input_ids]
                assert sum(word.count("▁") for word in words if "<" not in word) == 1 + text.count(" ")


def test_words_that_a_users_text_could_write_are_not_taken_for_the_tokens(tokenizer_folder):
    backend = load_tokenizer(str(tokenizer_folder)).backend
    backend.add_tokens(list(FAMILIES["StarCoder"][:3]))  # in the vocabulary, each one id, but read out of any text
    with pytest.raises(UserError, match="lacks fill-in-the-middle tokens"):
        fim_tokens(Tokenizer(backend, {}))


def test_what_stands_before_a_document_is_not_learnt(tokenizer_folder):
    tokenizer = with_tokens(tokenizer_folder, FAMILIES["DeepSeek-Coder"])
    tokenizer.settings |= {"add_bos_token": True, "bos_token": "<|im_start|>"}
    example = fill_in_the_middle(tokenizer, fim_tokens(tokenizer), "ab", random.Random(0), suffix_first=False)
    assert example.input_ids[0] == tokenizer.control_tokens["<|im_start|>"] and example.labels[0] == IGNORE
    assert example.labels[1:] == example.input_ids[1:]


@pytest.mark.parametrize(("rate", "size", "reason"), [(1.5, 64, "--fim 1.5"), (-0.1, 64, "--fim"), (1, 4, "too few")])
def test_impossible_settings_are_refused(qwen_like, rate, size, reason):
    with pytest.raises(UserError, match=reason):
        list(fim_pieces(qwen_like, fim_tokens(qwen_like), "abc", size=size, rate=rate, rng=random.Random(0)))


def test_the_embedded_default_has_no_such_tokens():
    with pytest.raises(UserError, match="lacks fill-in-the-middle tokens"):
        fim_tokens(load_tokenizer("smollm2-135m"))


@pytest.mark.skipif(not TOKENIZERS.is_dir(), reason="TRITUNE_TOKENIZERS names no folder of tokenizers")
@pytest.mark.parametrize(
    ("name", "family"), [("qwen2_5", "Qwen"), ("qwen3", "Qwen"), ("deepseek_v3", "DeepSeek-Coder")]
)
def test_real_tokenizers_write_each_token_as_one_id_and_lose_no_character(name, family):
    tokenizer = load_tokenizer(str(TOKENIZERS / name))
    tokens = fim_tokens(tokenizer)
    expected = [tokenizer.backend.encode(token, add_special_tokens=False).ids for token in FAMILIES[family]]
    assert expected == [[tokens.prefix], [tokens.suffix], [tokens.middle], [tokens.end]]
    start = len(tokenizer.prefix_ids)
    for seed, text in enumerate(NASTY):
        whole = "".join(split_in_three(text, random.Random(seed)))
        example = fill_in_the_middle(tokenizer, tokens, text, random.Random(seed), suffix_first=seed % 2 == 0)
        before, after, rest = taken_apart(example.input_ids[start:], tokens)
        said = tokenizer.decode([*before, *rest, *after])
        assert said == tokenizer.decode(tokenizer.encode(whole))  # Qwen composes ñ of two characters, here as there


@pytest.mark.skipif(not TOKENIZERS.is_dir(), reason="TRITUNE_TOKENIZERS names no folder of tokenizers")
@pytest.mark.parametrize("name", ["gemma", "gemma3", "llama3_2", "mistral_nemo"])
def test_real_tokenizers_without_the_tokens_are_refused(name):
    with pytest.raises(UserError, match="missing"):
        fim_tokens(load_tokenizer(str(TOKENIZERS / name)))
