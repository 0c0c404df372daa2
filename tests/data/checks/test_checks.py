import pytest

from common.console import UserError
from data.checks import check as checks
from data.checks import jobs_of, judge, refutes, run_in_sandbox, unit_test_check, unit_test_jobs
from data.checks.check import (
    compare_calls,
    compare_examples,
    doctest_check,
    doctest_job,
    patched_module,
    same,
    suite_base,
    suite_check,
    suite_jobs,
    values_check,
    values_job,
)
from data.corpus import build_corpus
from data.corpus.functions import functions_of

MODULE = '''"""A module."""


def double(x):
    """Twice.

    >>> double(2)
    4
    >>> double(None)
    Traceback (most recent call last):
    TypeError: unsupported operand type(s) for *: 'NoneType' and 'int'
    """
    return x * 2


class Box:
    @property
    def size(self):
        """Three.

        >>> Box().size
        3
        """
        three = """
            kept"""
        return len("abc")


'''  # fmt: skip
MODULE += "".join(f"CONSTANT_{i} = {i}\n" for i in range(12))
TESTS = """from boxes import Box, double
import pytest


@pytest.mark.parametrize("x", [1, "a"])
def test_double(x):
    assert double(x) == x + x


def test_box():
    assert Box().size == 3
"""


@pytest.fixture
def corpus(tmp_path):
    (tmp_path / "boxes.py").write_text(MODULE)
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_boxes.py").write_text(TESTS)
    return build_corpus(str(tmp_path))


@pytest.fixture
def functions(corpus):
    return {one.qualname: one for one in functions_of(corpus.files[0], min_lines=1)}


def example(want, source="f()\n", raises=None, **options):
    return {"source": source, "want": want, "options": options, "raises": raises}


def test_a_patch_with_the_function_itself_is_the_module_byte_for_byte(corpus, functions):
    assert set(functions) == {"double", "Box.size"}
    for function in functions.values():
        check = doctest_check(corpus.source, function)
        assert patched_module(check, function.source) == MODULE
    changed = patched_module(check, function.source.replace('len("abc")', "4"))
    assert changed == MODULE.replace('        return len("abc")', "        return 4")


def test_a_module_that_has_changed_since_is_refused(corpus, functions):
    check = {**doctest_check(corpus.source, functions["double"]), "sha256": "0" * 64}
    with pytest.raises(UserError, match="has changed since"):
        doctest_job(check, "def double(x): return 0")


def test_the_sandbox_is_never_told_what_is_wanted(corpus, functions):
    check = doctest_check(corpus.source, functions["Box.size"])
    assert check["examples"][0]["want"] == "3\n"
    assert doctest_job(check, functions["Box.size"].source)["examples"] == [{"source": "Box().size\n"}]


def test_right_code_passes_and_wrong_code_fails_in_the_sandbox(corpus, functions):
    check = doctest_check(corpus.source, functions["double"])
    test = "from boxes import double\n\n\ndef test_double():\n    assert double(3) == 6\n"
    mutants = [functions["double"].source.replace("* 2", "* 3")]
    unit = unit_test_check(corpus.source, functions["double"], mutants)
    empty = "def test_double():\n    pass\n"
    quits = "import sys\n\n\ndef test_double():\n    sys.exit(0)\n"
    cases = [
        (check, [doctest_job(check, functions["double"].source)], True),
        (check, [doctest_job(check, mutants[0])], False),
        (check, [doctest_job(check, "def double(x):\n    return 4")], False),  # does not raise as wanted
        (check, [doctest_job(check, "def double(x:\n")], False),
        (unit, unit_test_jobs(unit, test), True),
        (unit, unit_test_jobs(unit, empty), False),  # passes on the mutant too
        (unit, unit_test_jobs(unit, test.replace("6", "7")), False),  # fails on the right code
        (unit, unit_test_jobs(unit, quits), False),
    ]
    results = iter(run_in_sandbox([job for _, jobs, _ in cases for job in jobs]))
    verdicts = [judge(check, [next(results) for _ in jobs]) for check, jobs, _ in cases]
    assert verdicts == [wanted for _, _, wanted in cases]


@pytest.mark.parametrize("answer", ["", "print(double(3))", "def helper():\n    pass", "def test_x(:"])
def test_an_answer_without_a_test_function_proves_nothing(corpus, functions, answer):
    unit = unit_test_check(corpus.source, functions["double"], [functions["double"].source])
    assert unit_test_jobs(unit, "def test_x():\n    pass") != []
    jobs = unit_test_jobs(unit, answer)
    assert jobs == [] and judge(unit, jobs) is False


