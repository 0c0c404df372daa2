import ast
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.checks.extract import complete_function, correct_line, extract_code, reachable, read_solution
from eval.code.score import pass_at_k

HEAD = 'def scale(values, by=2):\n    """Multiply.\n\n    >>> scale([1])\n    [2]\n    """'
BODY = "    out = []\n    for value in values:\n        out.append(value * by)\n    return out"


def _run(source):
    namespace = {}
    exec(source, namespace)
    return namespace["scale"]([1, 2], 3)


@pytest.mark.parametrize(
    "answer",
    [
        BODY,
        "\n" + BODY + "\n\n",
        BODY.lstrip(),  # the first line's indentation lost
        "\n".join(line[4:] for line in BODY.split("\n")),  # the whole body dedented
        "\n".join("    " + line for line in BODY.split("\n")),  # one level too deep
        f"```python\n{BODY}\n```",
        f"Here is the body:\n\n```python\n{BODY}\n```\nIt multiplies.",
        f"```\n{HEAD}\n{BODY}\n```",
        f"{HEAD}\n{BODY}",
        BODY + "\n\nThis multiplies each value.",  # run on into prose: the body ends where the text steps left
        BODY + "\n\ndef unrelated(:\n    broken",
        BODY.replace("\n", "\r\n"),
        f"```python\n{BODY}",  # fence never closed
        f"Here it is:\n```\n{BODY}",
        f"{BODY}\n```\n\nThis multiplies.",  # never opened
        f"{HEAD}\n{BODY}\n```\nThis multiplies.",
    ],
)
def test_a_right_body_is_found_in_every_dress(answer):
    assert _run(complete_function(HEAD, "scale", answer)) == [3, 6]


@pytest.mark.parametrize("answer", ["", "   \n", "I cannot do that.", "```\n```", "return (", "for x in"])
def test_an_answer_without_a_body_gives_no_function(answer):
    assert complete_function(HEAD, "scale", answer) is None


def test_a_one_line_body_is_put_below_the_head():
    assert _run(complete_function(HEAD, "scale", "return [v * by for v in values]")) == [3, 6]


def test_the_block_that_defines_the_entry_point_is_taken_with_its_imports_helpers_and_decorators():
    answer = """First, an example:
```python
print(f(1))
```
Now the code:
```python
import functools

def helper(x):
    return x

@functools.cache
def f(x):
    return helper(x)
```
"""
    code = extract_code(answer, "f")
    assert code.startswith("import functools") and "@functools.cache" in code and "print" not in code
    assert extract_code(answer, "g") is None
    assert extract_code(answer).startswith("print")


def test_blocks_that_only_together_define_it_are_joined():
    answer = "```python\nimport math\n```\nand\n```python\nX = math.pi\n\n\ndef f():\n    return X\n```"
    assert "import math" not in extract_code(answer, "f")  # the first block that suffices is taken
    assert extract_code("```\nclass A:\n    pass\n```", "A") == "class A:\n    pass\n"


def test_code_amid_prose_without_a_fence_is_found_and_prose_is_not_code():
    assert extract_code("Sure!\ndef f():\n    return 1\nThis returns one.", "f") == "def f():\n    return 1\n"
    assert extract_code("hello") is None
    assert extract_code("yes, no") is None
    assert extract_code("The function returns 1.") is None


def test_code_that_would_exhaust_the_parser_is_only_not_code():
    assert extract_code("(" * 10_000) is None
    assert extract_code("x = \0") is None


BUGGY = "def f(values):\n    total = 0\n    for v in values:\n        total += v - 1\n    return total"


@pytest.mark.parametrize(
    "answer",
    [
        "total += v",
        "        total += v",
        "```python\ntotal += v\n```",
        "The corrected line is `total += v`.",
        "The bug is there.\n\n`total += v`\n",
        BUGGY.replace("v - 1", "v"),
        f"```python\n{BUGGY.replace('v - 1', 'v')}\n```",
    ],
)
def test_a_corrected_line_replaces_the_old_one_in_its_place(answer):
    assert correct_line(BUGGY, "f", 4, answer).rstrip() == BUGGY.replace("v - 1", "v")


def test_a_line_that_opens_a_block_can_be_corrected():
    assert "    for v in values[1:]:\n" in correct_line(BUGGY, "f", 3, "for v in values[1:]:")


def test_backticks_in_a_comment_of_the_line_are_part_of_it():
    assert "    for v in values[1:]:  # not `values`\n" in correct_line(
        BUGGY, "f", 3, "for v in values[1:]:  # not `values`"
    )


@pytest.mark.parametrize("answer", ["", "a = 1\nb = 2", "Use `a` or `b`.\nEither."])
def test_no_single_line_is_no_correction(answer):
    assert correct_line(BUGGY, "f", 4, answer) is None


@given(st.integers(1, 7).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(1, n))))
def test_pass_at_k_is_the_share_of_draws_that_hold_a_right_sample(case):
    n, c, k = case
    draws = list(combinations(range(n), k))
    assert pass_at_k(n, c, k) == pytest.approx(sum(min(draw) < c for draw in draws) / len(draws))


@pytest.mark.parametrize(("n", "c", "k"), [(2, 1, 3), (3, 4, 1), (3, -1, 1), (3, 1, 0)])
def test_pass_at_k_refuses_what_has_no_estimate(n, c, k):
    with pytest.raises(ValueError, match="pass@k"):
        pass_at_k(n, c, k)


