import random

import pytest

from eval.code import verdict as module
from eval.code.tasks import CodeTask
from eval.code.verdict import job_of, run_tests
from sandbox.run import Outcome

DOUBLE = CodeTask("double", "Double it.", "f", "assert f(2) == 4\nassert f([1]) == [1, 1]\nassert f(0) == 0\n")
GOLD = "def f(x):\n    return x * 2\n"


def verdicts(task, *codes, limit=5.0):
    return run_tests([job_of(task, code, limit) for code in codes])


def test_every_assertion_is_graded_not_only_the_first():
    right, wrong = verdicts(DOUBLE, GOLD, "def f(x):\n    return 4 if x == 2 else 0\n")
    assert (right.status, right.passed, right.total) == ("pass", 3, 3)
    assert (wrong.status, wrong.passed, wrong.total) == ("wrong", 2, 3)
    assert wrong.detail == "assert f([1]) == [1, 1]"


SHOWN = [
    ("assert f(1) == 2", "x + 2", ("f(1)", "2", "3")),
    ("assert 2 == f(1)", "x + 2", ("f(1)", "2", "3")),  # whichever side the call is on
    ("assert set(f(1)) == {1}", "[x, 2]", ("set(f(1))", "{1}", "{1, 2}")),
    ("assert f(1) == 2", "None", ("f(1)", "2", "")),
    ("assert f(1) == 2", "[0] * 999", ("f(1)", "2", "too long to show")),
    ("assert f(1)", "0", ("", "", "")),
    ("assert f(1) == 1 and f(2) == 3", "x", ("", "", "")),
    ("assert f(1) == 1\nx = f(2) + 1\nassert x", "x if x == 1 else None", ("", "", "")),  # not the values of before
    ("assert f(1) == 2\nassert f(3) == 4", "x", ("f(1)", "2", "1")),  # the first failure's
]


@pytest.mark.parametrize(("tests", "result", "shown"), SHOWN)
def test_the_first_failure_shows_the_call_and_what_it_gave(tests, result, shown):
    (verdict,) = verdicts(CodeTask("shown", "", "f", tests + "\n"), f"def f(x):\n    return {result}\n")
    assert verdict.status != "pass" and (verdict.asked, verdict.expected, verdict.got) == shown


def test_what_is_shown_is_evaluated_once_and_never_represented_by_the_answer():
    code = """
class Loud:
    def __repr__(self):
        raise SystemExit
calls = []
def f(x):
    calls.append(x)
    return [len(calls), Loud()] if x else len(calls)
"""
    (verdict,) = verdicts(CodeTask("once", "", "f", "assert f(1) == 0\nassert f(0) == 2\n"), code)
    assert (verdict.status, verdict.passed, verdict.total, verdict.got) == ("wrong", 1, 2, "an object")


ATTACKS = {
    "equal to everything": "class Y(int):\n    __eq__ = lambda *a: True\n    __hash__ = None\ndef f(x): return Y(1)",
    "an object that says yes": "class Y:\n    __eq__ = lambda *a: True\ndef f(x): return Y()",
    "leaves with zero": "import os\ndef f(x): os._exit(0)",
    "sys.exit": "import sys\ndef f(x): sys.exit(0)",
    "looks for the expected value in the frames": """import sys
def f(x):
    frame, words = sys._getframe(), []
    while frame:
        words += [repr(v) for v in list(frame.f_locals.values()) + list(frame.f_globals.values())]
        frame = frame.f_back
    return 4 if any("assert f(2) == 4" in word for word in words) else None""",
    "looks for the tests in memory": """import gc
def f(x):
    return 4 if any(isinstance(o, str) and "assert " + "f(2)" in o for o in gc.get_objects()) else None""",
    "replaces the report": """import builtins, json
json.dumps = lambda *a, **k: '4'
builtins.print = lambda *a, **k: None
def f(x): return 4""",
    "prints a result that is code": "def f(x):\n    print(\"__import__('os')._exit(0)\")\n    raise SystemExit",
    "writes a judge's report": 'import json\ndef f(x):\n    print(json.dumps({"asks": [], "passed": 3, "total": 3}))',
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_answer_cannot_decide_its_own_verdict(attack):
    (verdict,) = verdicts(DOUBLE, ATTACKS[attack] + "\n")
    assert verdict.status != "pass"


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("def f(x):\n    return undefined\n", "exception"),
        ("raise ValueError('early')\n", "exception"),
        ("def f(x):\n    while True:\n        pass\n", "timeout"),
        ("def f(x):\n    return bytearray(1 << 33)\n", "memory"),
        ("def f(x):\n    open('/etc/tritune', 'w')\n", "denied"),
        ("def f(x):\n    return x *\n", "syntax"),
    ],
)
def test_each_failure_has_its_own_class(code, status):
    assert verdicts(DOUBLE, code, limit=1.5)[0].status == status


