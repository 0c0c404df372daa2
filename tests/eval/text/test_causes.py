"""Each error has one cause from a short list."""

from __future__ import annotations

import pytest

from eval.text import grade, read_text_tasks
from eval.text.causes import answer_cause, failures, label_cause, summary_cause

LABELS = ["place", "person"]


@pytest.mark.parametrize(
    ("answer", "said", "stopped", "cause"),
    [
        ("person", "person", True, None),
        ("place", "place", True, "person taken for place"),
        (" ", None, True, "empty"),
        ("a place or a person", None, True, "several labels"),
        ("who knows", None, True, "no label"),
        ("who knows", None, False, "did not stop"),
    ],
)
def test_causes_of_a_wrong_label(answer, said, stopped, cause):
    assert label_cause(answer, said, "person", LABELS, stopped=stopped) == cause


@pytest.mark.parametrize(
    ("answer", "stopped", "cause"),
    [
        ("The Black  sea!", True, None),
        ("the", True, "empty"),
        ("sea", True, "part of the answer"),
        ("It is the Black Sea, in the East", True, "more than the answer"),
        ("It is the Black Sea, in the East", False, "did not stop"),
        ("the Red Sea", True, "overlaps the answer"),
        ("a long river", True, "another part of the text"),
        ("Paris", True, "not in the text"),
        ("Paris", False, "did not stop"),
    ],
)
def test_causes_of_a_wrong_answer(answer, stopped, cause):
    text = "Where does it end?\nA long river ends in the Black Sea."
    assert answer_cause(answer, ["Black Sea", "the Black sea"], text, stopped=stopped) == cause


@pytest.mark.parametrize(
    ("answer", "stopped", "cause"),
    [
        ("rivers end in seas of some kind", True, None),
        ("", True, "empty"),
        ("rivers end in", False, "did not stop"),
        ("it ends it ends it ends it ends", True, "repeats itself"),
        ("a long river ends in the black", True, "copies the text"),
        (
            "one two three four five six seven eight nine ten eleven twelve thirteen",
            True,
            "far longer than the reference",
        ),
        ("short it", True, "far shorter than the reference"),
    ],
)
def test_causes_of_a_summary(answer, stopped, cause):
    text = "A long river ends in the black sea."
    assert summary_cause(answer, ["some rivers do end in seas"], text, stopped=stopped) == cause


def test_errors_to_read_take_turns_by_cause_and_show_the_nearest_training_row():
    rows = [{"id": f"q{i}", "text": f"What is thing {i}?", "label": "person", "labels": LABELS} for i in range(9)]
    tasks = read_text_tasks(rows)
    answers = {task["id"]: "place" if i < 6 else "no idea" if i < 8 else "person" for i, task in enumerate(tasks)}
    result = grade("classification", tasks, answers, unfinished={"q7"})
    assert result["causes"] == {"person taken for place": 6, "no label": 1, "did not stop": 1}
    assert [row.get("stopped") for row in result["results"]] == [None] * 7 + [False, None]
    train = read_text_tasks([{"id": "t", "text": "Is thing 4 a thing?", "label": "person", "labels": LABELS}])
    shown = failures(tasks, result["results"], count=4, train=train)
    assert [row["cause"] for row in shown[:3]] == ["person taken for place", "no label", "did not stop"]
    assert shown[3]["cause"] == "person taken for place" and len({row["id"] for row in shown}) == 4
    for row in shown:
        assert row["check"] == "right: person" and row["prompt"].endswith("place or person.")
        assert row["nearest"]["answer"] == "person" and row["category"] == "person"
