import pytest

from eval.codetasks.solution import reachable, read_solution

HEAD = 'import math\n\n\ndef helper(x):\n    return x + 1\n\n\ndef area(r):\n    """Area of a circle."""\n'


def run(solution, name, *arguments):
    namespace = {"__name__": "__main__"}
    exec(solution.code, namespace)
    return namespace[name](*arguments)


def test_decorators_helpers_constants_and_imports_that_are_reached_come_along_and_nothing_else():
    code = """import functools, os
from math import *
LIMIT = 3
def helper(x): return min(x, LIMIT)
def unused(x): return x
def twice(f):
    @functools.wraps(f)
    def inner(x): return 2 * f(x)
    return inner
@twice
@functools.lru_cache
def f(x):
    return helper(x)
def test_f():
    assert f(1) == 2
assert f(1) == 3
print(f(5))
test_f()
if __name__ == "__main__":
    raise SystemExit
"""
    kept = reachable(code, "f")
    namespace = {"__name__": "__main__"}
    exec(kept, namespace)
    assert namespace["f"](9) == 6
    assert not {"unused", "test_f"} & namespace.keys() and "print" not in kept and "assert" not in kept


@pytest.mark.parametrize(
    "setting",
    [
        "import sys\nsys.setrecursionlimit(2000)",
        "table = []\nfor i in range(4):\n    table.append(i)",
        "table = {}\ntable[0] = 1",
        "def other(x): pass\nother.table = 1",
        "try:\n    import numpy as table\nexcept ImportError:\n    table = None",
        "def fill():\n    global table\n    table = 1\nfill()",
    ],
)
def test_statements_that_set_up_what_is_reached_stay(setting):
    use = "other.table" if "other" in setting else "table" if "table" in setting else "0"
    kept = reachable(f"{setting}\ndef f(x):\n    return {use}\nf(1)\n", "f")
    assert setting in kept and "\nf(1)" not in kept


def test_a_variable_of_a_function_does_not_reach_a_trial_that_uses_the_same_name():
    kept = reachable(
        "def f(x):\n    for case in x:\n        return case\nfor case in [[1]]:\n    print(f(case))\n", "f"
    )
    assert "print" not in kept


def test_a_function_that_is_wrapped_or_assigned_afterwards_is_kept_as_it_is():
    assert reachable("def g(x): return x\nf = lambda x: g(x)\n", "f").startswith("def g")
    assert "f = print" in reachable("def f(x): return x\nf = print\n", "f")


@pytest.mark.parametrize(
    ("answer", "route"),
    [
        ("```python\nimport math\ndef area(r):\n    return math.pi * r * r\n```\nDone.", "fence"),
        ("```\nprint(area(1))\n```\n```python\nimport math\ndef area(r): return math.pi * r**2\n```", "fence"),
        (
            "```\ndef sq(r): return r * r\n```\n```\nimport math\ndef area(r): return math.pi * sq(r)\n```",
            "fences",
        ),
        ("```\ndef area(r): return pi * sq(r)\nfrom math import pi\n```\n```\ndef sq(r): return r * r\n```", "fences"),
        ("Sure:\ndef area(r):\n    return math.pi * r * r\nThat is it.", "text"),
        ("    return math.pi * r * r\n\ndef other():\n    pass", "body"),
        ("```python\nreturn math.pi * r * r\n```", "body"),
        ("area = lambda r: math.pi * r * r", "text"),
        ("```\nfrom __future__ import annotations\ndef area(r: Unknown): return math.pi * r * r\n```", "fence"),
    ],
)
def test_the_definition_is_found_in_every_dress_with_what_stands_in_the_prompt(answer, route):
    solution = read_solution(HEAD, "area", answer)
    assert solution.route == route and run(solution, "area", 2) == pytest.approx(12.566371)


def test_a_helper_of_the_prompt_that_the_answer_uses_is_there_and_one_that_it_redefines_is_its_own():
    assert run(read_solution(HEAD, "area", "```\ndef area(r): return helper(r)\n```"), "area", 1) == 2
    again = "```\ndef helper(x): return 7\ndef area(r): return helper(r)\n```"
    assert run(read_solution(HEAD, "area", again), "area", 1) == 7


@pytest.mark.parametrize(
    "answer", ["", "I cannot.", "```\ndef other(r): return 1\n```", "```\ndef area(r) return\n```"]
)
def test_an_answer_without_the_definition_is_none(answer):
    solution = read_solution("Write the area of a circle.", "area", answer)
    assert solution.code is None and solution.route == "none"
