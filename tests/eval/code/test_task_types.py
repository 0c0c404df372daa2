from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

from eval.code.task_files import read_code_tasks
from eval.code.task_types import TYPES, task_type
from eval.code.tasks import CodeTask

TEXT = "assert f('a') == 'A'\n"


def typed(gold: str | None, tests: str = TEXT, prompt: str = "Do it.") -> str:
    return task_type(CodeTask("t", prompt, "f", tests, gold=gold))


@pytest.mark.parametrize(
    ("gold", "expected"),
    [
        ("def f(x):\n    return x.upper()\n", "strings"),
        ("def f(x):\n    for c in x:\n        pass\n    return [d for e in x for d in e]\n", "strings"),
        ("def f(x):\n    return f(x[1:]) if x else x\n", "algorithms"),
        ("def f(x):\n    while x:\n        x = x[1:]\n", "algorithms"),
        ("def f(x):\n    for a in x:\n        for b in x:\n            pass\n", "algorithms"),
        ("import heapq\ndef f(x):\n    return heapq.nlargest(2, x)\n", "algorithms"),
        ("def f(x):\n    with open(x) as file:\n        return file.read()\n", "file I/O"),
        ("from os.path import join\ndef f(x):\n    return join(x, x)\n", "file I/O"),
        (None, "strings"),
    ],
)
def test_the_solution_decides_then_the_values(gold, expected):
    assert typed(gold) == expected and expected in TYPES


@pytest.mark.parametrize(
    ("tests", "expected"),
    [
        ("assert f(-1) == 1\n", "numbers"),
        ("assert set(f((1, 2))) == {3}\n", "lists and dictionaries"),
        ("assert f({}, 1) is None\n", "lists and dictionaries"),
        ("def check(candidate):\n    assert candidate(10 ** 9) == 1\ncheck(f)\n", "numbers"),
        ("assert f(*['a', 1]) == 3\n", "strings"),  # MultiPL-E's tests
        ("INPUTS = [[], [[1], 2]]\nfor i in INPUTS:\n    assert f(*i)\n", "lists and dictionaries"),  # EvalPlus's
        ("assert f(None) == 1\nassert f('a') == 2\n", "strings"),
        ("assert f() == 1\n", "other"),
    ],
)
def test_the_first_argument_is_that_of_the_tests(tests, expected):
    assert typed("def f(*a):\n    return 1\n", tests) == expected


def test_a_class_of_the_answer_and_examples_in_the_prompt():
    node = "class Node:\n    pass\ndef f(n):\n    return n\n"
    assert typed(node, "assert f(Node())\n") == "classes"
    head = 'def f(x):\n    """Half.\n\n    >>> f(4)\n    2\n    """\n'
    assert typed(None, "x = g()\nassert f(x) == 2\n", head) == "numbers"


def test_mbpps_tasks_spread_over_the_types():
    file = Path(os.environ.get("TRITUNE_DATA", "/nowhere")) / "mbpp" / "mbpp.jsonl"
    if not file.is_file():
        pytest.skip("needs MBPP in TRITUNE_DATA")
    counts = Counter(map(task_type, read_code_tasks(str(file))))
    assert counts["other"] == 0 and min(counts[kind] for kind in ("algorithms", "strings", "numbers")) > 50