VALUES = """
from collections import Counter, OrderedDict, deque
from datetime import date, datetime
from decimal import Decimal
from fractions import Fraction
assert f({1: (2, {3})}, key=[None]) == ({1: (2, {3})}, [None])
assert f(1 << 70, key=2j) == (1 << 70, 2j)
assert f(b"x", key=range(3)) == (b"x", range(3))
assert f(Counter("aab"), key=deque([1])) == ({"a": 2, "b": 1}, deque([1]))
assert f(frozenset(), key=OrderedDict(a=1.5)) == (frozenset(), OrderedDict(a=1.5))
assert f(Fraction(1, 3), key=Decimal("0.10")) == (Fraction(1, 3), Decimal("0.1"))
assert f(date(2024, 2, 29), key=datetime(2024, 1, 1, 12)) == (date(2024, 2, 29), datetime(2024, 1, 1, 12))
assert f([Counter("a")], key=complex("-0.5+infj")) == ([Counter("a")], complex("-0.5+infj"))
assert f(float("inf"), key=int) == (float("inf"), int)
assert f(True, key="a\\n'\\u2028") == (True, "a\\n'\\u2028") and type(f(True, key=1)[0]) is bool
"""


def test_plain_values_of_every_kind_come_through_unchanged():
    task = CodeTask("values", "", "f", VALUES)
    (verdict,) = verdicts(task, "def f(x, key):\n    return x, key\n")
    assert (verdict.status, verdict.passed) == ("pass", 10)


def test_tests_that_draw_inputs_loop_call_on_results_expect_errors_and_take_iterators_are_judged_apart():
    tests = """
import random
def check(candidate):
    for _ in range(20):
        x = random.randrange(1, 99)
        value = candidate(x)
        assert candidate(value) == x
    try:
        candidate(-1)
        raise RuntimeError("let through")
    except ValueError:
        pass
    assert list(candidate([1, 2])) == [-1, -2]
check(f)
"""
    code = """def f(x):
    if isinstance(x, list):
        return (-v for v in x)
    if x == -1:
        raise ValueError(x)
    return -x
"""
    off = code.replace("return -x", "return -x if x < 90 else 0")
    right, wrong = verdicts(CodeTask("calls", "", "f", tests), code, off)
    assert (right.status, right.total) == ("pass", 21)
    assert wrong.status != "pass"


CLASS = "class Node:\n    def __init__(self, v):\n        self.v, self.next = v, None\n"
GOLD_OF_NODES = CLASS + "def f(n):\n    return n.v + (n.next.v if n.next else 0)\n"
NODES = CodeTask(
    "nodes",
    "Sum.",
    "f",
    "assert f(node) == 7\nassert f(Node(5)) == 5\nassert [f(n) for n in [Node(1), node]] == [1, 7]\n",
    setup="node = Node(3)\nnode.next = Node(4)\n",
    gold=GOLD_OF_NODES,
)


def test_objects_of_the_answers_own_class_stay_with_it_and_cannot_say_yes():
    wrong = GOLD_OF_NODES.replace("n.v +", "3 +")
    yes = CLASS + "class Y(int):\n    def __eq__(self, other):\n        return True\ndef f(n):\n    return Y()\n"
    found = verdicts(NODES, GOLD_OF_NODES, wrong, yes)
    assert [(verdict.status, verdict.passed) for verdict in found] == [("pass", 3), ("wrong", 1), ("wrong", 0)]


@pytest.mark.parametrize("of", ["gold", "head"])
def test_a_class_is_tested_by_its_methods_and_what_a_function_returns_is_not_asked_by_them(of):
    stack = "class Stack:\n    def __init__(self):\n        self.items = []\n"
    methods = (
        "    def push(self, x):\n        self.items.append(x)\n    def has(self, x):\n        return x in self.items\n"
    )
    tests = "s = Stack()\ns.push(1)\nassert s.has(1)\nassert not s.has(2) and s.items == [1]\n"
    told = {"gold": stack + methods} if of == "gold" else {"prompt": stack}
    task = CodeTask(**{"task_id": "stack", "prompt": "A stack.", "entry_point": "Stack", "tests": tests} | told)
    yes = stack + methods.replace("x in self.items", "True")
    assert [v.status for v in verdicts(task, stack + methods, yes)] == ["pass", "wrong"]
    prefix = CodeTask("prefix", "", "f", "assert f().startswith('a')\n")
    yes = "class Y:\n    def startswith(self, x):\n        return True\ndef f():\n    return Y()\n"
    assert [v.status for v in verdicts(prefix, "def f(): return 'ab'\n", yes)] == ["pass", "exception"]


