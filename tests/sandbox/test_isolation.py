"""Tests that run in another process than the program: what crosses between the two, and what does not."""

import sys

import pytest

from sandbox.run import Job, run_jobs

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the layers are Linux's")

HOLDS = {  # program -> tests of `f` that pass, as they would in one process
    "plain values": (
        "def f(*a, **k): return a, k",
        "assert f(1, 2.5, x=[None, {1: b'a'}]) == ((1, 2.5), {'x': [None, {1: b'a'}]})",
    ),
    "types are kept": (
        "def f(x): return x",
        "for x in (True, 1, (1,), [1], {1}, frozenset({1}), 1j, 1 << 5000, 'a\\ud800', b''):\n"
        "    assert f(x) == x and type(f(x)) is type(x)",
    ),
    "not a number": ("def f(): return float('nan'), float('inf')", "a, b = f()\nassert a != a and b == float('inf')"),
    "an argument that is changed": (
        "def f(x, y): x.append(1); y['a'] = 1",
        "x, y = [], {}\nf(x, y)\nassert x == [1] and y == {'a': 1}",
    ),
    "a generator": ("def f(n): yield from range(n)", "assert list(f(3)) == [0, 1, 2] and next(f(1)) == 0"),
    "a callback": ("def f(g, x): return [g(y) for y in x]", "assert f(lambda y: y * 2, [1, 2]) == [2, 4]"),
    "a closure": ("def f(x): return lambda y: x + y", "assert f(1)(2) == 3"),
    "a class": (
        "class f:\n def __init__(self, x): self.x = x\n def twice(self): return self.x * 2\n"
        " def __len__(self): return 7",
        "y = f(4)\ny.x = 5\nassert y.twice() == 10 and f(4).x == 4 and len(f(4)) == 7 and f(4)",
    ),
    "attributes named as the protocol's own fields": (
        "class f:\n def __init__(self): self._number, self._peer, self._is_attribute = 5, 'p', True",
        "y = f()\nassert (y._number, y._peer, y._is_attribute) == (5, 'p', True)",
    ),
    "the truth and the parts of an object": (
        "import re\ndef f(x): return re.match('a(b)', x)",
        "assert f('ab') and not f('b') and f('ab')[1] == 'b' and f('ab').pos == 0",
    ),
    "an object that is false": (
        "class F:\n def __bool__(self): return False\ndef f(): return F()",
        "assert not f()",
    ),
    "an exception": (
        "def f(): return [][1]",
        "try: f()\nexcept IndexError as e: assert str(e) == 'list index out of range'\nelse: assert 0",
    ),
    "the program's own exception": (
        "class E(ValueError): pass\ndef f(): raise E('no')",
        "try: f()\nexcept ValueError: pass\nelse: assert 0",
    ),
    "a counter": ("import collections\ndef f(x): return collections.Counter(x)", "assert f('aab') == {'a': 2, 'b': 1}"),
}
FAILS = {  # program, tests, and the start of the deciding exception
    "wrong": ("def f(x): return x", "assert f(1) == 2", "AssertionError"),
    "a name that is not there": ("x = 1", "f(1)", "KeyError"),
    "an object is equal to itself only": (
        "class f:\n def __eq__(self, other): return True",
        "assert f() == f()",
        "AssertionError",
    ),
    "the frames of a callback": ("def f(g): return g.__globals__", "f(lambda: 1)", "AttributeError"),
    "an attribute of a callback": (
        "def f(g): return g.gi_frame",
        "f(lambda: 1)",
        "the other process made a forbidden request",
    ),
    "a method that says yes": (
        "class Y:\n def startswith(self, x): return True\ndef f(): return Y()",
        "assert f().startswith('a')",
        "TypeError: a method",
    ),
    "an object of the tests": ("def f(x): return 1", "class A: pass\nf(A())", "TypeError"),
    "an answer that is too long": ("def f(): return 'x' * (20 << 20)", "f()", "the other process is gone"),
    "an exception whose class is none": (
        'import os\nfor fd in range(3, 64):\n try: os.write(fd, b\'["raised", "exec", "1/0", null]\\n\')\n'
        " except OSError: pass",
        "f()",
        "sandbox.peer.RemoteError: 1/0",
    ),
    "a call that does not end": (
        "def f(): import os; os._exit(0)",
        "try: f()\nexcept Exception: pass",
        "the other process is gone",
    ),
}


def outcomes(cases: dict) -> dict:
    jobs = [
        Job(name, case[0], tests={"source": case[1], "names": ["f"], "methods": name != "a method that says yes"})
        for name, case in cases.items()
    ]
    return {outcome.id: outcome for outcome in run_jobs(jobs)}


def test_tests_see_of_the_program_what_they_would_see_in_its_process():
    assert {name: one.detail for name, one in outcomes(HOLDS).items() if one.outcome != "finished"} == {}


def test_what_must_not_cross_does_not():
    found = outcomes(FAILS)
    assert {name: one.detail for name, one in found.items() if not one.detail.startswith(FAILS[name][2])} == {}
    assert all(one.outcome in ("exception", "died") for one in found.values())


def test_a_program_that_does_not_parse_is_told_apart():
    assert outcomes({"a": ("def f(:", "f()")})["a"].outcome == "syntax"


def test_a_program_runs_against_itself_with_another_patch_and_shares_nothing_with_it(tmp_path):
    (tmp_path / "here.py").write_text("VALUE = 0\n")
    program = """
import os
import here
def value(): return here.VALUE
def opened():
    found = 0
    for handle in range(3, 64):
        try: found += bool(os.fstat(handle))
        except OSError: pass
    return found
"""
    tests = """
assert (value(), against["value"]()) == (1, 2)
assert opened() == against["opened"]() == 2, (opened(), against["opened"]())
"""
    one, two = ({"module": "here", "source": f"VALUE = {number}\n"} for number in (1, 2))
    lent = {"source": tests, "names": ["value", "opened"], "against": two}
    examples = [{"source": "value() + 40\n"}, {"source": "against['value']()\n"}]
    (outcome,) = run_jobs([Job("a", program, root=str(tmp_path), patch=one, tests=lent, examples=examples)])
    assert (outcome.outcome, outcome.got, outcome.detail) == ("finished", ["41\n", "2\n"], "")
