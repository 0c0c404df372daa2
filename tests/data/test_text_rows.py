"""Text rows: each task has one prompt, labels are those of the file, a long text is cut before its answer."""

from __future__ import annotations

import re

import pytest

from common.console import UserError
from common.files import write_jsonl
from data.masking import encode_prompt, tokenize_rows
from data.rows import conversation_of, is_conversation, read_rows, training_conversation, unread_fields
from data.text_rows import common_task, shortened, task_of, with_labels
from model.loss import IGNORE

LABELS = ["person", "place"]
CLASSIFIED = {"id": "a", "text": "Who sang?", "label": "person", "labels": LABELS}
ASKED = {"id": "b", "question": "Does it help?", "context": "It helps.", "answer": "yes", "labels": ["yes", "no"]}
SUMMARISED = {"id": "c", "document": "A long story.", "summary": "A story."}


@pytest.mark.parametrize(
    ("row", "task", "question", "answer"),
    [
        (
            CLASSIFIED,
            "classification",
            "Who sang?\n\nWhich label fits this text? Answer with one of: person or place.",
            "person",
        ),
        (ASKED, "qa", "It helps.\n\nQuestion: Does it help?\nAnswer with yes or no.", "yes"),
        (
            {"question": "Who?", "answer": "Ada {x}"},
            "qa",
            "Question: Who?\nAnswer with a few words.",
            "Ada {x}",
        ),
        (
            SUMMARISED,
            "summarization",
            "A long story.\n\nSummarize this text in one or two sentences.",
            "A story.",
        ),
    ],
)
def test_each_task_has_one_prompt(row, task, question, answer):
    assert task_of(row) == task and is_conversation(row) and unread_fields([row]) == []
    assert [turn["content"] for turn in training_conversation(row).messages] == [question, answer]
    said = conversation_of({**row, "system": "Be brief."})
    assert [turn["role"] for turn in said.messages] == ["system", "user", "assistant"]


def test_a_row_of_another_form_stays_one():
    """Alpaca's rows repeat themselves in "text", and a corpus of texts may have labels that are numbers."""
    row = {"instruction": "Add.", "output": "1", "text": "Add. 1", "label": "good"}
    assert task_of(row) is None and conversation_of(row).messages[0]["content"] == "Add."
    assert task_of({"text": "a document", "label": 3}) is None and not is_conversation({"text": "a document"})
    assert common_task([CLASSIFIED, ASKED]) is None and common_task([ASKED, ASKED]) == "qa" and common_task([]) is None


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({**CLASSIFIED, "text": " "}, '"text" is empty'),
        ({**CLASSIFIED, "label": ""}, '"label" is empty'),
        ({**ASKED, "question": "\n"}, '"question" is empty'),
        ({**SUMMARISED, "document": ""}, '"document" is empty'),
        ({"text": "x", "label": "y"}, '"labels" is missing'),
        ({**CLASSIFIED, "label": "thing"}, "\"label\" is 'thing', which is not one of its labels: person, place"),
        ({**CLASSIFIED, "labels": ["person"]}, "a list of two or more texts"),
        ({**CLASSIFIED, "labels": ["person", " Person"]}, "has 'person' twice"),
        ({**ASKED, "context": ["It helps."]}, '"context" must be a text'),
        ({**ASKED, "history": [["a", "b"]]}, '"history" is not read in a text row'),
        ({**ASKED, "image": "x.png"}, '"image" is not read'),
        ({"text": "x", "label": 3}, 'beside "text" a text row needs "label", a text'),
        ({"text": "x", "label": False}, 'beside "text" a text row needs "label", a text'),
        ({"question": "Is it?", "passage": "It is.", "answer": True}, 'beside "question" a text row needs "answer"'),
        ({"document": "x"}, 'beside "document" a text row needs "summary"'),
    ],
)
def test_a_row_that_cannot_be_asked_says_why(row, says):
    with pytest.raises(ValueError, match=re.escape(says)):
        conversation_of(row)


