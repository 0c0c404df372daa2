"""A label's likelihood is what transformers gives its tokens, one after another, after the prompt that training has."""

from __future__ import annotations

import math
import re

import pytest
import torch

from common.console import UserError
from data.masking import encode_prompt, supervise
from eval.text import likelihood
from eval.text.ask import ask, text_tasks
from eval.text.likelihood import (
    calibrated,
    continuation_log_probs,
    label_ids,
    label_log_probs,
    per_token,
    whole,
    without_content,
)
from eval.text.tasks import read_text_tasks
from model import load_decoder, load_tokenizer
from model.loss import IGNORE, causal_lm_loss

LABELS = ["entity", "entity name", "x"]  # the first begins the second
ROWS = [
    {
        "id": f"q{i}",
        "text": f"What is number {i}? {'Tell me more. ' * (i % 3)}",
        "label": LABELS[i % 3],
        "labels": LABELS,
    }
    for i in range(7)
]


def by_hand(reference, prompt, continuation):
    """log p of each token, from the logits of the whole sequence."""
    logits = reference(torch.tensor([prompt + continuation])).logits[0].float()
    log_p = logits.log_softmax(-1)
    return [log_p[len(prompt) + at - 1, token].item() for at, token in enumerate(continuation)]


@pytest.mark.parametrize("rows", [160, 7, 1])
def test_log_probabilities_are_transformers(reference_decoder, rows, monkeypatch):
    """In batches of 7, 2 and 1 prompts, with continuations of several lengths.

    Within the length that a model was trained on: beyond it, dynamic RoPE turns cached keys otherwise than new ones.
    """
    monkeypatch.setattr(likelihood, "ROWS", rows)
    reference, folder = reference_decoder
    ids = torch.randint(3, 400, (7, 40), generator=torch.Generator().manual_seed(3)).tolist()
    prompts = [row[: 3 + at] for row, at in zip(ids, (17, 3, 11, 4, 16, 8, 1), strict=True)]
    continuations = [[row[:1], row[5:9], row[7:9]] for row in ids]
    found = continuation_log_probs(load_decoder(str(folder)), prompts, continuations)
    for prompt, of_prompt, scored in zip(prompts, continuations, found, strict=True):
        for continuation, log_probs in zip(of_prompt, scored, strict=True):
            assert log_probs == pytest.approx(by_hand(reference, prompt, continuation), abs=1e-4)
    assert len({round(value, 3) for of_prompt in found for values in of_prompt for value in values}) > 30


def test_a_label_is_scored_as_training_scores_it(tiny_folder):
    """The sum over its tokens and the one that ends the turn: minus the loss of that row; and their mean."""
    decoder, tokenizer = load_decoder(str(tiny_folder)), load_tokenizer(str(tiny_folder))
    tasks = read_text_tasks(ROWS)
    log_probs = label_log_probs(decoder, tokenizer, tasks, LABELS)
    sums, means = whole(log_probs), per_token(log_probs)
    for task in tasks:
        for label in LABELS:
            example = supervise(tokenizer, [*task["messages"], {"role": "assistant", "content": label}])
            ids, labels = torch.tensor([example.input_ids]), torch.tensor([example.labels])
            with torch.no_grad():
                loss = causal_lm_loss(decoder.hidden_states(ids), decoder.head_weight, labels)
            assert sums[task["id"]][label] == pytest.approx(-loss.item(), abs=1e-4)
            assert means[task["id"]][label] == pytest.approx(-loss.item() / example.supervised, abs=1e-5)


def test_a_label_that_begins_another_can_be_the_less_likely_one(tiny_folder):
    """Its tokens end with the end of the turn; without it, "entity" would win over "entity name" by its sum always."""
    tokenizer = load_tokenizer(str(tiny_folder))
    (task, *_) = read_text_tasks(ROWS)
    prompt = encode_prompt(tokenizer, task["messages"])
    short, long = (label_ids(tokenizer, task, prompt, label) for label in LABELS[:2])
    assert tokenizer.decode(short, keep_special=True) == "entity<|im_end|>"
    assert short[:-1] == long[: len(short) - 1] and short[-1] == long[-1] != long[len(short) - 1]
    example = supervise(tokenizer, [*task["messages"], {"role": "assistant", "content": "entity"}])
    assert short == [label for label in example.labels if label != IGNORE]


def test_labels_need_room_after_the_prompt(tiny):
    with pytest.raises(UserError, match="a prompt and a label of 257 tokens together exceed the model's 256 positions"):
        continuation_log_probs(tiny, [[5] * 254], [[[6, 7], [6, 7, 8]]])


def test_dropout_is_off_and_the_mode_stays(tiny):
    tiny.train()
    continuation_log_probs(tiny, [[5, 6]], [[[6], [7]]])
    assert tiny.training