def test_a_mutant_counts_as_killed_only_when_the_test_failed_on_it():
    check = {"kind": "unit_test"}
    for outcome, killed in (("exception", True), ("timeout", True), ("denied", False), ("died", False)):
        assert judge(check, [{"outcome": "finished"}, {"outcome": outcome}]) is killed
    assert judge(check, [{"outcome": "exception"}, {"outcome": "exception"}]) is False
    with pytest.raises(ValueError, match="not executed"):
        judge({"kind": "structure"}, [])


@pytest.mark.parametrize(
    ("wanted", "got", "exception", "holds"),
    [
        (example("4\n"), "4\n", None, True),
        (example("4\n"), "5\n", None, False),
        (example("4\n"), "4\n", "ValueError: late", False),
        (example(""), "", None, True),
        (example(""), "noise\n", None, False),
        (example("1 2\n"), "1   2\n", None, False),
        (example("1 2\n", NORMALIZE_WHITESPACE=True), "1   2\n", None, True),
        (example("a...z\n", ELLIPSIS=True), "abcz\n", None, True),
        (example("a...z\n", ELLIPSIS=False), "abcz\n", None, False),
        (example("", raises="ValueError: no\n"), "", "ValueError: no", True),
        (example("", raises="ValueError: no\n"), "", "ValueError: other", False),
        (example("", raises="ValueError: no\n"), "", None, False),
        (example("", raises="a.ValueError: no\n", IGNORE_EXCEPTION_DETAIL=True), "", "ValueError: other", True),
        (example("", raises="ValueError: no\n", IGNORE_EXCEPTION_DETAIL=True), "", "KeyError: no", False),
    ],
)
def test_examples_are_compared_by_the_rules_of_doctest(wanted, got, exception, holds):
    assert compare_examples([wanted], [got], [exception]) is holds


def test_no_example_or_only_skipped_ones_prove_nothing():
    assert compare_examples([], [], []) is False
    assert compare_examples([example("4\n", SKIP=True)], ["4\n"], [None]) is False
    assert compare_examples([example("4\n"), example("5\n")], ["4\n"], [None]) is False


def asking(x):
    examples = [{"source": "print(x, time.time_ns())\n"}]
    limits = {"seconds": 10, "megabytes": 1024}
    return {"program": f"import time\nx = {x}", "root": None, "patch": None, "examples": examples, **limits}


def test_equal_jobs_are_run_once_and_results_stay_in_order():
    results = run_in_sandbox([asking(x) for x in (1, 2, 1, 3)])
    said = [result["got"][0].split() for result in results]
    assert [x for x, _ in said] == ["1", "2", "1", "3"]
    assert said[0] == said[2] and len({moment for _, moment in said}) == 3


def test_one_sandbox_serves_all_calls_until_it_breaks():
    run_in_sandbox([asking(1)])
    first, _ = checks._sandbox(None)
    run_in_sandbox([asking(1)])
    assert checks._sandbox(None)[0] is first and first.poll() is None
    with pytest.raises(RuntimeError, match=r"status 2: tritune: stdin:.*not a job"):
        run_in_sandbox([asking(1), {"unknown": 1}])
    assert run_in_sandbox([asking(4)])[0]["got"][0].startswith("4")
    assert checks._sandbox(None)[0] is not first


CALLS = [
    {"arguments": "([3], {})", "want": "(False, 6, [3], {})\n", "raises": None},
    {"arguments": "([0.1], {})", "want": "(False, 0.2, [0.1], {})\n", "raises": None},
    {"arguments": "([None], {})", "want": "", "raises": "TypeError"},
]
DOUBLE_TESTS = ["tests/test_boxes.py::test_double[1]", "tests/test_boxes.py::test_double[a]"]
YES = "class Yes:\n    def __%s__(self, other):\n        return True\n\n\ndef double(x):\n    return Yes()\n"


def test_the_sandbox_is_not_told_what_a_call_must_give(corpus, functions):
    check = values_check(corpus.source, functions["double"], [{**CALLS[0], "want": "(False, 987654321, [3], {})\n"}])
    job = values_job(check, functions["double"].source)
    assert "987654321" not in str(job) and "([3], {})" in str(job)


