from __future__ import annotations

import json
import shutil

import pytest

from data.masking import encode_prompt, supervise
from model import load_tokenizer
from model.console import UserError
from model.loss import IGNORE

CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "What is <|im_end|> in ChatML?\n"},
    {"role": "assistant", "content": "\n It ends a turn: <|im_end|><|endoftext|>"},
]


TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def with_template(tokenizer_folder, folder, template, **settings):
    """The small tokenizer with another chat template."""
    shutil.copy(tokenizer_folder / "tokenizer.json", folder)
    settings = {"eos_token": "<|endoftext|>", "chat_template": template} | settings
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return load_tokenizer(str(folder))


@pytest.fixture(scope="module")
def reference(tokenizer_folder):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tokenizer_folder)


def test_the_template_renders_the_reference_librarys_text(tokenizer, reference):
    for messages, prompt in ((CHAT, False), (CHAT[:2], True), (CHAT + CHAT[1:], False)):
        expected = reference.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt)
        assert tokenizer.render(messages, add_generation_prompt=prompt) == expected
        segments = tokenizer.segments(messages, add_generation_prompt=prompt)
        assert "".join(segment.text for segment in segments) == expected


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


def test_the_text_of_a_control_token_in_the_words_is_plain_text(tokenizer):
    end = tokenizer.control_tokens["<|im_end|>"]
    example = supervise(tokenizer, CHAT)
    assert example.input_ids.count(end) == len(CHAT)  # one a turn, none of the three that the words contain
    assert tokenizer.decode(tokenizer.encode("<|im_end|>")) == "<|im_end|>"


def test_the_ids_of_the_prompt_are_a_prefix_of_those_with_the_answer(tokenizer):
    for answer in ("x", "\n\nx", " x", "```python\nx\n```"):
        whole = supervise(tokenizer, [*CHAT[:2], {"role": "assistant", "content": answer}]).input_ids
        prompt = encode_prompt(tokenizer, CHAT[:2])
        assert whole[: len(prompt)] == prompt


@pytest.mark.parametrize("change", [" | trim", " | upper", ".strip('\\n')", " | replace('a', '')"])
def test_a_template_may_rewrite_the_words(tokenizer_folder, tmp_path, change):
    tokenizer = with_template(tokenizer_folder, tmp_path, TEMPLATE.replace("['content']", f"['content']{change}"))
    segments = tokenizer.segments(CHAT)
    assert "".join(s.text for s in segments) == tokenizer.render(CHAT)
    end = tokenizer.control_tokens["<|im_end|>"]
    assert supervise(tokenizer, CHAT).input_ids.count(end) == len(CHAT)  # whatever it does, the words make no token


def test_a_template_that_counts_the_words_is_refused(tokenizer_folder, tmp_path):
    tokenizer = with_template(tokenizer_folder, tmp_path, TEMPLATE.replace("['content']", "['content'][:24]"))
    with pytest.raises(UserError, match="cannot be told apart"):
        tokenizer.segments(CHAT)


def test_one_bos_and_it_is_not_learnt(tokenizer_folder, tmp_path):
    """A model with a BOS: its template writes it, its post-processor adds it to plain text; never both."""
    from tokenizers import Tokenizer, processors

    backend = Tokenizer.from_file(str(tokenizer_folder / "tokenizer.json"))
    bos = backend.token_to_id("<|endoftext|>")
    backend.post_processor = processors.TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", bos)]
    )
    backend.save(str(tmp_path / "tokenizer.json"))
    settings = json.loads((tokenizer_folder / "tokenizer_config.json").read_text())
    settings |= {
        "bos_token": "<|endoftext|>",
        "eos_token": "<|im_end|>",
        "chat_template": "{{ bos_token }}" + settings["chat_template"],
    }
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    tokenizer = load_tokenizer(str(tmp_path))
    example = supervise(tokenizer, [CHAT[1], {"role": "assistant", "content": "yes"}])
    assert example.input_ids.count(bos) == 1 and example.input_ids[0] == bos
    assert example.labels[0] == IGNORE


def test_a_model_without_a_template_says_so(tokenizer_folder, tmp_path):
    shutil.copy(tokenizer_folder / "tokenizer.json", tmp_path)
    with pytest.raises(UserError, match="no chat template"):
        load_tokenizer(str(tmp_path)).render(CHAT)
