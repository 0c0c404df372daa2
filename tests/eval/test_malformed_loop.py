from __future__ import annotations

import textwrap

import pytest

from eval.malformed_loop import has_endless_loop, has_single_pass_loop


def function(body: str) -> str:
    return "def f(x, n):\n" + textwrap.indent(body, "    ") + "\n"


@pytest.mark.parametrize(
    "body",
    [
        "while True:\n    n += 1",
        "while n > 0:\n    x.append(1)",
        "while len(x) > n:\n    for y in x:\n        break",  # the inner loop's break
        "i = 0\nwhile i < len(x):\n    if x[i]:\n        n += 1",
    ],
)
def test_a_loop_without_a_way_out_is_seen(body):
    assert has_endless_loop(function(body)) and not has_single_pass_loop(function(body))


@pytest.mark.parametrize(
    "body",
    [
        "while n > 0:\n    n -= 1",
        "while x:\n    x.pop()",
        "while x:\n    change(x)",  # may change it
        "while x[0]:\n    x[0] -= 1",
        "while len(x) < n:\n    x += [1]",
        "while True:\n    if n:\n        break",
        "while True:\n    for y in x:\n        pass\n    else:\n        break",
        "while True:\n    try:\n        n()\n    except KeyError:\n        break",
        "while True:\n    return n",
        "while True:\n    yield n",
        "while n:\n    raise KeyError",
        "while n.running:\n    pass",  # may change by itself
        "while next(x):\n    pass",
        "while n:\n    def g():\n        nonlocal n\n        n = 0\n    g()",
        "while False:\n    pass",
        "for y in x:\n    pass",
        "x = (",
    ],
)
def test_a_loop_that_may_end_is_not_called_endless(body):
    assert not has_endless_loop(function(body))


@pytest.mark.parametrize(
    "body",
    [
        "for y in x:\n    n += y\n    return n",
        "for y in x:\n    if y:\n        return True\n    else:\n        return False",
        "while n > 0:\n    n -= 1\n    break",
        "for y in x:\n    with y:\n        return y\n    n += 1",
    ],
)
def test_a_loop_that_always_ends_in_its_first_pass_is_seen(body):
    assert has_single_pass_loop(function(body)) and not has_endless_loop(function(body))


@pytest.mark.parametrize(
    "body",
    [
        "for y in x:\n    return y",  # the first item, which may be meant
        "while True:\n    n += 1\n    return n",
        "for y in x:\n    if y:\n        return True\nreturn False",
        "for y in x:\n    if not y:\n        continue\n    return y",
        "for y in x:\n    for z in y:\n        n += z",
        "for y in x:\n    def g():\n        return y\n    n += g()",
        "x = (",
    ],
)
def test_a_loop_that_may_go_on_is_not_called_malformed(body):
    assert not has_single_pass_loop(function(body))
