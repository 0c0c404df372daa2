import pytest

from data.checks.verdict import compare_calls, compare_examples, explain, killed_mutants, mutation_score, proves, same
from sandbox.run import Outcome

CALLS = [
    {"arguments": "([3], {})", "want": "(False, 6, [3], {})\n", "raises": None},
    {"arguments": "([0.1], {})", "want": "(False, 0.2, [0.1], {})\n", "raises": None},
    {"arguments": "([None], {})", "want": "", "raises": "TypeError"},
]


def example(want, source="f()\n", raises=None, **options):
    return {"source": source, "want": want, "options": options, "raises": raises}


def outcome(kind, got=(), exceptions=(), detail=""):
    return Outcome("", kind, list(got), list(exceptions), detail, 0.0)


def test_a_mutant_counts_as_killed_only_when_the_test_failed_on_it():
    check = {"kind": "unit_test", "mutants": ["a mutant"]}
    for kind, killed in (("exception", True), ("timeout", True), ("denied", False), ("died", False)):
        outcomes = [outcome("finished"), outcome(kind)]
        assert proves(check, outcomes) is killed and killed_mutants(check, outcomes) == ["a mutant"] * killed
    assert proves(check, [outcome("exception"), outcome("exception")]) is False
    with pytest.raises(ValueError, match="not executed"):
        proves({"kind": "structure"}, [])


def test_the_mutation_score_is_the_share_of_mutants_that_the_test_fails_on():
    kinds = ["finished", "exception", "finished", "timeout", "denied"]
    assert mutation_score([outcome(kind) for kind in kinds]) == 2 / 4
    assert mutation_score([outcome("exception"), outcome("exception")]) == 0
    assert mutation_score([]) == 0


def test_the_first_example_that_is_wrong_explains_the_verdict():
    check = {"kind": "doctest", "examples": [example("1\n"), example("9\n", SKIP=True), example("3\n"), example("")]}
    found = explain(check, [outcome("finished", ["1\n", "2\n", "4\n", ""], [None] * 4)])
    assert found == {
        "status": "wrong", "detail": "f() gave 4", "asked": "f()", "held": 1, "expected": "3", "got": "4",
    }  # fmt: skip
    raised = explain(check, [outcome("finished", ["1\n", "", "", ""], [None, None, "TypeError: x", None])])
    assert (raised["status"], raised["detail"]) == ("exception", "TypeError: x")
    assert explain(check, [outcome("finished", ["1\n", "2\n", "3\n", ""], [None] * 4)])["status"] == "pass"
    assert explain(check, [outcome("exception", detail="AssertionError: no")])["status"] == "wrong"
    assert explain(check, [outcome("timeout")])["status"] == "timeout" and explain(check, [])["status"] == "wrong"


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