def test_the_labels_are_those_of_the_file_and_of_the_training_rows(tmp_path):
    bare = [{"text": text, "label": label} for text, label in [("x", "b"), ("y", "a"), ("z", "a")]]
    write_jsonl(tmp_path / "train.jsonl", bare)
    write_jsonl(tmp_path / "test.jsonl", bare[1:])
    train = read_rows(tmp_path / "train.jsonl")
    assert [row["labels"] for row in train] == [["a", "b"]] * 3 and "labels" not in bare[0]
    assert read_rows(tmp_path / "test.jsonl", trained=train)[0]["labels"] == ["a", "b"]
    with pytest.raises(UserError, match=r"test.jsonl: only the label 'a' occurs"):
        read_rows(tmp_path / "test.jsonl")
    write_jsonl(tmp_path / "test.jsonl", [bare[1], {"text": "v", "label": "c"}])
    with pytest.raises(UserError, match=r"test.jsonl:2: the label 'c' does not occur in training, only a, b"):
        read_rows(tmp_path / "test.jsonl", trained=train)
    with pytest.raises(UserError, match=r"F:2: its labels \(x, y\) are not person, place"):
        with_labels([CLASSIFIED, {**CLASSIFIED, "labels": ["x", "y"]}], where="F")
    with pytest.raises(UserError, match="201 different labels"):
        with_labels([{"text": "x", "label": str(i)} for i in range(201)], where="F")


def test_questions_that_are_only_answered_by_verdicts_have_them_as_labels():
    rows = [{"question": "?", "answer": answer} for answer in ("no", "yes", "no")]
    assert with_labels(rows, where="F")[0]["labels"] == ["yes", "no"]
    open_ones = [*rows, {"question": "?", "answer": "Ada"}]
    assert with_labels(open_ones, where="F") == open_ones
    assert with_labels(rows, where="F", trained=open_ones) == rows  # asked as in training


def test_a_long_text_is_cut_after_a_word_and_its_answer_stays(tokenizer):
    text = " ".join(f"word{i}" for i in range(400))
    rows = [{**CLASSIFIED, "text": text}, CLASSIFIED, {**SUMMARISED, "document": text}]
    examples, lost = tokenize_rows(rows, tokenizer, max_length=300, where="x")
    assert lost == {"cut": 0, "dropped": 0, "shortened": 2, "read": 0}
    for example, answer in zip(examples, ("person", "person", "A story."), strict=True):
        said = tokenizer.decode([label for label in example.labels if label != IGNORE], keep_special=True)
        assert said == f"{answer}<|im_end|>" and len(example.input_ids) <= 300
    (asked, _) = tokenizer.decode(examples[0].input_ids, keep_special=True).split("\n\nWhich label")
    words = asked.removeprefix("<|im_start|>user\n").split()
    assert words == text.split()[: len(words)] and len(words) > 10  # whole words, from the start
    assert len(examples[0].input_ids) > 300 - 3 * len(tokenizer.encode("word100"))  # and as many as fit


def test_what_cannot_be_shortened_is_cut_at_the_end_as_any_row_is(tokenizer):
    long_question = {"question": "why " * 300, "answer": "yes"}
    examples, lost = tokenize_rows([long_question], tokenizer, max_length=100, where="x")
    assert (examples, lost) == ([], {"cut": 0, "dropped": 1, "shortened": 0, "read": 0})


def test_a_text_without_spaces_is_cut_inside():
    row = shortened({"document": "猫" * 100, "summary": "s"}, lambda one: len(one["document"]) <= 30)
    assert row["document"] == "猫" * 30
    whole = {"document": "x" * 99, "summary": "s"}
    assert shortened(whole, lambda one: False) is whole


def test_the_prompt_is_a_prefix_of_what_is_trained(tokenizer):
    for row in (CLASSIFIED, ASKED, SUMMARISED):
        prompt = encode_prompt(tokenizer, conversation_of(row).question.messages)
        (example,), _ = tokenize_rows([row], tokenizer, max_length=999, where="x")
        assert example.input_ids[: len(prompt)] == prompt
        assert example.labels[: len(prompt)] == [IGNORE] * len(prompt) and example.labels[len(prompt)] != IGNORE
