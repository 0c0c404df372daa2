"""Few-shot: which rows precede a question, and that they do, in what is generated and in what is scored."""

from __future__ import annotations

import pytest

from common.console import UserError
from data.masking import encode_prompt
from eval.text.ask import text_tasks
from eval.text.shots import choose_shots, with_shots
from eval.text.tasks import read_text_tasks, read_training_tasks
from model import load_decoder, load_tokenizer
from tests.eval.text.test_command import LABELS, ROWS, evaluate, files  # noqa: F401  a fixture

LISTED = [row | {"labels": sorted(set(LABELS))} for row in ROWS]  # person, place, person, number


def test_labels_take_turns_and_the_seed_draws():
    many = [row | {"id": f"{row['id']}-{n}"} for n in range(5) for row in LISTED]
    chosen = choose_shots(many, 5, where="train", seed=1)
    assert {row["label"] for row in chosen[:3]} == {"number", "person", "place"}
    assert sorted(row["label"] for row in chosen) != ["person"] * 5 and len({row["id"] for row in chosen}) == 5
    assert choose_shots(many, 5, where="train", seed=1) == chosen != choose_shots(many, 5, where="train", seed=2)
    assert choose_shots(many, 0, where="train") == []
    with pytest.raises(UserError, match="train: 4 training rows, too few for --shots 5"):
        choose_shots(ROWS, 5, where="train")


def test_the_shots_are_earlier_turns_after_the_system_message():
    tasks = read_text_tasks([{"id": "a", "instruction": "Who?", "output": "x", "system": "Be brief."}])
    (asked,) = with_shots(tasks, read_training_tasks(LISTED[:2]))
    assert [turn["role"] for turn in asked["messages"]] == ["system", *["user", "assistant"] * 2, "user"]
    assert [turn["content"] for turn in asked["messages"][2::2]] == ["person", "place"]
    assert asked["messages"][1]["content"].startswith("Who was Galileo?") and asked["messages"][-1]["content"] == "Who?"


def test_a_shot_is_cut_as_a_question_is(tiny_folder):
    """Zero-shot and few-shot read the same questions."""
    decoder, tokenizer = load_decoder(str(tiny_folder)), load_tokenizer(str(tiny_folder))
    long = {"id": "long", "text": "Why? " * 50, "label": "place", "labels": LISTED[0]["labels"]}
    rows = [*LISTED[:2], long | {"id": "asked"}]
    most = {"where": "data", "max_length": 110, "max_new_tokens": 4}
    alone = text_tasks(decoder, tokenizer, "classification", rows, **most)
    few = text_tasks(decoder, tokenizer, "classification", rows, **most, shots=[long])
    assert [one["messages"][-1] for one in few.tasks] == [one["messages"][-1] for one in alone.tasks]
    lengths = [[len(encode_prompt(tokenizer, one["messages"])) for one in asked.tasks] for asked in (alone, few)]
    assert lengths[0][-1] <= 110 < lengths[1][-1] <= 2 * 110 + 20 and few.tasks[0]["messages"][0]["role"] == "user"


def test_the_command_takes_its_shots_from_the_training_rows(files, tiny_folder):  # noqa: F811
    asked = ("--model", tiny_folder, "--max-new-tokens", 4, "--device", "cpu", "--max-length", 90)
    done, few = evaluate(files, *asked, "--train", files / "train.jsonl", "--shots", 1)
    assert done.returncode == 0, done.stderr
    _, alone = evaluate(files, *asked, "--train", files / "train.jsonl")
    assert few["settings"]["shots"] == "1" and few["results"][0]["scores"] != alone["results"][0]["scores"]
    done, _ = evaluate(files, *asked, "--shots", 1)
    assert done.returncode == 2 and "--shots goes with --model, and takes its rows from --train" in done.stderr
