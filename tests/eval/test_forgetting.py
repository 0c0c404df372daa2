from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from common.console import UserError
from data.masking import supervise
from eval.forgetting import forgetting, probe
from eval.perplexity import perplexity
from model.loss import IGNORE

TEXTS = {"a": {"text": "def add(a, b):\n    return a + b\n" * 4}, "b": {"text": "What does this function do?"}}
CHAT = {"messages": [{"role": "user", "content": "What?"}, {"role": "assistant", "content": "a + b é"}]}


def test_plain_texts_are_measured_as_files_are(tiny, tokenizer):
    as_files = perplexity(
        tiny, tokenizer, [(name, row["text"]) for name, row in TEXTS.items()], window=32, most_tokens=50
    )
    assert probe(tiny, tokenizer, TEXTS, window=32, most_tokens=50) == as_files
    assert as_files["files"][0]["tokens"] == 49


def test_of_a_conversation_the_answer_alone_is_measured(tiny, tokenizer):
    (row,) = probe(tiny, tokenizer, {"chat": CHAT})["files"]
    example = supervise(tokenizer, CHAT["messages"])
    logits = tiny(torch.tensor([example.input_ids]))[0, :-1]
    answer = [position for position, label in enumerate(example.labels[1:]) if label != IGNORE]
    nll = F.cross_entropy(logits[answer], torch.tensor(example.input_ids[1:])[answer], reduction="sum").item()
    assert row["nll"] == pytest.approx(nll, rel=1e-5) and row["tokens"] == len(answer) < len(example.input_ids) - 1
    assert row["bytes"] == len("a + b é".encode())


def test_texts_with_nothing_to_predict_are_left_out_of_n_and_alone_refused(tiny, tokenizer):
    asked = len(supervise(tokenizer, CHAT["messages"]).input_ids) - 10
    result = probe(tiny, tokenizer, TEXTS | {"chat": CHAT}, most_tokens=asked)
    assert result["n"] == 2 and [row["path"] for row in result["files"]] == ["a", "b"]
    with pytest.raises(UserError, match="no text to measure forgetting on"):
        probe(tiny, tokenizer, {"chat": CHAT}, most_tokens=asked)


def test_forgetting_is_a_paired_change_that_is_seen(tiny, tokenizer):
    texts = {str(n): {"text": f"text {n} says {n * n} things about {n}"} for n in range(12)}
    before = probe(tiny, tokenizer, texts)
    assert forgetting(before, before)["change"]["perplexity"]["distinguishable"] is False
    with torch.no_grad():
        for parameter in tiny.parameters():
            parameter.mul_(4)
    after = probe(tiny, tokenizer, texts)
    result = forgetting(before, after)
    assert result["before"] == before["metrics"] and result["after"] == after["metrics"]
    change = result["change"]["bits_per_byte"]
    assert change["n"] == 12 and change["value"] == pytest.approx(
        after["metrics"]["bits_per_byte"] - before["metrics"]["bits_per_byte"]
    )
    assert change["distinguishable"]
