from __future__ import annotations

import pytest

from eval.causes import cause_of_pair, cause_of_task

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
        ({"status": "timeout", "code": "def f(n):\n    while n:\n        pass"}, "malformed loop"),
        ({"code": "def f(x):\n    for y in x:\n        z = y\n        return z"}, "malformed loop"),
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
        ({"expected": "'abc'", "got": "'bc'"}, "off by one"),
        ({"expected": "{1: 2}", "got": "{}"}, "off by one"),
        ({"expected": "True", "got": "False"}, "wrong value"),  # not the numbers 1 and 0
        ({"expected": "'abc'", "got": "'xyzt'"}, "wrong value"),
        ({"expected": "[1, 2, 3]", "got": "[1, 3]"}, "wrong value"),  # one missing, but not at an end
        ({"expected": "True", "got": "[1]"}, "wrong value"),
        ({"expected": "3", "got": "5"}, "wrong value"),
        ({"expected": "<Graph>", "got": "<Other>"}, "wrong value"),
        ({"expected": "3", "got": ""}, "gives nothing"),
    ],
)
def test_each_failure_has_its_cause_of_pair(change, expected):
    assert cause_of_pair(PAIR, ROW | change) == expected


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
    assert cause_of_pair(pair, ROW | {"code": code, "expected": "3", "got": "7"}) == expected


@pytest.mark.parametrize(
    ("detail", "expected"),
    [
        ("passes on all 3 mutants: it would notice no bug", "the test notices no bug"),
        ("AssertionError: assert 3 == 4", "the test is wrong"),
    ],
)
def test_a_test_fails_for_one_of_two_causes(detail, expected):
    assert cause_of_pair({**PAIR, "category": "unit_test"}, ROW | {"detail": detail}) == expected


TASK = {
    "status": "wrong",
    "detail": "assert f(1) == 2",
    "stopped": True,
    "code": "def f(x): return 3",
    "route": "fence",
}
TASK |= {"completion": "```\ndef f(x): return 3\n```", "asked": "f(1)", "expected": "5", "got": "3", "held": 1}
LOOPS = "def f(x):\n    for y in x:\n        y += 1\n        return y"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, "wrong value"),
        ({"stopped": False}, "did not stop"),  # the block is closed: the answer was complete
        ({"stopped": False, "completion": "```\ndef f(x): return 3\n"}, "truncated"),
        ({"stopped": False, "completion": "def f(x): return 3\ndef g", "route": "text"}, "truncated"),
        ({"stopped": False, "completion": "    return 3", "route": "body"}, "truncated"),
        ({"status": "extraction", "detail": "no code", "code": None}, "no code in the answer"),
        ({"status": "extraction", "detail": "does not define f", "code": None}, "misread instruction"),
        ({"status": "syntax", "detail": "no definition of f that parses", "code": None}, "syntax"),
        ({"status": "timeout"}, "too slow"),
        ({"status": "timeout", "code": "def f(x):\n    while True:\n        x += 1"}, "malformed loop"),
        ({"status": "exception", "detail": "TypeError: f() takes 1 positional argument but 2 were given"},
         "misread instruction"),
        ({"status": "exception", "detail": "TypeError: g() takes 1 positional argument but 2 were given"}, "wrong API"),
        ({"status": "exception", "detail": "NameError: name 'math' is not defined"}, "uses a name that does not exist"),
        ({"status": "exception", "detail": "IndexError: list index out of range"}, "raises IndexError"),
        ({"status": "exception", "detail": "the other process is gone"}, "ends the process"),
        ({"code": LOOPS}, "malformed loop"),
        ({"asked": "f([])"}, "missed edge case"),
        ({"asked": "f([])", "held": 0}, "wrong value"),
        ({"got": ""}, "gives nothing"),
        ({"got": "4"}, "off by one"),
        ({"expected": "an object", "got": "an object"}, "wrong value"),
    ],
)  # fmt: skip
def test_a_code_task_fails_for_the_same_causes(change, expected):
    assert cause_of_task(TASK | change, "f") == expected
