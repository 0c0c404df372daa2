import ast

import pytest

from data.instruct.degrade import degrade, is_worth_undoing

SOURCES = [
    ('def f(xs):\n    """Doc."""\n    out = [x * 2 for x in xs if x > 1]\n    return out', "comprehension"),
    ("def f(xs):\n    return {x: y for x in xs for y in range(x)}", "comprehension"),
    ("def f(xs):\n    return sorted(xs) if len(xs) > 2 else None", "conditional expression"),
    ('def f(xs):\n    return f"n={len(xs)} of {xs[0]}"', "f-string"),
    ("def f(xs):\n    return [x for x in xs if x in (1, 3)]", "membership"),
    (
        "def f(xs):\n    for i, x in enumerate(xs):\n        if x == 2:\n            continue\n        yield i, x",
        "enumerate",
    ),
    ("def f(xs):\n    yield from xs", "yield from"),
    ("def f(xs):\n    total = 0\n    for value in xs:\n        total += value\n    return total", "names"),
    (
        "def f(xs):\n    if len(xs) > 2:\n        return 1\n    if 2 in xs:\n        return 2\n    return 3",
        "guard clause",
    ),
    ("def f(xs):\n    return [x for x in xs if 1 < x < 3]", "chained comparison"),
    ("def f(xs):\n    return any(x > 2 for x in xs)", "any or all"),
    ("def f(xs):\n    return all(x + y > 2 for x in xs if x > 1 for y in xs)", "any or all"),
    ("def f(xs: list[int]) -> int:\n    count: int = len(xs)\n    return count", "annotations"),
]


def run(source, values):
    namespace = {}
    exec(source, namespace)
    result = namespace["f"](values)
    return list(result) if hasattr(result, "__next__") else result


@pytest.mark.parametrize(("source", "kind"), SOURCES)
def test_worse_code_does_the_same(source, kind):
    worse, kinds = degrade(source)
    assert kind in kinds
    assert ast.dump(ast.parse(worse)) != ast.dump(ast.parse(source))
    for values in ([1, 2, 3], [3], [2, 2, 1, 3]):
        assert run(worse, values) == run(source, values)


@pytest.mark.parametrize(
    "source",
    [
        "def f(xs):\n    x = 1\n    y = [x for x in xs]\n    return x",  # the loop would overwrite x
        "def f(xs):\n    y = [y for y in xs]\n    return y",
        "def f(xs):\n    return [lambda: x for x in xs]",  # each keeps its own x only by luck
        "def f(xs):\n    x = 1\n    return any(x for x in xs)",
        "def f(xs):\n    return xs + [1]",
    ],
)
def test_what_could_change_the_meaning_is_left_alone(source):
    assert degrade(source) == (source, []) or not {"comprehension", "any or all"} & set(degrade(source)[1])


def test_names_that_a_nested_scope_sees_are_kept():
    source = (
        "def f(xs):\n    total = sum(xs)\n    def inner():\n        return total\n    return inner() or f'{total}!'"
    )
    worse, kinds = degrade(source)
    assert kinds == ["f-string"]
    assert "inner" in worse and "total = sum(xs)" in worse


def test_a_middle_with_an_effect_is_not_written_twice():
    assert degrade("def f(xs):\n    return 1 < xs.pop() < 3")[1] == []


def test_a_matter_of_one_line_alone_is_not_worth_a_review():
    assert is_worth_undoing(["comprehension"]) and is_worth_undoing(["f-string", "membership", "names"])
    assert not is_worth_undoing(["f-string", "names", "annotations"]) and not is_worth_undoing([])
