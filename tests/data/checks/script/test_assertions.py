"""Which assertions of a test file are calls that can be asked again, and which are not."""

from __future__ import annotations

import pytest

from data.checks.script import calls_of_assertions

pytest.importorskip("tree_sitter_typescript")


@pytest.mark.parametrize(
    ("line", "arguments", "want"),
    [
        ("expect(add(2, 3)).toBe(5);", [2, 3], 5),
        (
            "expect(lib.add([1, 'a'], { b: true })).toStrictEqual({ c: [null] });",
            [[1, "a"], {"b": True}],
            {"c": [None]},
        ),
        ("expect(add(-1)).to.deep.equal([-1]);", [-1], [-1]),
        ("assert.deepStrictEqual(add('x'), 'x', 'a reason');", ["x"], "x"),
        ("assert.equal(add(), undefined);", [], None),
        ("eq(R.add(1), 2);", [1], 2),
        ("t.is(add(1), 2);", [1], 2),
        ("it('adds', () => { expect(add(1)).toEqual(2); });", [1], 2),
    ],
)
def test_an_assertion_of_a_call_with_literals_is_a_check(line, arguments, want):
    for grammar in ("javascript", "typescript"):
        (call,) = calls_of_assertions(line, grammar)["add"]
        assert call == {"arguments": repr(arguments), "want": f"{want!r}\n", "raises": None}


@pytest.mark.parametrize(
    "line",
    [
        "expect(add(2, 3)).not.toBe(5);",
        "expect(add(2, 3)).resolves.toBe(5);",
        "expect(add(2, x)).toBe(5);",
        "expect(add(2, 3)).toBe(five);",
        "expect(add(2)(3)).toBe(5);",
        "expect(add(null)).toBe(5);",  # None crosses as undefined
        "expect(add(2, 3)).toBeCloseTo(5);",
        "expect(total).toBe(5);",
        "assert.notEqual(add(2, 3), 5);",
        "assert.equal(5, add(2, 3));",
        "check(add(2, 3), 5);",
        "expect(add(2, 3)).toBe(5",
    ],
)
def test_anything_else_is_none(line):
    assert calls_of_assertions(line, "typescript") == {}


def test_calls_come_in_the_order_of_the_file_by_function():
    found = calls_of_assertions("expect(a(1)).toBe(1);\nexpect(b(2)).toBe(2);\nexpect(a(3)).toBe(3);\n", "javascript")
    assert [call["arguments"] for call in found["a"]] == ["[1]", "[3]"] and [*found] == ["a", "b"]