def test_calibration_divides_by_what_a_model_says_without_a_text():
    """By hand: shares of 0.6 and 0.4, where texts without content have 0.75 and 0.25 on average, favour the second."""
    scores = {"a": {"x": math.log(0.6), "y": math.log(0.4)}}
    nothing = {"n1": {"x": math.log(0.8), "y": math.log(0.2)}, "n2": {"x": math.log(0.7), "y": math.log(0.3)}}
    found = calibrated(scores, nothing)["a"]
    x, y = 0.6 / 0.75, 0.4 / 0.25
    assert [math.exp(found[label]) for label in "xy"] == pytest.approx([x / (x + y), y / (x + y)])
    shifted = {"a": {label: value - 7 for label, value in scores["a"].items()}}  # only shares count
    assert calibrated(shifted, nothing)["a"] == pytest.approx(found)


def test_a_text_without_content_is_asked_with_the_same_words():
    row = {**ROWS[0], "system": "Be brief."}
    (task,) = read_text_tasks([row])
    empty = without_content(row, task)
    assert [one["messages"][0] for one in empty] == [{"role": "system", "content": "Be brief."}] * 3
    asked = task["messages"][-1]["content"]
    assert [one["messages"][-1]["content"] for one in empty] == [
        asked.replace(row["text"], text) for text in ("N/A", "[MASK]", "")
    ]
    question = {"question": "Does it?", "context": "It does.", "answer": "yes", "labels": ["yes", "no"]}
    (task,) = read_text_tasks([question])
    first = without_content(question, task)[0]["messages"][-1]["content"]
    assert first == "N/A\n\nQuestion: N/A\nAnswer with yes or no."
    with pytest.raises(UserError, match="--calibrate empties the text of text rows"):
        without_content({"instruction": "?", "output": "x"}, task)


def test_a_model_is_measured_by_what_it_says_and_by_what_it_finds_likely(tiny_folder):
    decoder, tokenizer = load_decoder(str(tiny_folder)), load_tokenizer(str(tiny_folder))
    asked = text_tasks(decoder, tokenizer, "classification", ROWS, where="F", max_length=200, max_new_tokens=3)
    result = ask(decoder, tokenizer, asked)
    kinds = ("", "likelihood_", "per_token_")
    assert result["metrics"].keys() == {kind + name for kind in kinds for name in ("accuracy", "macro_f1")}
    log_probs = label_log_probs(decoder, tokenizer, asked.tasks, LABELS)
    scores, means = whole(log_probs), per_token(log_probs)
    for row in result["results"]:
        assert row["chosen"] == max(LABELS, key=lambda label, row=row: scores[row["id"]][label])
        assert row["scores"] == pytest.approx(scores[row["id"]], abs=1e-4)
    right = [row["chosen"] == row["gold"] for row in result["results"]]
    assert result["metrics"]["likelihood_accuracy"] == sum(right) / 7 and result["intervals"].keys() == (
        result["metrics"].keys()
    )
    assert sum(map(sum, result["likelihood"]["confusion"]["counts"])) == 7
    right = [max(LABELS, key=means[row["id"]].__getitem__) == row["gold"] for row in result["results"]]
    assert result["metrics"]["per_token_accuracy"] == sum(right) / 7
    settings = {"where": "F", "max_length": 200, "max_new_tokens": 3, "calibrate": True}
    changed = ask(decoder, tokenizer, text_tasks(decoder, tokenizer, "classification", ROWS, **settings))
    assert [row["scores"] for row in changed["results"]] != [row["scores"] for row in result["results"]]


def test_what_has_no_labels_cannot_be_calibrated(tiny_folder):
    decoder, tokenizer = load_decoder(str(tiny_folder)), load_tokenizer(str(tiny_folder))
    free = [{"id": "a", "question": "Why?", "answer": "So."}]
    with pytest.raises(UserError, match="F: --calibrate is for rows with labels, and these have none"):
        text_tasks(decoder, tokenizer, "qa", free, where="F", max_length=200, calibrate=True)
    several = [{"id": "a", "text": "x", "label": "y", "labels": ["y", "z"], "references": ["z"]}]
    with pytest.raises(UserError, match="task a: a label is the one right answer"):
        text_tasks(decoder, tokenizer, "classification", several, where="F", max_length=200)


def test_a_text_longer_than_the_models_positions_is_cut_and_counted(tiny_folder):
    decoder, tokenizer = load_decoder(str(tiny_folder)), load_tokenizer(str(tiny_folder))
    rows = [ROWS[0], {**ROWS[1], "text": "word " * 300}]
    asked = text_tasks(decoder, tokenizer, "classification", rows, where="F", max_length=9999)
    lengths = [len(encode_prompt(tokenizer, task["messages"])) for task in asked.tasks]
    assert asked.shortened == 1 and lengths[1] <= 256 - 16 and lengths[1] > 200
    assert asked.tasks[1]["messages"][-1]["content"].endswith("entity, entity name or x.")
    assert text_tasks(decoder, tokenizer, "classification", rows[:1], where="F", max_length=9999).shortened == 0
    with pytest.raises(UserError, match=re.escape("F:1: a prompt of ")):
        text_tasks(decoder, tokenizer, "classification", rows, where="F", max_length=20)
