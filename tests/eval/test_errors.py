import pytest

from eval.errors import cause, failures

ROW = {"id": "a", "category": "complete", "sample": "greedy", "status": "wrong", "lenient": True, "output": "o"}
ROW |= {"stopped": True, "code": "c", "detail": "f(1) gave 2", "hallucinated": []}
PAIR = {"id": "a", "category": "complete", "instruction": "i", "input": "code"}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"stopped": False, "status": "syntax"}, "did not stop"),
        ({"status": "extraction", "lenient": False}, "no code in the answer"),
        ({"status": "syntax", "lenient": False}, "syntax"),
        ({"status": "timeout"}, "too slow"),
        ({"status": "memory"}, "too much memory"),
        ({"status": "denied"}, "does what the sandbox forbids"),
        ({"status": "died"}, "ends the process"),
        ({"hallucinated": ["nx.foo"]}, "uses a name that does not exist"),
        ({"status": "exception", "detail": "NameError: name 'x' is not defined"}, "uses a name that does not exist"),
        (
            {"status": "exception", "detail": "networkx.exception.NodeNotFound: 3"},
            "raises networkx.exception.NodeNotFound",
        ),
        ({"status": "exception", "detail": "StopIteration"}, "raises StopIteration"),
        ({"lenient": False, "detail": "leaves the bug"}, "changes nothing"),
        ({"lenient": False, "detail": "is a placeholder"}, "a placeholder"),
        ({"lenient": False, "detail": "asserts nothing"}, "lacks: asserts nothing"),
        ({"expected": "3", "got": "4"}, "off by one"),
        ({"expected": "[1, 2]", "got": "[1]"}, "off by one"),
        ({"expected": "True", "got": "[1]"}, "wrong value"),
        ({"expected": "3", "got": "5"}, "wrong value"),
        ({"expected": "<Graph>", "got": "<Other>"}, "wrong value"),
        ({"expected": "3", "got": ""}, "gives nothing"),
    ],
)
def test_each_failure_has_its_cause(change, expected):
    assert cause(PAIR, ROW | change) == expected


@pytest.mark.parametrize(
    ("detail", "expected"),
    [
        ("passes on all 3 mutants: it would notice no bug", "the test notices no bug"),
        ("AssertionError: assert 3 == 4", "the test is wrong"),
    ],
)
def test_a_test_fails_for_one_of_two_causes(detail, expected):
    assert cause({**PAIR, "category": "unit_test"}, ROW | {"detail": detail}) == expected


def test_the_sample_of_failures_takes_categories_in_turns_and_shows_no_success():
    pairs = [{**PAIR, "id": f"{c}{i}", "category": c} for c in ("complete", "bugfix") for i in range(9)]
    rows = [ROW | {"id": pair["id"], "category": pair["category"]} for pair in pairs]
    rows[0] = rows[0] | {"status": "pass"}
    rows[1] = rows[1] | {"status": "not executed"}
    rows.append(rows[2] | {"sample": 0})
    shown = failures(pairs, rows, count=6)
    assert sorted(row["category"] for row in shown) == ["bugfix"] * 3 + ["complete"] * 3
    assert not {"complete0", "complete1"} & {row["id"] for row in failures(pairs, rows, count=99)}
    assert len(failures(pairs, rows, count=99)) == 16
    assert failures(pairs, rows, count=6) == shown != failures(pairs, rows, count=6, seed=1)
    assert set(shown[0]) == {"id", "category", "prompt", "answer", "cause", "check"}


def test_what_the_grading_saw_is_shown():
    row = ROW | {"expected": "3", "got": "4", "hallucinated": ["nx.foo"]}
    (shown,) = failures([PAIR], [row])
    assert shown["prompt"] == "i\n\ncode"
    assert all(text in shown["check"] for text in ("f(1) gave 2", "expected: 3", "got: 4", "nx.foo"))
