import pytest

from eval.failure_causes import failures

ROW = {"id": "a", "category": "complete", "sample": "greedy", "status": "wrong", "lenient": True, "output": "o"}
ROW |= {"stopped": True, "code": "c", "detail": "f(1) gave 2", "hallucinated": []}
PAIR = {"id": "a", "category": "complete", "instruction": "i", "input": "code"}


def test_the_sample_of_failures_takes_categories_in_turns_and_shows_no_success():
    pairs = [{**PAIR, "id": f"{c}{i}", "category": c} for c in ("complete", "fim") for i in range(9)]
    rows = [ROW | {"id": pair["id"], "category": pair["category"]} for pair in pairs]
    rows[0] = rows[0] | {"status": "pass"}
    rows[1] = rows[1] | {"status": "not executed"}
    rows.append(rows[2] | {"sample": 0})
    shown = failures(pairs, rows, count=6)
    assert sorted(row["category"] for row in shown) == ["complete"] * 3 + ["fim"] * 3
    assert not {"complete0", "complete1"} & {row["id"] for row in failures(pairs, rows, count=99)}
    assert len(failures(pairs, rows, count=99)) == 16
    assert failures(pairs, rows, count=6) == shown != failures(pairs, rows, count=6, seed=1)
    assert set(shown[0]) == {"id", "category", "prompt", "answer", "cause", "check"}


def test_what_the_grading_saw_is_shown():
    row = ROW | {"expected": "3", "got": "4", "hallucinated": ["nx.foo"]}
    (shown,) = failures([PAIR], [row])
    assert shown["prompt"] == "i\n\ncode"
    assert all(text in shown["check"] for text in ("f(1) gave 2", "expected: 3", "got: 4", "nx.foo"))


def test_each_failure_stands_beside_the_training_pair_that_is_likest():
    pair = {**PAIR, "input": "def shortest_path(graph, source): ..."}
    train = [
        {"id": "far", "category": "complete", "instruction": "Fill.", "input": "def total(values): ...", "output": "a"},
        {
            "id": "near",
            "category": "complete",
            "instruction": "Do.",
            "input": "def shortest_path(graph): ...",
            "output": "b",
        },
        {"id": "other", "category": "bugfix", "instruction": "Mend.", "input": pair["input"], "output": "c"},
    ]
    (shown,) = failures([pair], [ROW], train=train)
    score = shown["nearest"].pop("score")
    assert (
        shown["nearest"] == {"id": "near", "prompt": "Do.\n\ndef shortest_path(graph): ...", "answer": "b"}
        and score > 0
    )
    (shown,) = failures([pair], [ROW], train=train[2:])
    assert shown["nearest"]["id"] == "other"
    assert "nearest" not in failures([pair], [ROW])[0]


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "code of i", "completion": "done"},
        {"instruction": "code of i", "output": "done"},
        {"messages": [{"role": "user", "content": "code of i"}, {"role": "assistant", "content": "done"}]},
    ],
)
def test_the_nearest_is_found_in_every_form_that_training_takes(row):
    (shown,) = failures([PAIR], [ROW], train=[row])
    assert shown["nearest"] | {"score": 0} == {"id": "line 1", "prompt": "code of i", "answer": "done", "score": 0}
