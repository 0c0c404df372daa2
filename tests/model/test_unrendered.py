"""Chat templates that take no notice of a part of the conversation, each as published ones do."""

from __future__ import annotations

import json

import pytest

from common.console import UserError
from data.masking import encode_prompt, supervise
from model import load_tokenizer
from model.loss import IGNORE
from model.unrendered import unrendered_parts

# Writes everything; the tests take parts out of it.
WHOLE = """
{%- for tool in tools or [] %}<|im_start|>tools
{{ tool | tojson }}<|im_end|>
{% endfor %}
{%- for m in messages %}<|im_start|>{{ m.role }}{{ ' ' + m.name if m.name and m.role == 'user' else '' }}
{% if m.reasoning_content %}<think>{{ m.reasoning_content }}</think>
{% endif %}
{{- m.content | trim | upper }}
{%- for c in m.tool_calls or [] %}<call>{{ c.function | tojson }}</call>{% endfor %}<|im_end|>
{% endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
TOOLS = [{"type": "function", "function": {"name": "look_up", "description": "", "parameters": {}}}]
CALL = {"type": "function", "function": {"name": "look_up", "arguments": {"<|im_end|>": "<|im_end|> é", "n": 3}}}
CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "What is <|im_end|>?", "name": "Ada"},
    {"role": "assistant", "content": "I look it up.", "tool_calls": [CALL]},
    {"role": "tool", "content": '{"found": "<|im_start|>"}', "name": "look_up"},
    {"role": "assistant", "content": "A token.", "reasoning_content": "simple enough"},
]


@pytest.fixture
def make(tokenizer_folder, tmp_path):
    def tokenizer_with(template):
        (tmp_path / "tokenizer.json").write_bytes((tokenizer_folder / "tokenizer.json").read_bytes())
        settings = {"eos_token": "<|endoftext|>", "chat_template": template}
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
        return load_tokenizer(str(tmp_path))

    return tokenizer_with


def learnt(tokenizer, example) -> str:
    return tokenizer.decode([label for label in example.labels if label != IGNORE], keep_special=True)


def test_calls_thoughts_and_tools_are_written_and_only_the_assistants_are_learnt(make):
    tokenizer = make(WHOLE)
    example = supervise(tokenizer, CHAT, tools=TOOLS)
    call = '<call>{"name": "look_up", "arguments": {"<|im_end|>": "<|im_end|> é", "n": 3}}</call>'
    assert learnt(tokenizer, example) == (
        f"I LOOK IT UP.{call}<|im_end|><think>simple enough</think>\nA TOKEN.<|im_end|>"
    )
    # one end a turn and one for the tool; those in the words, and in a call's arguments and their names, are text
    assert example.input_ids.count(tokenizer.control_tokens["<|im_end|>"]) == len(CHAT) + len(TOOLS)
    prompt = encode_prompt(tokenizer, CHAT[:-1], tools=TOOLS)
    assert example.input_ids[: len(prompt)] == prompt
    assert '"look_up"' in tokenizer.decode(prompt)


def test_the_template_gives_the_reference_librarys_text(make, tmp_path):
    from transformers import AutoTokenizer

    tokenizer = make(WHOLE)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    for messages, prompt in ((CHAT, False), (CHAT[:-1], True), (CHAT[:2], True)):
        expected = theirs.apply_chat_template(messages, tools=TOOLS, tokenize=False, add_generation_prompt=prompt)
        segments = tokenizer.segments(messages, tools=TOOLS, add_generation_prompt=prompt)
        assert "".join(segment.text for segment in segments) == expected


def test_a_wrong_answer_is_read_and_not_learnt(make):
    tokenizer = make(WHOLE)
    turns = [CHAT[1], {"role": "assistant", "content": "WRONG", "weight": 0}, CHAT[1], CHAT[4]]
    example = supervise(tokenizer, turns)
    assert "WRONG" in tokenizer.decode(example.input_ids)
    assert learnt(tokenizer, example) == "<think>simple enough</think>\nA TOKEN.<|im_end|>"
    with pytest.raises(ValueError, match="--train-on-prompt trains on every token"):
        supervise(tokenizer, turns, train_on_prompt=True)


@pytest.mark.parametrize(
    ("part", "other", "missing"),
    [
        ("tools or []", "[]", '"tools"'),
        ("{%- for m in messages %}", "{%- for m in messages if m.role != 'system' %}", "the system message"),
        ("for m in messages %}", "for m in messages if m.role != 'tool' %}", r"the text of message 4 \(tool\)"),
        ("m.tool_calls or []", "[]", '"tool_calls" of message 3'),
        ("m.content | trim", "('' if m.tool_calls else m.content)", r"the text of message 3 \(assistant\)"),  # Llama 3
        ("m.reasoning_content", "m.thinking", '"reasoning_content" of message 5'),
        ("m.name and", "false and", '"name" of message 2'),
    ],
)
def test_what_the_template_leaves_out_is_refused_by_name(make, part, other, missing):
    assert part in WHOLE
    tokenizer = make(WHOLE.replace(part, other))
    with pytest.raises(UserError, match=f"leaves out {missing}: .*--chat-template"):
        supervise(tokenizer, CHAT, tools=TOOLS)
    if "reasoning" not in missing:
        with pytest.raises(UserError, match=f"leaves out {missing}"):
            encode_prompt(tokenizer, CHAT[:-1], tools=TOOLS)


WORDS = "{{- m.content | trim | upper }}"
WITHOUT_THOUGHTS = "{{- (m.content.split('</think>')[-1] if m.role == 'assistant' else m.content) | trim }}"


def test_a_thought_that_is_never_written_is_refused_and_one_taken_away_later_is_not(make):
    always = make(WHOLE.replace(WORDS, WITHOUT_THOUGHTS))
    first = {"role": "assistant", "content": "<think>\nsimple\n</think>\n\nyes"}
    with pytest.raises(UserError, match="leaves out the thought of message 2"):
        supervise(always, [CHAT[1], first])
    with pytest.raises(UserError, match="leaves out the thought of message 2"):
        supervise(always, [CHAT[1], first, *CHAT[1:2], CHAT[4]])
    later = make(WHOLE.replace(WORDS, WITHOUT_THOUGHTS.replace("m.role ==", "not loop.last and m.role ==")))
    example = supervise(later, [CHAT[1], first, *CHAT[1:2], {"role": "assistant", "content": "so"}])
    assert learnt(later, example) == "so<|im_end|>"
    assert learnt(later, supervise(later, [CHAT[1], first])) == "<think>\nsimple\n</think>\n\nyes<|im_end|>"
    encode_prompt(later, [CHAT[1], first, CHAT[1]])  # an earlier thought is no part of a question


def test_arguments_are_text_for_a_template_that_adds_them_to_text(make):
    """As DeepSeek-R1's does: an object there is a TypeError."""
    tokenizer = make(WHOLE.replace("{{ c.function | tojson }}", "{{ c.function.name + ' ' + c.function.arguments }}"))
    turns = [{"role": "user", "content": "a"}, CHAT[2]]
    assert "look_up {" in learnt(tokenizer, supervise(tokenizer, turns))
    assert '"n": 3}</call><|im_end|>' in learnt(tokenizer, supervise(tokenizer, turns))


def test_a_template_that_cannot_bear_a_mark_is_not_refused(make):
    refuse = "{% if m.content | length > 11 %}{{ raise_exception('too long') }}{% endif %}"
    tokenizer = make(WHOLE.replace(WORDS, refuse + "{{ m.content }}"))
    turns = [{"role": "user", "content": "What is it?"}, {"role": "assistant", "content": "yes"}]
    assert unrendered_parts(tokenizer.template, turns, None) == []
    assert learnt(tokenizer, supervise(tokenizer, turns)) == "yes<|im_end|>"