def test_values_and_tests_pass_on_right_code_and_fail_on_wrong_and_on_cheating_code(corpus, functions):
    function = functions["double"]
    values = values_check(corpus.source, function, CALLS)
    tests = suite_check(corpus.source, function, DOUBLE_TESTS)
    right, other = function.source, "def double(x):\n    y = x\n    return y + x"
    wrong = "def double(x):\n    return x * 3"
    skips = "def double(x):\n    import importlib\n    importlib.import_module('py' + 'test').skip('no')"
    patches = (
        "def double(x):\n    import sys\n    python = sys.modules['_py' + 'test.python']\n"
        "    python.Function.runtest = lambda self: None\n    return x + x"
    )
    leaves = "def double(x):\n    import os\n    os._exit(0)"
    cases = [
        (values, right, True),
        (values, other, True),
        (values, wrong, False),
        (values, YES % "eq", False),
        (values, leaves, False),
        (values, "def double(x):\n    print('noise')\n    return x * 2", False),
        (values, "def double(x):\n    return x and x * 2", False),  # does not raise as wanted
        (tests, right, True),
        (tests, wrong, False),
        (tests, skips, False),
        (tests, patches, False),
        (tests, leaves, False),
        (tests, "import sys\nsys.exit(0)\n\n\ndef double(x):\n    return x * 2", False),
        ({**tests, "tests": [*DOUBLE_TESTS, "tests/test_boxes.py::test_gone"]}, right, False),
    ]
    asked = [(check, jobs_of(check, answer)) for check, answer, _ in cases]
    results = iter(run_in_sandbox([job for _, jobs in asked for job in jobs]))
    found = [(check, [next(results) for _ in jobs]) for check, jobs in asked]
    assert [judge(check, outcomes) for check, outcomes in found] == [wanted for *_, wanted in cases]
    assert [refutes(*found[2]), refutes(*found[8])] == [True, True]
    assert [refutes(*found[0]), refutes(*found[4])] == [False, False]  # right; died


def test_an_answer_that_could_decide_its_own_tests_is_not_put_to_them(corpus, functions):
    check = suite_check(corpus.source, functions["double"], DOUBLE_TESTS)
    assert len(suite_jobs(check, functions["double"].source)) == 1
    for answer in (YES % "eq", "from unittest.mock import ANY\n", "def double(x):\n    import gc\n"):
        assert suite_jobs(check, answer) == [] and judge(check, []) is False


def test_tests_are_named_from_the_project_around_src(tmp_path, corpus):
    (tmp_path / "project" / "src").mkdir(parents=True)
    assert suite_base(str(tmp_path / "project")) == tmp_path / "project"
    assert str(suite_base(corpus.source)) == corpus.source


@pytest.mark.parametrize(
    ("wanted", "got", "alike"),
    [
        (1, 1, True),
        (1, 1.0, False),
        (True, 1, False),
        (0.3, 0.1 + 0.2, True),
        (0.3, 0.3001, False),
        (float("inf"), float("inf"), True),
        ([1, (2.0,)], [1, (2.0000000000001,)], True),
        ([1, 2], (1, 2), False),
        ([1, 2], [1], False),
        ({1, 2}, {2, 1}, True),
        ({1}, {True}, False),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, True),
        ({"a": 1}, {"a": 1, "b": 2}, False),
        ({1: 0}, {1.0: 0}, False),
        ("a", "a", True),
    ],
)
def test_values_are_compared_by_type_and_floats_closely(wanted, got, alike):
    assert same(wanted, got) is alike


@pytest.mark.parametrize(
    ("got", "exception", "holds"),
    [
        ("(False, 6, [3], {})\n", None, True),
        ("(False, 6, [3], {}), \n", None, False),
        ("not plain data\n", None, False),
        ("", None, False),
        ("(" * 9999 + "\n", None, False),
        ("(False, 6, [3], {})\n", "ValueError: late", False),
    ],
)
def test_a_call_holds_when_it_shows_the_same(got, exception, holds):
    assert compare_calls(CALLS[:1], [got], [exception]) is holds


def test_no_call_proves_nothing_and_the_right_exception_may_have_another_message():
    assert compare_calls([], [], []) is False
    assert compare_calls(CALLS[2:], [""], ["TypeError: other"]) is True
    assert compare_calls(CALLS[2:], [""], ["pkg.OtherError: other"]) is False
