import copy

from data.instruct.judging import judge_answers, read_answer, run_answers

PAIR = {
    "id": "explain/pkg/sums.py:1",
    "category": "explain",
    "instruction": "Explain.",
    "input": "def total(values):\n    return sum(values)",
    "check": {"kind": "structure", "arguments": [], "returns": False, "names": ["total", "values"]},
}
GOOD = "The function total adds up its values. It returns their sum."


def answer(text, stopped=True):
    return {"output": text, "stopped": stopped}


def test_thoughts_are_kept_apart_and_prose_must_have_stopped():
    row = read_answer(PAIR, answer(f"<think>\nHm.\n</think>\n\n{GOOD}"))
    assert (row["status"], row["lenient"], row["output"]) == ("pass", True, GOOD) and "Hm." in row["thoughts"]
    assert read_answer(PAIR, answer(GOOD, stopped=False))["detail"] == "did not stop"


def test_rows_are_returned_for_each_answer_and_what_was_given_stays_as_it_was():
    answers = [answer(GOOD), answer("It adds."), answer(f"{GOOD} It calls no_such_helper().")]
    before = copy.deepcopy((PAIR, answers))
    rows = judge_answers([PAIR] * 3, answers)
    assert [row["status"] for row in rows] == ["pass", "wrong", "pass"]
    assert [row["lenient"] for row in rows] == [True, False, True]
    assert all({"style_issues", "hallucinated", "names_by_kind"} <= row.keys() for row in rows)
    read = read_answer(PAIR, answers[0])
    assert run_answers([PAIR], [read]) == [read] and (PAIR, answers) == before
