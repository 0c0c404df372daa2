"""Every command that reads rows reads them alike: what the template cannot say is named, what it can is asked with."""

from __future__ import annotations

import gzip
import json
import re
from types import SimpleNamespace

import pytest

import train_sft
from common.console import UserError
from data.masking import tokenize_rows
from data.replay import read_other_texts, replay_examples
from eval import text
from eval.forgetting import probe
from eval.instruct import grade as instruct
from eval.next_token.prompts import read_prompts

PLAIN = {"id": "a", "category": "explain", "instruction": "What is it?", "input": "", "output": "It adds.", "check": {}}
SAMPLING = {"samples": 0, "temperature": 1.0, "top_p": 1.0, "max_new_tokens": 4, "seed": 0}
ROOMY = SimpleNamespace(config=SimpleNamespace(max_position_embeddings=9999))


def replayed(path, rows, tokenizer):
    other = read_other_texts(str(path), None, corpus_texts=set(), seed=0)
    both = other.replay | other.probe
    if path.name.startswith("probe"):
        probe(None, tokenizer, both)
    else:
        replay_examples(both, tokenizer, size=99, beside=99, share=0.5, seed=0)


READERS = {
    "train_sft": lambda path, rows, tokenizer: tokenize_rows(rows, tokenizer, max_length=99, where=str(path)),
    "train_sft --test": lambda path, rows, tokenizer: train_sft.refuse_bad_tasks(
        rows, tokenizer, ROOMY, SimpleNamespace(samples=0, max_new_tokens=4, test=str(path))
    ),
    "eval.instruct": lambda path, rows, tokenizer: instruct.answer_pairs(
        None, tokenizer, rows, where=str(path), **SAMPLING
    ),
    "eval.text": lambda path, rows, tokenizer: text.answer_tasks(
        None, tokenizer, text.read_text_tasks(rows, where=str(path)), max_new_tokens=4, where=str(path)
    ),
    "eval.next_token": lambda path, rows, tokenizer: read_prompts(tokenizer, path, kind="seen", count=9, window=99),
    "replay": replayed,
    "probe": replayed,
}


@pytest.mark.parametrize("reader", READERS)
def test_a_row_that_the_template_cannot_say_is_named(reader, tmp_path, tokenizer):
    rows = [PLAIN, {**PLAIN, "id": "b", "tools": [{"name": "read_clock"}]}]
    path = tmp_path / f"{reader}.jsonl.gz"
    path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
    with pytest.raises(UserError, match=rf'{re.escape(path.name)}:2: .* leaves out "tools"'):
        READERS[reader](path, rows, tokenizer)


@pytest.mark.parametrize("reader", ["eval.instruct", "eval.text"])
def test_a_question_is_asked_with_its_system_message_and_history(reader, monkeypatch, tmp_path, tokenizer):
    asked = []

    def generate(decoder, prompts, *settings, **more):
        asked.extend(tokenizer.decode(ids, keep_special=True) for ids in prompts)
        return [[[7]] for _ in prompts]

    for module in (instruct, text):
        monkeypatch.setattr(module, "generate", generate)
    READERS[reader](tmp_path / "x", [{**PLAIN, "system": "Be brief.", "history": [["a", "b"]]}], tokenizer)
    turns = [("system", "Be brief."), ("user", "a"), ("assistant", "b"), ("user", "What is it?")]
    expected = "".join(f"<|im_start|>{role}\n{words}<|im_end|>\n" for role, words in turns)
    assert asked == [f"{expected}<|im_start|>assistant\n"]
