from __future__ import annotations

import pytest

from data.checks.script.examples import calls_of_examples


def calls(*lines, name="f"):
    comment = "/**\n" + "".join(f" * {line}\n" for line in lines) + " */"
    return [(call["arguments"], call["want"]) for call in calls_of_examples(comment, name)]


@pytest.mark.parametrize(
    ("lines", "arguments", "want"),
    [
        (["@example", "f(1, -2.5) // => 3"], "[1, -2.5]", "3"),
        (["     R.f([1, 'a']);   //=> [[], {}]"], "[[1, 'a']]", "[[], {}]"),
        (["_.f({ 'a': 'x', b: undefined, 3: true })", "// => { 'x': false };"], "[{'a': 'x', 'b': None, '3': True}]",
         "{'x': False}"),
        (["const result = f('it\\'s\\n', 1e3, 0x10, 5.0);", "// => 2"], r"""["it's\n", 1000, 16, 5]""", "2"),
        (["f() // => undefined"], "[]", "None"),
        (["f() // => [null]"], "[]", "[None]"),
        (["f((1)) // => '\\u0041'"], "[1]", "'A'"),
    ],
)  # fmt: skip
def test_calls_with_literals_are_python_literals(lines, arguments, want):
    assert calls(*lines) == [(arguments, f"{want}\n")]


@pytest.mark.parametrize(
    "lines",
    [
        ["f(x) // => 1"],  # a variable
        ["f(() => 1) // => 1"],
        ["f(1) // => Thu Sep 11"],
        ["f(1) // => [Function]"],
        ["f(new Date(2014, 1)) // => 1"],
        ["g(1) // => 1"],
        ["f(1)(2) // => 1"],
        ["f(-0) // => 0"],  # JSON has no -0
        ["f([null]) // => 0"],  # it would arrive as undefined
        ["f(...[1]) // => 1"],
        ["f({ [a]: 1 }) // => 1"],
        ["f(`a${b}`) // => 1"],
        ["f(1)"],
        ["// => 1"],
        ["// f(2)", "// => 1"],
        ["The sum is 1 // => 1"],
        [],
    ],
)
def test_what_a_program_cannot_be_sure_of_is_no_example(lines):
    assert calls(*lines) == []


def test_there_are_twelve_at_most():
    assert len(calls(*(f"f({i}) // => {i}" for i in range(20)))) == 12
