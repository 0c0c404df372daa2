import random
import sys
from collections import Counter

import pytest

from common.console import UserError
from common.python_syntax import parsed
from data.checks.linting import lint
from data.instruct.pair_filters import DUPLICATE, Distinct, lint_problems, pair_problem, placed
from data.likeness.near_duplicates import jaccard, shingles

GIVEN = 'def f(x):\n    """Doc."""'


def pair(category, output, given=GIVEN, **check):
    return {"category": category, "input": given, "output": output, "check": check}


@pytest.mark.parametrize(
    ("made", "problem"),
    [
        (pair("complete", "    return x + 1  # one more"), None),
        (pair("complete", "    return"), "output under 15 characters"),
        (pair("complete", "    # TODO: write this\n    return x"), "placeholder in the output"),
        (pair("complete", "    ...  # nothing yet"), "placeholder in the output"),
        (pair("complete", "    pass  # nothing at all"), "placeholder in the output"),
        (pair("complete", "    return (x + 1  # open"), "output does not parse in its place"),
        (pair("bugfix", "return x", f"{GIVEN}\n    return y", line=3), None),
        (pair("bugfix", "return (x", f"{GIVEN}\n    return y", line=3), "output does not parse in its place"),
        (pair("fim", "        y = x\n        x = y", "def f(x):\n    if x:\n        <FILL>\n    return x"), None),
        (pair("improve", f"{GIVEN}\n    return 1 + x\n", f"{GIVEN}\n    return 1 + x"), "output is the input"),
        (pair("improve", "def f(x):\n    # rest of the code\n    return x + 100000"), "placeholder in the output"),
        (pair("unit_test", "def test_f():\n    assert f(1) == 1\n    assert f(2)"), None),
        (pair("docstring", '"""Adds one to x, whatever x may be...\n"""'), "output that breaks off"),
        (pair("docstring", '"""Adds one.\n\nArgs:\n    x: <description>\n"""'), "placeholder in the output"),
        (pair("docstring", '"""Adds one.\n\nArgs:\n    x (int): A number.\n"""'), None),
        (pair("explain", "It adds one."), "output under 80 characters"),
        (pair("explain", "It adds one to x. " * 5), None),
        (pair("explain", "It adds one to x. " * 5 + "TBD."), "placeholder in the output"),
    ],
)
def test_each_rule_names_its_reason(made, problem):
    assert pair_problem(made) == problem


def test_a_line_is_put_where_the_bug_was():
    made = pair("bugfix", "return x", "def f(x):\n    return y\n", line=2)
    assert placed(made) == "def f(x):\n    return x\n"


def test_ruff_finds_what_does_nothing_but_not_what_the_module_or_the_question_says():
    literal = pair("complete", "    if x is 'a':\n        return x")
    given = pair("complete", "    return x", "def f(x):\n    assert (x, 'always true')")
    of_module = pair("complete", "    return helper(x)")
    prose = pair("explain", "y = 1 is not code here")
    first, *others = lint_problems([literal, prose, given, of_module])
    assert first.startswith("ruff: F632") and others == [None, None, None]
    assert lint_problems([prose]) == [None] and lint_problems([]) == []


def test_the_rules_that_are_asked_for_are_the_ones_that_count(monkeypatch):
    asked = {"ignored": ("F841",), "why": "the test"}
    source = "import os\nx = [i for i in ()]\ndef f():\n    y = 1\n"
    assert [[issue.rule for issue in issues] for issues in lint([source, "x = 1"], rules=("F",), **asked)] == [
        ["F401"],
        [],
    ]
    assert [issue.line for issue in lint([source], rules=("C4",), **asked)[0]] == [2]
    monkeypatch.setitem(sys.modules, "ruff", None)
    assert lint([], rules=("F",), **asked) == []
    with pytest.raises(UserError, match="the test needs the extra package 'ruff'"):
        lint([source], rules=("F",), **asked)


@pytest.mark.parametrize("source", ["-" * 5000 + "1", "-" * 200_000 + "1", "(" * 300, "\0", "x = '\ud800'"])
def test_what_python_cannot_parse_is_none_and_no_fault(source):
    assert parsed(source) is None and parsed("x = 1") is not None


def test_near_duplicates_are_told_from_others_within_a_group():
    distinct = Distinct()
    first = "def add values to the running total of all values that were seen so far in this very list"
    assert distinct.problem("a", first) is None
    assert distinct.problem("a", first.upper().replace(" ", "\n  ")) == "duplicate"
    assert distinct.problem("a", first.replace("list", "set")) == "near-duplicate"  # 13 of 15 5-grams
    assert distinct.problem("b", first) is None
    assert distinct.problem("a", "something else entirely, of which no five words in a row stand above") is None


def test_near_duplicates_are_those_that_comparing_every_pair_would_find():
    rng = random.Random(0)
    distinct, kept, found = Distinct(), [], Counter()
    for _ in range(300):
        words = list(rng.choice(kept)) if kept and rng.random() < 0.8 else rng.choices("abcdef", k=rng.randint(1, 60))
        for _ in range(rng.randint(0, 3)):
            words[rng.randrange(len(words))] = rng.choice("abcdef")
        grams = shingles(" ".join(words))
        problem = distinct.problem("x", " ".join(words))
        assert (problem is not None) == any(jaccard(grams, shingles(" ".join(one))) >= DUPLICATE for one in kept)
        found[problem] += 1
        kept += [] if problem else [words]
    assert min(found[None], found["near-duplicate"], found["duplicate"]) > 20


def test_a_text_right_at_the_threshold_is_found_wherever_its_shingles_sort():
    for number in range(600):
        words = [f"w{number}x{i}" for i in range(14)]  # ten 5-grams, seven of them without the last three words
        distinct = Distinct()
        assert distinct.problem("x", " ".join(words)) is None
        assert distinct.problem("x", " ".join(words[:11])) == "near-duplicate"
        assert distinct.problem("x", " ".join(words[:10])) is None
