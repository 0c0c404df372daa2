import pytest

from eval.failure_causes import cause, failures

ROW = {"id": "a", "category": "complete", "sample": "greedy", "status": "wrong", "lenient": True, "output": "o"}
ROW |= {"stopped": True, "code": "c", "detail": "f(1) gave 2", "hallucinated": []}
PAIR = {"id": "a", "category": "complete", "instruction": "i", "input": "code"}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"stopped": False, "status": "syntax"}, "truncated"),
        ({"stopped": False, "output": "x = 1\nx = 1\nx = 1\nx ="}, "did not stop"),
        ({"stopped": False, "output": "x = 1\nx = 1\nx ="}, "truncated"),
        ({"stopped": False, "output": "f(1)\n\nNow here is", "code": "f(1)"}, "did not stop"),
        ({"stopped": False, "output": "f(1)\n\nNow", "code": "f(1)", "lenient": False}, "truncated"),
        ({"status": "exception", "detail": "TypeError: f() got an unexpected keyword argument 'x'"}, "wrong API"),
        ({"status": "exception", "detail": "TypeError: f() missing 1 required positional argument: 'x'"}, "wrong API"),
        ({"status": "exception", "detail": "TypeError: unhashable type: 'list'"}, "raises TypeError"),
        ({"hallucinated": ["nx.f(_, x=)"], "names_by_kind": {"call": (1, 3), "import": (0, 2)}}, "wrong API"),
        (
            {"hallucinated": ["nx.g", "q"], "names_by_kind": {"attribute": (1, 3), "name": (1, 2)}},
            "uses a name that does not exist",
        ),
        ({"lenient": False, "detail": "does not define f"}, "misread instruction"),
        ({"lenient": False, "detail": "has no test function"}, "misread instruction"),
        ({"expected": "3", "got": "4", "held": 2, "asked": "f([])"}, "missed edge case"),
        ({"expected": "3", "got": "4", "held": 2, "asked": "f(x, 0)"}, "missed edge case"),
        ({"expected": "3", "got": "4", "held": 0, "asked": "f([])"}, "off by one"),
        ({"expected": "3", "got": "4", "held": 2, "asked": "f(10, G0, x[0.5])"}, "off by one"),
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


BUGGY = "def f(x):\n    y = x - 1\n    z = y * 2\n    return z"


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (BUGGY.replace("y * 2", "y * 3"), "wrong place"),
        (BUGGY.replace("x - 1", "x - 2"), "wrong value"),  # the right line, wrongly mended
        (BUGGY.replace("    y = x - 1\n", "    y = x\n"), "wrong value"),
        (BUGGY.replace("    y =", "    w = 1\n    y ="), "wrong place"),  # a line more, the broken one as it was
    ],
)
def test_a_bug_sought_in_another_line_is_a_class_of_its_own(code, expected):
    pair = {**PAIR, "category": "bugfix", "input": BUGGY, "check": {"line": 2}}
    assert cause(pair, ROW | {"code": code, "expected": "3", "got": "7"}) == expected


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
