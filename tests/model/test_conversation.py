from __future__ import annotations

import json

import pytest

from common.console import UserError
from data.masking import encode_prompt, supervise
from model import load_tokenizer
from model.loss import IGNORE
from tests.conftest import TEMPLATE
from tests.model.templates import CHAT, with_template


def test_the_text_of_a_control_token_in_a_message_is_plain_text(tokenizer):
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
def test_a_template_may_rewrite_messages(tokenizer_folder, tmp_path, change):
    tokenizer = with_template(tokenizer_folder, tmp_path, TEMPLATE.replace("['content']", f"['content']{change}"))
    segments = tokenizer.segments(CHAT)
    assert "".join(s.text for s in segments) == tokenizer.render(CHAT)
    end = tokenizer.control_tokens["<|im_end|>"]
    assert supervise(tokenizer, CHAT).input_ids.count(end) == len(CHAT)  # whatever it does, the words make no token


def test_a_template_that_truncates_messages_is_refused(tokenizer_folder, tmp_path):
    tokenizer = with_template(tokenizer_folder, tmp_path, TEMPLATE.replace("['content']", "['content'][:24]"))
    with pytest.raises(UserError, match="cannot be distinguished"):
        tokenizer.segments(CHAT)


def test_there_is_one_bos_and_it_is_not_trained(tokenizer_folder, tmp_path):
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


def test_an_answer_that_does_not_follow_its_own_prompt_is_refused(tokenizer_folder, tmp_path):
    """As DeepSeek-R1's: it asks with an opened think block, and writes a finished answer without one."""
    tokenizer = with_template(tokenizer_folder, tmp_path, TEMPLATE.replace("assistant\n", "assistant\n<think>\n"))
    with pytest.raises(UserError, match=r"own generation prompt.*--chat-template"):
        supervise(tokenizer, CHAT)


def test_a_template_without_a_generation_prompt_uses_what_it_writes_before_an_answer(tokenizer_folder, tmp_path):
    tokenizer = with_template(tokenizer_folder, tmp_path, TEMPLATE.split("{% if add")[0])
    prompt = encode_prompt(tokenizer, CHAT[:2])
    assert tokenizer.decode(prompt, keep_special=True).endswith("<|im_end|>\n<|im_start|>assistant\n")
    example = supervise(tokenizer, CHAT)
    assert example.input_ids[: len(prompt)] == prompt and set(example.labels[: len(prompt)]) == {IGNORE}
    assert example.labels[len(prompt)] != IGNORE
