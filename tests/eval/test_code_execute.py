import json

import pytest

from eval.codetasks.execute import Sandbox, verdicts
from eval.codetasks.tasks import CodeTask

DOUBLE = CodeTask("double", "Double it.", "f", "assert f(2) == 4\nassert f([1]) == [1, 1]\nassert f(0) == 0\n")
GOLD = "def f(x):\n    return x * 2\n"


@pytest.fixture(scope="module")
def sandbox():
    return Sandbox()


def judge(sandbox, task, *codes, limit=5.0):
    return verdicts([(task, code, limit) for code in codes], sandbox.run)


def test_every_assertion_is_graded_not_only_the_first(sandbox):
    right, wrong = judge(sandbox, DOUBLE, GOLD, "def f(x):\n    return 4 if x == 2 else 0\n")
    assert (right.status, right.passed, right.total, right.judged) == ("pass", 3, 3, "apart")
    assert (wrong.status, wrong.passed, wrong.total) == ("wrong", 2, 3)
    assert wrong.detail == "assert f([1]) == [1, 1]"


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
def test_an_answer_cannot_decide_its_own_verdict(sandbox, attack):
    (verdict,) = judge(sandbox, DOUBLE, ATTACKS[attack] + "\n")
    assert verdict.status in ("wrong", "exception")


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
def test_each_failure_has_its_own_class(sandbox, code, status):
    assert judge(sandbox, DOUBLE, code, limit=1.5)[0].status == status


VALUES = """
from collections import Counter, OrderedDict, deque
assert f({1: (2, {3})}, key=[None]) == ({1: (2, {3})}, [None])
assert f(1 << 70, key=2j) == (1 << 70, 2j)
assert f(b"x", key=range(3)) == (b"x", range(3))
assert f(Counter("aab"), key=deque([1])) == ({"a": 2, "b": 1}, deque([1]))
assert f(frozenset(), key=OrderedDict(a=1.5)) == (frozenset(), OrderedDict(a=1.5))
assert f(float("inf"), key=int) == (float("inf"), int)
assert f(True, key="a\\n'\\u2028") == (True, "a\\n'\\u2028") and type(f(True, key=1)[0]) is bool
"""


def test_plain_values_of_every_kind_come_through_unchanged(sandbox):
    task = CodeTask("values", "", "f", VALUES)
    (verdict,) = judge(sandbox, task, "def f(x, key):\n    return x, key\n")
    assert (verdict.status, verdict.passed, verdict.judged) == ("pass", 7, "apart")


def test_tests_that_draw_inputs_loop_call_on_results_expect_errors_and_take_iterators_are_judged_apart(sandbox):
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
    right, wrong = judge(sandbox, CodeTask("calls", "", "f", tests), code, off)
    assert (right.status, right.total, right.judged) == ("pass", 21, "apart")
    assert wrong.status != "pass"


def test_objects_of_the_answers_own_class_are_judged_beside_it_and_an_answer_that_reaches_for_the_verdict_is_not_run(
    sandbox,
):
    setup, tests = "node = Node(3)\n", "assert f(node) == 3\nassert f(Node(4)) == 4\n"
    code = "class Node:\n    def __init__(self, v):\n        self.v = v\ndef f(n):\n    return n.v\n"
    task = CodeTask("nodes", "", "f", tests, setup, gold=code)
    yes = code.replace("return n.v", "return Y()") + "class Y:\n    def __eq__(self, other):\n        return True\n"
    right, wrong, attack = judge(sandbox, task, code, code.replace("n.v", "3"), yes)
    assert (right.status, right.judged) == ("pass", "beside")
    assert (wrong.status, wrong.judged) == ("wrong", "beside")
    assert attack.status == "denied" and "__eq__" in attack.detail


def test_a_test_without_an_assertion_proves_nothing(sandbox):
    assert judge(sandbox, CodeTask("none", "", "f", "f(1)\n"), GOLD)[0].status == "wrong"


def test_what_timed_out_among_others_is_tried_once_more_alone(monkeypatch):
    import eval.codetasks.execute as module

    calls = []

    def run_jobs(jobs, *, processes, allow_unsafe_exec, what):
        calls.append((processes, len(jobs)))
        late = "timeout" if len(jobs) > 1 else "finished"
        return [module.Outcome(job.id, late if "slow" in job.program else "finished", [], [], "", 1.0) for job in jobs]

    monkeypatch.setattr(module, "run_jobs", run_jobs)
    jobs = [module.Job(program, program) for program in ("quick", "slow", "quick")]
    sandbox = Sandbox(processes=2)
    assert [outcome.outcome for outcome in sandbox.run(jobs, "test")] == ["finished"] * 3
    assert calls == [(2, 2), (1, 1)]
    sandbox.run(jobs, "test")
    assert calls[2:] == [(2, 0)]


def test_a_result_that_is_no_json_equals_nothing():
    from eval.codetasks.execute import _result

    assert _result("") == _result("{broken") == _result("[" * 100_000) == {"opaque": "nothing readable"}
    assert _result("noise\n" + json.dumps([1])) == [1]
