from __future__ import annotations

import pytest

from common.console import UserError
from eval.text import grade, read_text_tasks

QUESTIONS = [
    ("Who was Galileo?", "person"),
    ("Where is Denver?", "place"),
    ("Who sang?", "person"),
    ("How far?", "number"),
]
ROWS = [{"id": f"q{i}", "instruction": question, "output": label} for i, (question, label) in enumerate(QUESTIONS)]


def test_an_answer_without_a_label_is_wrong_and_a_class_of_its_own():
    answers = {"q0": "person", "q1": "person", "q2": "who knows", "q3": "number"}
    result = grade("classification", read_text_tasks(ROWS), answers)
    assert [row["status"] for row in result["results"]] == ["pass", "wrong", "extraction", "pass"]
    assert result["metrics"]["accuracy"] == 0.5 and result["values"]["accuracy"]["q2"] == 0
    person = result["classes"]["person"]
    assert [person[key] for key in ("precision", "recall", "f1", "n")] == [0.5, 0.5, 0.5, 2]
    assert result["metrics"]["macro_f1"] == pytest.approx((0.5 + 0 + 1) / 3)
    low, high = result["intervals"]["macro_f1"]
    assert 0 <= low < result["metrics"]["macro_f1"] < high <= 1


def test_thoughts_are_no_answer_and_are_kept():
    said = "<think>A person? A place?</think>\n"
    answers = {"q0": f"{said}person", "q1": "Is it a person?</think>place", "q2": said, "q3": "<think>number"}
    result = grade("classification", read_text_tasks(ROWS), answers)
    assert [row["status"] for row in result["results"]] == ["pass", "pass", "extraction", "extraction"]
    assert [row.get("thoughts") for row in result["results"]] == [
        said,
        "Is it a person?</think>",
        said,
        "<think>number",
    ]
    (task,) = read_text_tasks([{"instruction": "Who?", "output": f"{said}person"}])
    assert task["references"] == ["person"]


def test_all_right_is_one_even_where_a_draw_misses_a_label():
    result = grade("classification", read_text_tasks(ROWS), {row["id"]: row["output"] for row in ROWS})
    assert result["metrics"] == {"accuracy": 1, "macro_f1": 1} and result["intervals"]["macro_f1"] == [1, 1]


def test_questions_are_graded_by_their_best_reference():
    rows = [
        {"id": "a", "instruction": "?", "output": "the Eiffel Tower", "references": ["Tour Eiffel"]},
        {"id": "b", "prompt": "?", "completion": "in 1889"},
    ]
    result = grade("qa", read_text_tasks(rows), {"a": "Tour Eiffel!", "b": "It was in 1889"})
    assert result["values"]["exact_match"] == {"a": 1, "b": 0}
    assert result["values"]["token_f1"] == {"a": 1, "b": pytest.approx(2 * 2 / (4 + 2))}
    assert [row["status"] for row in result["results"]] == ["pass", "wrong"]


def test_summaries_have_bleu_and_rouge():
    rows = [{"id": "a", "instruction": "?", "output": "we propose a new fast optimizer for training deep networks"}]
    rows.append(
        {"id": "b", "instruction": "?", "output": "a data set of questions about source code", "references": ["x"]}
    )
    tasks = read_text_tasks(rows)
    same = grade("summarization", tasks, {row["id"]: row["output"] for row in rows})
    assert same["metrics"] == pytest.approx({"rouge1": 1, "rouge2": 1, "rougeL": 1, "bleu": 100})
    other = grade("summarization", tasks, {"a": "a new optimizer", "b": "something else"})
    assert other["metrics"]["rouge1"] == pytest.approx(0.5 * 2 * 3 / (3 + 10)) and other["metrics"]["bleu"] < 20
    assert {row["status"] for row in other["results"]} == {"graded"}


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([{"instruction": "?"}], "F:1: the right answer"),
        ([{"instruction": "?", "output": " "}], "F:1: the right answer"),
        ([{"instruction": "?", "output": "a", "references": "b"}], "F:1: the right answer"),
        ([{"question": "?"}], "F:1:"),
        ([ROWS[0], ROWS[0]], "F:2: the id 'q0' is used twice"),
        ([], "no row"),
    ],
)
def test_rows_that_cannot_be_graded_are_named(rows, says):
    with pytest.raises(UserError, match=says):
        read_text_tasks(rows, where="F")


def test_a_task_without_an_answer_is_not_passed_over():
    with pytest.raises(UserError, match="1 of 4 tasks have no answer, such as 'q3'"):
        grade("classification", read_text_tasks(ROWS), {f"q{i}": "person" for i in range(3)})
    with pytest.raises(UserError, match="1 answers belong to no task in the data, such as 'q4'"):
        grade("classification", read_text_tasks(ROWS), {f"q{i}": "person" for i in range(5)})