def test_extraction_never_runs_the_code(tmp_path):
    target = tmp_path / "ran"
    code = extract_code(f"```python\nopen({str(target)!r}, 'w')\n```")
    assert ast.parse(code) and not target.exists()


AREA = 'import math\n\n\ndef helper(x):\n    return x + 1\n\n\ndef area(r):\n    """Area of a circle."""\n'


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
    solution = read_solution(AREA, "area", answer)
    assert solution.route == route and run(solution, "area", 2) == pytest.approx(12.566371)


def test_a_helper_of_the_prompt_that_the_answer_uses_is_there_and_one_that_it_redefines_is_its_own():
    assert run(read_solution(AREA, "area", "```\ndef area(r): return helper(r)\n```"), "area", 1) == 2
    again = "```\ndef helper(x): return 7\ndef area(r): return helper(r)\n```"
    assert run(read_solution(AREA, "area", again), "area", 1) == 7


@pytest.mark.parametrize(
    "answer", ["", "I cannot.", "```\ndef other(r): return 1\n```", "```\ndef area(r) return\n```"]
)
def test_an_answer_without_the_definition_is_none(answer):
    solution = read_solution("Write the area of a circle.", "area", answer)
    assert solution.code is None and solution.route == "none"


TRIPLE = 'def triple(n):\n    """Three times n."""\n'


@pytest.mark.parametrize(
    ("prompt", "completion"),
    [
        (TRIPLE, "    return helper(n)\n\n\ndef helper(n):\n    return 3 * n\n"),
        (TRIPLE, "    return FACTOR * n\n\nFACTOR = 3\n"),
        (TRIPLE, "    return sqrt(9 * n * n)\n\nfrom math import sqrt\n"),
        (TRIPLE, "    n = n + n\n# and once more\n    return n // 2 * 3\n"),
        (TRIPLE, '    text = """\nat the margin\n"""\n    return 3 * n\n'),
        (TRIPLE.rstrip(), "\n    return helper(n)\n\ndef helper(n): return 3 * n"),
        (TRIPLE + "    ", "m = 3 * n\n    return m\n\nX = triple(1)\n"),  # the prompt has indented the first line
        ("def triple(n): return", " FACTOR * n\n\nFACTOR = 3"),
        ("def triple(n):\n    # three times n\n", "    return helper(n)\n\ndef helper(n): return 3 * n"),
        (TRIPLE.replace("    ", "\t"), "\tif n:\n\t\tn = 3 * n\n\treturn K and n\nK = 1\n"),
        (TRIPLE, "    return helper(n)\r\n\r\ndef helper(n):\r\n    return 3 * n\r\n"),
        (TRIPLE, "```python\n    return helper(n)\n\ndef helper(n):\n    return 3 * n\n```"),
        (TRIPLE, "    return helper(n)\n\ndef helper(n):\n    return 3 * n\n```\n\nIt multiplies."),
        (TRIPLE, "    return 3 * n\n\nprint(triple(2))\nassert triple(1) == 0\nNote: it_works\n"),
    ],
)
def test_a_body_counts_as_it_goes_on_where_the_prompt_ends(prompt, completion):
    solution = read_solution(prompt, "triple", completion)
    assert solution.route == "body" and run(solution, "triple", 4) == 12


@pytest.mark.parametrize(
    ("completion", "route"),
    [
        ("def triple(n):\n    return 3 * n\n", "text"),  # the function again
        ("triple = lambda n: 3 * n\n", "text"),
        ("return 3 * n\n", "body"),  # which parses after the prompt, and belongs to no function
        ("    return 3 * n\n\nThis multiplies n.\n", "body"),
    ],
)
def test_what_does_not_go_on_where_the_prompt_ends_is_read_in_the_other_ways(completion, route):
    solution = read_solution(TRIPLE, "triple", completion)
    assert solution.route == route and run(solution, "triple", 4) == 12


def test_a_method_without_its_body_is_no_completed_class():
    head = 'class A:\n    def triple(self, n):\n        """Three times n."""\n'
    assert run(read_solution(head, "A", "        return 3 * n\n"), "A").triple(4) == 12


DOCUMENTED = 'def f(x):\n    """Double x.\n\n```python\nf(2)\n```\n    """\n    return 2 * x\n'


@pytest.mark.parametrize(
    ("answer", "route"),
    [
        (f"Sure:\n\n```python\n{DOCUMENTED}```\n\nIt doubles.\n\n```python\nf(3)\n```", "fence"),
        (DOCUMENTED, "text"),
        (f"Sure:\n\n{DOCUMENTED}\nIt doubles x.", "text"),
        ("def f(x):\n    return 2 * x\n\nSo:\n\n```python\nf(2)\n```\n", "text"),
        ("<code>\ndef f(x):\n    return 2 * x\n</code>\n", "fence"),
        ("```console\n$ python\n```\n\n```python\n>>> def f(x):\n...     return 2 * x\n>>> f(2)\n4\n```", "fence"),
    ],
)
def test_code_is_found_around_fences_that_stand_in_it_or_beside_it(answer, route):
    solution = read_solution("Double x.", "f", answer)
    assert solution.route == route and run(solution, "f", 4) == 8
    assert extract_code(answer, "f") is not None


def test_code_in_a_block_that_does_not_parse_is_not_looked_for_line_by_line():
    assert extract_code("```python\ndef test_a():\n    assert f(1) == 1\n\ndef test_b(\n```\nDone.") is None
