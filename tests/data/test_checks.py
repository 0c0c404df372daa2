import pytest

from data.checks import (
    compare_examples,
    doctest_check,
    doctest_job,
    judge,
    patched_module,
    run_in_sandbox,
    unit_test_check,
    unit_test_jobs,
)
from data.corpus import build_corpus
from data.functions import functions_of
from model.console import UserError

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


@pytest.fixture
def corpus(tmp_path):
    (tmp_path / "boxes.py").write_text(MODULE)
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


def test_equal_jobs_are_run_once_and_results_stay_in_order(monkeypatch):
    import subprocess

    seen = []
    real = subprocess.Popen

    def counting(command, **options):
        seen.extend(options["stdin"].read().splitlines())
        options["stdin"].seek(0)
        return real(command, **options)

    monkeypatch.setattr(subprocess, "Popen", counting)
    job = {"root": None, "patch": None, "examples": [{"source": "print(x)\n"}], "seconds": 10, "megabytes": 1024}
    results = run_in_sandbox([{**job, "program": f"x = {x}"} for x in (1, 2, 1, 3)])
    assert [result["got"] for result in results] == [["1\n"], ["2\n"], ["1\n"], ["3\n"]]
    assert len(seen) == 3
