import pytest

from data.checks.check import doctest_check, suite_check, unit_test_check, values_check
from data.checks.jobs import doctest_job, jobs_of, rerun, run_groups, suite_jobs, unit_test_jobs, values_job
from data.checks.verdict import proves, refutes
from sandbox.run import Job

CALLS = [
    {"arguments": "([3], {})", "want": "(False, 6, [3], {})\n", "raises": None},
    {"arguments": "([0.1], {})", "want": "(False, 0.2, [0.1], {})\n", "raises": None},
    {"arguments": "([None], {})", "want": "", "raises": "TypeError"},
]


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
    outcomes = run_groups([jobs for _, jobs, _ in cases])
    verdicts = [proves(check, of_case) for (check, *_), of_case in zip(cases, outcomes, strict=True)]
    assert verdicts == [wanted for _, _, wanted in cases]


@pytest.mark.parametrize("answer", ["", "print(double(3))", "def helper():\n    pass", "def test_x(:"])
def test_an_answer_without_a_test_function_proves_nothing(corpus, functions, answer):
    unit = unit_test_check(corpus.source, functions["double"], [functions["double"].source])
    assert unit_test_jobs(unit, "def test_x():\n    pass") != []
    jobs = unit_test_jobs(unit, answer)
    assert jobs == [] and proves(unit, jobs) is False


def printing(x):
    return Job("", f"import time\nx = {x}", examples=[{"source": "print(x, time.time_ns())\n"}])


def test_outcomes_come_back_in_their_groups_and_equal_jobs_are_run_once():
    groups = [[printing(1), printing(2)], [], [printing(1)]]
    outcomes = list(run_groups(groups))
    assert [len(group) for group in outcomes] == [2, 0, 1]
    (first, second), _, (third,) = outcomes
    assert [one.got[0].split()[0] for one in (first, second, third)] == ["1", "2", "1"]
    assert first.got == third.got != second.got
    assert list(run_groups([])) == []


def test_a_repeated_run_repeats_the_original_alone():
    jobs = [printing(1), printing(2)]
    (first, second), (again, same) = rerun(jobs, 0), rerun(jobs, 1)
    assert first.program != again.program and second == same == jobs[1]


DOUBLE_TESTS = ["tests/test_boxes.py::test_double[1]", "tests/test_boxes.py::test_double[a]"]
YES = "class Yes:\n    def __%s__(self, other):\n        return True\n\n\ndef double(x):\n    return Yes()\n"


def test_the_sandbox_is_never_told_what_is_wanted(corpus, functions):
    check = doctest_check(corpus.source, functions["Box.size"])
    assert check["examples"][0]["want"] == "3\n"
    assert doctest_job(check, functions["Box.size"].source).examples == [{"source": "Box().size\n"}]


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
    outcomes = run_groups([jobs_of(check, answer) for check, answer, _ in cases])
    found = [(check, of_case) for (check, *_), of_case in zip(cases, outcomes, strict=True)]
    assert [proves(check, outcomes) for check, outcomes in found] == [wanted for *_, wanted in cases]
    assert [refutes(*found[2]), refutes(*found[8])] == [True, True]
    assert [refutes(*found[0]), refutes(*found[4])] == [False, False]  # right; died


def test_an_answer_that_could_decide_its_own_tests_is_not_put_to_them(corpus, functions):
    check = suite_check(corpus.source, functions["double"], DOUBLE_TESTS)
    assert len(suite_jobs(check, functions["double"].source)) == 1
    for answer in (YES % "eq", "from unittest.mock import ANY\n", "def double(x):\n    import gc\n"):
        assert suite_jobs(check, answer) == [] and proves(check, []) is False
