from __future__ import annotations

import json

import pytest

from common.console import UserError
from data.masking import supervise
from model import load_tokenizer
from tests.conftest import TEMPLATE
from tests.model.templates import CHAT


def test_embedded_tokenizer_and_template_equal_transformers(tmp_path):
    from transformers import AutoTokenizer

    ours = load_tokenizer("smollm2-135m")
    ours.save(tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    nasty = ["", " ", "\t\n  x", "ünïcödé ‮ \U0001f600", "1234 56", "def f():\n\treturn 'x'\r\n", "a" * 300]
    for text in nasty:
        assert ours.encode(text) == theirs.encode(text, add_special_tokens=False), text
        assert ours.decode(ours.encode(text)) == text
    for messages in (CHAT, CHAT[1:]):  # with a system message, and with the template's own
        assert ours.render(messages) == theirs.apply_chat_template(messages, tokenize=False)


def test_half_a_surrogate_pair_is_named(tokenizer):
    for encode in (tokenizer.encode, lambda text: tokenizer.encode_batch(["fine", text])):
        with pytest.raises(UserError, match="not valid Unicode: half a surrogate pair at character 2"):
            encode("ab\ud800c")


def test_control_tokens_are_known_by_their_flag_form_or_use(tokenizer_folder, tmp_path):
    from tokenizers import AddedToken, Tokenizer

    backend = Tokenizer.from_file(str(tokenizer_folder / "tokenizer.json"))
    backend.add_tokens(
        [AddedToken(token, normalized=False) for token in ("<|fim|>", "<call>", "<table>", "\n\n", "ab")]
    )
    backend.save(str(tmp_path / "tokenizer.json"))
    settings = {"eos_token": "<|endoftext|>", "chat_template": TEMPLATE + "{% if tools %}<call>{% endif %}"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    tokenizer = load_tokenizer(str(tmp_path))
    assert set(tokenizer.control_tokens) == {"<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|fim|>", "<call>"}
    table, two_lines = (tokenizer.backend.token_to_id(token) for token in ("<table>", "\n\n"))
    assert tokenizer.encode("<table>\n\n") == [table, two_lines]  # words to the model, as the reference reads them


def sentencepiece(tmp_path, step: str):
    """A tokenizer that puts SentencePiece's space before a text, in one of the three ways that files have it."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

    words = ["<unk>", *"\u2581abc", "\u2581a", "\u2581b", "\u2581c"]
    merges = [("\u2581", letter) for letter in "abc"]
    backend = Tokenizer(models.BPE(vocab={w: i for i, w in enumerate(words)}, merges=merges, unk_token="<unk>"))
    if step == "Prepend":
        steps = [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
        backend.normalizer = normalizers.Sequence(steps)
        backend.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.Fuse()])
    else:
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=step)
        backend.decoder = decoders.Metaspace(prepend_scheme=step)
    backend.add_special_tokens([AddedToken(token, normalized=False) for token in ("<s>", "</s>")])
    backend.save(str(tmp_path / "tokenizer.json"))
    template = (
        "{% for m in messages %}{% if m.role == 'user' %}<s>{% endif %}{{ m.content }}{% if m.role != 'user' %}</s>"
    )
    settings = {"eos_token": "</s>", "chat_template": template + "{% endif %}{% endfor %}"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    return load_tokenizer(str(tmp_path))


@pytest.mark.parametrize("step", ["Prepend", "always", "first", "never"])
def test_the_leading_space_is_where_the_reference_puts_it_and_not_at_a_seam(tmp_path, step):
    tokenizer = sentencepiece(tmp_path, step)
    messages = [{"role": "user", "content": "ab"}, {"role": "assistant", "content": "ca"}]
    text = tokenizer.render(messages)
    assert text == "<s>abca</s>"
    example = supervise(tokenizer, messages)  # cut between b and c, where no merge could be
    assert example.input_ids == tokenizer.backend.encode(text, add_special_tokens=False).ids
    assert tokenizer.encode("ab") == tokenizer.backend.encode("ab", add_special_tokens=False).ids


def test_prefix_and_suffix_ids_are_distinguished(tokenizer_folder, tmp_path):
    """An end token of the post-processor (Qwen3-Embedding) is no BOS; add_bos_token alone (DeepSeek) makes one."""
    from tokenizers import Tokenizer, processors

    def load(single, **settings):
        backend = Tokenizer.from_file(str(tokenizer_folder / "tokenizer.json"))
        ids = {token: backend.token_to_id(token) for token in ("<|im_start|>", "<|endoftext|>")}
        if single:
            backend.post_processor = processors.TemplateProcessing(single=single, special_tokens=list(ids.items()))
        backend.save(str(tmp_path / "tokenizer.json"))
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
        return load_tokenizer(str(tmp_path)), *ids.values()

    tokenizer, begin, end = load("$A <|endoftext|>")
    assert tokenizer.prefix_ids == []
    ids = tokenizer.encode("def add")
    assert tokenizer.encode_for_encoder(["def add"], 99) == [[*ids, end]]
    assert tokenizer.encode_for_encoder(["def add"], 2) == [[ids[0], end]]
    tokenizer, begin, end = load("<|im_start|> $A <|endoftext|>")
    assert tokenizer.prefix_ids == [begin]
    assert tokenizer.encode_for_encoder(["def add"], 3) == [[begin, ids[0], end]]
    for setting, expected in ((True, [begin]), (False, []), (None, [])):
        assert load(None, bos_token="<|im_start|>", add_bos_token=setting)[0].prefix_ids == expected


@pytest.mark.parametrize(
    ("single", "settings", "expected"),
    [
        (None, {"add_eos_token": True}, "ids end"),
        (None, {"add_bos_token": True, "add_eos_token": True}, "begin ids end"),
        ("<|im_start|> $A", {"add_eos_token": True}, "begin ids end"),  # e5-mistral
        ("<|im_start|> $A", {"add_bos_token": True}, "begin ids"),  # one, not two
        ("$A <|endoftext|>", {"add_eos_token": True}, "ids end"),
        ("$A <|endoftext|>", {"add_bos_token": True}, "begin ids end"),
        ("$A <|endoftext|>", {"add_eos_token": None}, "ids end"),  # Qwen3-Embedding says it in the post-processor alone
        (None, {"add_eos_token": False, "add_bos_token": False}, "ids"),
        (None, {"eos_token": {"content": "<|endoftext|>"}, "add_eos_token": True}, "ids end"),
    ],
)
def test_an_encoder_reads_the_ends_that_the_settings_or_the_post_processor_ask_for(
    tokenizer_folder, tmp_path, single, settings, expected
):
    from tokenizers import Tokenizer, processors

    backend = Tokenizer.from_file(str(tokenizer_folder / "tokenizer.json"))
    begin, end = (backend.token_to_id(token) for token in ("<|im_start|>", "<|endoftext|>"))
    if single:
        special = [("<|im_start|>", begin), ("<|endoftext|>", end)]
        backend.post_processor = processors.TemplateProcessing(single=single, special_tokens=special)
    backend.save(str(tmp_path / "tokenizer.json"))
    named = {"bos_token": "<|im_start|>", "eos_token": "<|endoftext|>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(named | settings))
    tokenizer = load_tokenizer(str(tmp_path))
    ids = tokenizer.encode("def add(a, b):")
    parts = {"begin": [begin], "end": [end]}
    for length in (99, 4):  # whole, and cut so that all fit
        room = length - len(expected.split()) + 1
        wanted = [token for part in expected.split() for token in parts.get(part, ids[:room])]
        assert tokenizer.encode_for_encoder(["def add(a, b):"], length) == [wanted] and len(wanted) <= length
    assert tokenizer.encode("def add(a, b):") == ids


def test_an_eos_that_the_files_do_not_name_is_refused(tokenizer_folder, tmp_path):
    (tmp_path / "tokenizer.json").write_bytes((tokenizer_folder / "tokenizer.json").read_bytes())
    for name in (None, "</s>"):
        (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": name, "add_eos_token": True}))
        with pytest.raises(UserError, match="add_eos_token is true, but eos_token is"):
            load_tokenizer(str(tmp_path)).encode_for_encoder(["x"], 9)
