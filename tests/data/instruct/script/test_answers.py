from __future__ import annotations

import pytest

from data.checks.script import script_structure_check
from data.instruct.answers import read

GIVEN = "/** Adds. */\nfunction add(a, b) {\n  return a - b;\n}"
FIXED = "function add(a, b) {\n  return a + b;\n}"


def pair(category, given=GIVEN, **check):
    structure = {"arguments": [], "returns": False, "names": []} | check
    return {"category": category, "input": given, "check": script_structure_check("javascript", "add", **structure)}


@pytest.mark.parametrize(
    ("output", "problem", "status"),
    [
        (f"The bug is the sign.\n\n```js\n{FIXED}\n```", None, None),
        (f"```\nadd(1, 2)\n```\nbecomes\n```javascript\n{FIXED}\n```", None, None),
        (FIXED, None, None),
        ("```js\nconst add = (a, b) => {\n  return a + b;\n};\n```", None, None),
        ("```js\n  return a + b;\n```", None, None),  # the body alone
        (f"```js\n{FIXED[:-1]}\n```", "does not parse", "syntax"),
        (f"```js\n{FIXED.replace('add', 'sum')}\n```", "does not define add", "wrong"),
        ("```js\nfunction add(a, b) {\n  // later\n}\n```", "is a placeholder", "wrong"),
        ("I do not know.", "no code that parses", "extraction"),
        ("", "no code", "extraction"),
    ],
)
def test_the_function_of_an_answer_is_found_and_judged(output, problem, status):
    reading = read(pair("complete", "/** Adds. */\nfunction add(a, b) {\n}"), output)
    assert (reading.problem, reading.status) == (problem, status)
    assert problem or "return a + b" in reading.code


def test_the_bug_left_where_it_was_is_no_answer():
    unchanged = "```js\nfunction add(a, b) {\n  // the same\n  return a -\n    b;\n}\n```"
    assert read(pair("bugfix"), unchanged).problem == "leaves the bug"
    assert read(pair("bugfix"), f"```js\n{FIXED}\n```").problem is None


@pytest.mark.parametrize(
    ("output", "problem"),
    [
        ("/**\n * Adds two numbers.\n * @param {number} a\n * @param b the other\n * @returns the sum\n */", None),
        ("```js\n/** Adds numbers a and b. @returns the sum */\n```", None),
        ("Adds the numbers a and b and returns the sum.", None),
        ("/** Adds two numbers. @returns the sum */", "does not mention the argument a"),
        ("/** Adds a and b to a sum. */", "does not say what is returned"),
        ("/**\n * Adds a and b.\n * @param c what?\n * @returns it\n */", "documents c, which is no argument"),
        ("/** x */", "says nothing"),
    ],
)
def test_a_comment_must_name_what_the_function_takes_and_gives(output, problem):
    assert read(pair("docstring", arguments=["a", "b"], returns=True), output).problem == problem


def test_an_explanation_is_held_to_the_same_rules_as_one_of_python():
    asked = pair("explain", names=["add"])
    assert read(asked, "`add` takes two numbers. It gives their sum.").problem is None
    assert read(asked, "It adds.").problem == "fewer than two sentences"
    assert read(asked, "It takes two numbers. It adds them.").problem == "does not mention add"
