from __future__ import annotations

import json

import pytest

from common.console import UserError
from data.masking import Example, plain_document, supervise, tokenize_rows
from data.rows import conversation_of
from model import load_tokenizer
from model.loss import IGNORE

ROW = {"instruction": "Add.", "input": "def add(a, b):", "output": "    return a + b"}


def learnt(tokenizer, example) -> str:
    return tokenizer.decode([label for label in example.labels if label != IGNORE], keep_special=True)


def test_the_first_token_of_an_example_is_never_predicted_whatever_label_it_is_given():
    example = Example([5, 6, 7], [5, 6, 7])
    assert example.labels == [IGNORE, 6, 7] and example.supervised == 2
    assert Example(example.input_ids[1:], example.labels[1:]).labels == [IGNORE, 7]
    assert Example([], []).labels == []


def test_only_the_answer_and_its_stop_token_are_learnt(tokenizer):
    example = supervise(tokenizer, conversation_of(ROW).messages)
    assert learnt(tokenizer, example) == "    return a + b<|im_end|>"
    assert all(label in (token, IGNORE) for token, label in zip(example.input_ids, example.labels, strict=True))


def test_every_answer_of_a_conversation_is_learnt(tokenizer):
    turns = [("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")]
    example = supervise(tokenizer, [{"role": role, "content": text} for role, text in turns])
    assert learnt(tokenizer, example) == "b<|im_end|>d<|im_end|>"


def test_the_prompt_is_learnt_when_asked_for(tokenizer):
    example = supervise(tokenizer, conversation_of(ROW).messages, train_on_prompt=True)
    assert example.labels[1:] == example.input_ids[1:]


def test_pad_equal_to_the_end_token_does_not_hide_the_end(tokenizer):
    assert tokenizer.settings["pad_token"] == tokenizer.eos_token  # as many models have it
    example = plain_document(tokenizer, "x = 1\n")
    assert example.labels[-1] == tokenizer.eos_id


def test_a_template_that_ends_no_turn_gets_the_end_token(tokenizer_folder, tmp_path):
    settings = json.loads((tokenizer_folder / "tokenizer_config.json").read_text())
    settings["chat_template"] = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}{% endfor %}"
    (tmp_path / "tokenizer.json").write_bytes((tokenizer_folder / "tokenizer.json").read_bytes())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    tokenizer = load_tokenizer(str(tmp_path))
    assert learnt(tokenizer, supervise(tokenizer, conversation_of(ROW).messages)) == "    return a + b<|endoftext|>"


@pytest.mark.parametrize(
    "row",
    [
        ROW,
        {"prompt": "Add.\n\ndef add(a, b):", "completion": "    return a + b"},
        {
            "messages": [
                {"role": "user", "content": "Add.\n\ndef add(a, b):"},
                {"role": "assistant", "content": "    return a + b"},
            ]
        },
    ],
)
def test_every_accepted_format_gives_the_same_example(tokenizer, row):
    assert supervise(tokenizer, conversation_of(row).messages) == supervise(tokenizer, conversation_of(ROW).messages)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (
            {"id": 1, "instruction": "x", "response": "y"},
            r'"output" is missing \(this line has: id, instruction, response\)',
        ),
        ({"question": "x"}, '"instruction", "messages" or "prompt" is missing'),
        ({"instruction": "x", "output": "  "}, "the answer is empty"),
        ({"instruction": "x", "output": 3}, '"output" must be a string, not int'),
        ({"messages": [{"role": "user", "content": "x"}]}, "an assistant message"),
        ({"messages": "x"}, '"messages" must be a list'),
    ],
)
def test_a_bad_row_names_file_line_and_reason(tokenizer, row, reason):
    with pytest.raises(UserError, match=f"pairs.jsonl:2: .*{reason}"):
        tokenize_rows([ROW, row], tokenizer, max_length=99, where="pairs.jsonl")


def test_rows_cut_and_rows_left_with_nothing_to_learn_are_counted(tokenizer):
    whole = supervise(tokenizer, conversation_of(ROW).messages)
    prompt = len(whole.input_ids) - len(tokenizer.encode(ROW["output"])) - 2
    long = {**ROW, "output": ROW["output"] * 40}
    examples, lost = tokenize_rows([ROW, long], tokenizer, max_length=prompt + 20, where="x")
    assert lost == {"cut": 1, "dropped": 0, "shortened": 0, "read": 0} and len(examples) == 2
    assert len(examples[1].input_ids) == prompt + 20
    examples, lost = tokenize_rows([ROW, long], tokenizer, max_length=prompt, where="x")
    assert lost == {"cut": 0, "dropped": 2, "shortened": 0, "read": 0} and examples == []


def test_a_row_that_the_template_cannot_say_names_file_and_line(tokenizer):
    row = {**ROW, "tools": [{"type": "function", "function": {"name": "read_clock"}}]}
    with pytest.raises(UserError, match=r'^pairs.jsonl:2: the model\'s chat template leaves out "tools": remove it'):
        tokenize_rows([ROW, row], tokenizer, max_length=99, where="pairs.jsonl")


def test_answers_that_the_template_rewrites_afterwards_are_counted(tokenizer_folder, tmp_path):
    """As Qwen3's: an answer is asked for after an empty think block, which goes once the conversation continues."""
    settings = json.loads((tokenizer_folder / "tokenizer_config.json").read_text())
    settings["chat_template"] = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n"
        "{% if loop.last and m.role == 'assistant' %}<think/>{% endif %}{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n<think/>{% endif %}"
    )
    (tmp_path / "tokenizer.json").write_bytes((tokenizer_folder / "tokenizer.json").read_bytes())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    tokenizer = load_tokenizer(str(tmp_path))
    row = {**ROW, "history": [["a", "b"], ["c", "d"]]}
    (example,), lost = tokenize_rows([row], tokenizer, max_length=999, where="x")
    assert lost == {"cut": 0, "dropped": 0, "shortened": 0, "read": 2}
    assert learnt(tokenizer, example) == "    return a + b<|im_end|>"
