"""The published run's measures, on answers at the borders of its definitions."""

from __future__ import annotations

import pytest

from eval.instruct.published import elements, has_placeholder, published_values

DOCSTRING = '"""Adds.\n\nArgs:\n    a: One.\n"""'
FENCED = "```python\nreturn a + b\n```"
FIXED = "The bug is the sign.\n\n```python\ndef add(a, b):\n    return a + b\n```"
TEST = "```python\ndef test_add():\n    assert add(1, 2) == 3\n```"
NINETEEN = " ".join(["word"] * 18) + " **x**"

PASSING = [
    ("docstring", DOCSTRING),
    ("docstring", DOCSTRING.replace('"""', "'''")),
    ("docstring", f"```python\ndef f(a):\n    {DOCSTRING}\n```".replace("\nArgs", "\n    Args")),
    ("complete", FENCED),
    ("complete", "```\n    return a\n```"),  # a body, indented
    ("bugfix", FIXED),
    ("bugfix", "Fixed:\n```\nx = 1\n```"),
    ("bugfix", "raise ValueError('an error')"),  # code without a fence that says "error"
    ("explain", NINETEEN + " more"),
    ("explain", "- " + " ".join(["word"] * 19)),
    ("unit_test", TEST),
    ("unit_test", TEST.replace("```python\n", "").replace("\n```", "")),
]
LACKING = [
    ("docstring", DOCSTRING.replace('"""', ""), "triple quotes"),
    ("docstring", DOCSTRING.replace("Adds.\n", ""), "summary"),
    ("docstring", DOCSTRING.replace("Args:", "Arguments"), "Args section"),
    ("complete", "return a + b", "code block"),
    ("complete", "```python\nreturn a +\n```", "valid Python"),
    ("bugfix", FIXED.replace("bug", "sign"), "bug, fix or error"),
    ("bugfix", "The bug:\n```python\ndef add(a, b)\n```", "code that compiles"),
    ("bugfix", "The bug:\n```python\nbreak\n```", "code that compiles"),  # parses, but does not compile
    ("explain", NINETEEN, "20 words"),
    ("explain", " ".join(["word"] * 30), "bullets or bold"),
    ("explain", " ".join(["2 * 3"] * 30), "bullets or bold"),  # an asterisk within a line is no bullet
    ("unit_test", TEST.replace("test_add", "testadd"), "def test_"),
    ("unit_test", TEST.replace("assert ", ""), "assert"),
    ("unit_test", TEST.replace("3", ""), "valid Python"),
]


@pytest.mark.parametrize(("category", "text"), PASSING)
def test_an_answer_with_all_elements_passes(category, text):
    assert all(elements(category, text).values())


@pytest.mark.parametrize(("category", "text", "element"), LACKING)
def test_an_answer_that_lacks_one_element_fails_by_it_alone(category, text, element):
    assert [name for name, has in elements(category, text).items() if not has] == [element]


@pytest.mark.parametrize("text", ["# TODO: write", "a FIXME", "Placeholder", "# your code here"])
def test_placeholders(text):
    assert has_placeholder(text)


@pytest.mark.parametrize("text", ["", "todos", "pass", "METHODOLOGY", "x = ..."])
def test_what_is_no_placeholder(text):
    assert not has_placeholder(text)


def test_pass_at_3_is_the_greedy_answer_or_one_of_the_first_two_samples():
    def row(output: str) -> dict:
        return {"category": "complete", "output": output}

    greedy = {"greedy": row(FENCED), "sample": row(""), "third": row(""), "few": row(FENCED), "other": row("")}
    greedy["other"]["category"] = "improve"  # not one of the published run's
    sampled = {
        "greedy": [row(""), row("")],
        "sample": [row(""), row(FENCED), row("")],
        "third": [row(""), row(""), row(FENCED)],
        "few": [row("")],
        "other": [row(""), row("")],
    }
    values = published_values(greedy, sampled)
    assert values["published_pass@1"] == {"greedy": 1, "sample": 0, "third": 0, "few": 1}
    assert values["published_pass@3"] == {"greedy": 1, "sample": 1, "third": 0}
    assert values["published_style"] == {"greedy": 1, "sample": 0, "third": 0, "few": 1}
    assert set(values["published_hallucination_rate"].values()) == {0}