def test_objects_of_a_class_that_stands_in_the_prompt_can_be_handed_over():
    head = 'class Node:\n    def __init__(self, v):\n        self.v = v\n\ndef f(n):\n    """Twice."""\n'
    task = CodeTask("head", head, "f", "assert f(Node(2)).v == 4\nassert f(Node(0)).v == 0\n")
    codes = [head + f"    return Node(n.v {what})\n" for what in ("* 2", "+ 2")]
    assert [(v.status, v.passed) for v in verdicts(task, *codes)] == [("pass", 2), ("wrong", 1)]


@pytest.mark.parametrize("result", ["numpy.int64(4)", "numpy.float64(4)", "numpy.array([1, 4])[1]"])
def test_a_scalar_of_numpy_is_a_number(result):
    task = CodeTask("scalar", "", "f", "assert f() == 4 and type(f()) in (int, float)\n")
    assert verdicts(task, f"import numpy\ndef f():\n    return {result}\n")[0].status == "pass"


def test_arguments_that_the_answer_changes_are_changed():
    task = CodeTask("sort", "", "f", "x = [2, 1]\nassert f(x) is None\nassert x == [1, 2]\n")
    assert [v.status for v in verdicts(task, "def f(x): x.sort()\n", "def f(x): sorted(x)\n")] == ["pass", "wrong"]


def test_what_an_assertion_expects_to_be_raised_is_no_failure_of_it():
    tests = """
try:
    f(0)
except ZeroDivisionError:
    assert f(1) == 1
else:
    raise AssertionError("let through")
try:
    assert f(2) == 1
except AssertionError:
    pass
"""
    right, wrong = verdicts(CodeTask("raises", "", "f", tests), "def f(x): return 1 / x\n", "def f(x): return 1\n")
    assert (right.status, right.passed, right.total) == ("pass", 1, 1)
    assert (wrong.status, wrong.detail) == ("wrong", "let through")


def test_helpers_that_stand_in_the_prompt_are_the_tests_own_and_not_the_answers():
    head = 'def helper(x):\n    return x + 1\n\ndef f(x):\n    """Add one."""\n'
    task = CodeTask("helper", head, "f", "assert f(2) == helper(2)\n", gold=head + "    return helper(x)\n")
    lying = "def helper(x): return 0\ndef f(x): return 0\n"
    assert [v.status for v in verdicts(task, task.gold, lying)] == ["pass", "wrong"]


def test_tests_that_draw_inputs_draw_the_same_ones_each_time():
    drawn = random.Random(0).getrandbits(64)
    task = CodeTask("drawn", "", "f", f"assert f(random.getrandbits(64)) == {drawn}\n")
    assert verdicts(task, "def f(x): return x\n")[0].status == "pass"


def test_modules_that_the_tests_use_and_only_the_gold_imports_are_there():
    task = CodeTask("sizes", "", "f", "assert f(1) == sys.maxsize\n", gold="import sys\ndef f(x): return sys.maxsize\n")
    assert [v.status for v in verdicts(task, task.gold, "sys = f = print\n")] == ["pass", "wrong"]


def test_a_test_without_an_assertion_proves_nothing():
    assert verdicts(CodeTask("none", "", "f", "f(1)\n"), GOLD)[0].status == "wrong"


def test_what_timed_out_among_others_is_tried_once_more_alone(monkeypatch):
    calls = []

    def run_jobs(jobs, *, processes, allow_unsafe_exec, what):
        calls.append((processes, len(jobs)))
        late = "timeout" if len(jobs) > 1 else "finished"
        return [
            Outcome(job.id, late if "slow" in job.program else "finished", ['[1, 1, "", "", ""]'], [None], "", 1.0)
            for job in jobs
        ]

    monkeypatch.setattr(module, "run_jobs", run_jobs)
    jobs = [job_of(DOUBLE, f"{name} = 1", 5.0) for name in ("quick", "slow")]
    assert [verdict.status for verdict in run_tests(jobs, processes=2)] == ["pass", "pass"]
    assert calls == [(2, 2), (1, 1)]
