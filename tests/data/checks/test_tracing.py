import json
import sys

import pytest

from data.checks import tracing
from data.checks.prove import KINDS, Checks, tried
from data.checks.tracing import files_with_tests, key_of, record_tests
from data.corpus import build_corpus
from data.corpus.functions import functions_of
from sandbox.run import Outcome

MODULE = '''"""Shapes of boxes."""

import random


def scaled(function):
    def inner(*arguments, **named):
        return function(*arguments, scale=10, **named)

    return inner


def area(width, height=2, *others, scale=1):
    """The area.

    >>> area(2, 3)
    6
    """
    if width < 0:
        raise ValueError("negative")
    product = width * height * len([0, *others])
    return product * scale


def evens(limit):
    for number in range(limit):
        if number % 2 == 0:
            yield number
            limit -= 1  # what it was called with stays recorded


def idle(x):
    y = x + 1


@scaled
def large(width, scale):
    return area(width, scale=scale)


def noise(x):
    value = random.random()
    return x + value


def grow(items):
    items.insert(0, len(items))
    items.sort()


def never_called(x):
    return x - 1


class Box:
    def size(self):
        width = 3
        return area(width)
'''
TESTS = """import random
import time

import pytest

from pkg.shapes import Box, area, evens, grow, idle, large, noise


class Odd:
    def __mul__(self, other):
        return 7

    def __lt__(self, other):
        return False


def test_area():
    assert area(2, 3) == area(3, 2) == 6
    assert area(width=2.5) == 5.0
    assert area(Odd()) == 7


def test_area_refuses():
    with pytest.raises(ValueError):
        area(-1)


@pytest.mark.parametrize("n", [0, 5])
def test_evens(n):
    assert list(evens(n)) == list(range(0, n, 2))


class TestBox:
    def test_size(self):
        assert Box().size() == 6


def test_rest():
    assert large(2) == 40 and noise(1) >= 1
    items = [3, 1]
    grow(items)
    assert items == [1, 2, 3]
    assert idle(1) is None
    print("printed", {"tests": 3})


def test_sometimes():
    assert noise(1) < 1.5 or random.random() < 0.5


def test_fails():
    assert noise(1) < 1


def test_skips():
    pytest.skip("not today")


def test_known():
    pytest.xfail("known")


def test_hangs():
    while True:
        time.sleep(0.1)
"""


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shapes") / "code"
    (folder / "src" / "pkg").mkdir(parents=True)
    (folder / "tests").mkdir()
    (folder / "src" / "pkg" / "__init__.py").write_text("")
    (folder / "src" / "pkg" / "shapes.py").write_text(MODULE)
    (folder / "tests" / "test_shapes.py").write_text(TESTS)
    (folder / "tests" / "test_broken.py").write_text("import not_there\n")
    (folder / "tests" / "helpers.py").write_text("raise RuntimeError\n")
    (folder / "pyproject.toml").write_text('[tool.pytest.ini_options]\naddopts = "--no-such-option"\n')
    corpus = build_corpus(str(folder))
    return corpus.source, {one.name: one for one in functions_of(corpus.files[0], min_lines=1)}


@pytest.fixture(scope="module")
def recording(repository):
    source, functions = repository
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tracing, "TEST_SECONDS", 1)
        return record_tests(source, list(functions.values()))


@pytest.fixture(scope="module")
def candidates(repository, recording):
    """By function and kind."""
    source, functions = repository
    found = [one for kind in KINDS for one in tried(kind, source, list(functions.values()), recording)]
    return {(one.function.name, one.check["kind"]): one for one in found}


def counting(candidates, name):
    """The checks of a function that count, by kind."""
    return {kind: one.check for (of, kind), one in candidates.items() if of == name and one.problem() is None}


def test_pytests_own_names_make_a_test_file(repository):
    assert files_with_tests(repository[0]) == ["tests/test_broken.py", "tests/test_shapes.py"]


def test_a_test_is_known_by_the_functions_that_it_enters(repository, recording):
    functions = repository[1]
    assert recording.tests_of(functions["area"])[:2] == [
        "tests/test_shapes.py::test_area", "tests/test_shapes.py::test_area_refuses",
    ]  # fmt: skip
    assert recording.tests_of(functions["size"]) == ["tests/test_shapes.py::TestBox::test_size"]
    assert len(recording.tests_of(functions["evens"])) == 2 and recording.tests_of(functions["never_called"]) == []
    rest = recording.entered["tests/test_shapes.py::test_rest"]
    assert rest == {key_of(functions[name]) for name in ("large", "area", "noise", "grow", "idle")}


def test_what_does_not_pass_is_counted_and_of_no_use(recording):
    lost = {"test failed": 2, "test skipped": 2, "file that cannot be collected": 1}
    if "tests/test_shapes.py::test_sometimes" not in recording.seconds:
        lost["test failed"] += 1
    assert recording.lost == lost  # fails, hangs; skips, known


def test_calls_are_recorded_where_all_arguments_are_plain_data(repository, recording):
    functions = repository[1]
    assert recording.calls_of(functions["area"]) == (
        "([2, 3], {'scale': 1})", "([3, 2], {'scale': 1})", "([2.5, 2], {'scale': 1})", "([-1, 2], {'scale': 1})",
        "([2, 2], {'scale': 10})",
    )  # fmt: skip
    assert recording.calls_of(functions["evens"]) == ("([0], {})", "([5], {})")
    assert recording.calls_of(functions["grow"]) == ("([[3, 1]], {})",)
    assert recording.calls_of(functions["size"]) == ()


def test_a_check_counts_when_the_original_passes_three_times_and_a_mutant_fails(candidates):
    assert [*counting(candidates, "area")] == ["doctest", "values", "tests"]
    assert [*counting(candidates, "evens")] == [*counting(candidates, "grow")] == ["values", "tests"]
    assert [*counting(candidates, "size")] == ["tests"] and not counting(candidates, "never_called")
    values = counting(candidates, "area")["values"]
    assert values["calls"][0] == {
        "arguments": "([2, 3], {'scale': 1})", "want": "(False, 6, [2, 3], {'scale': 1})\n", "raises": None,
    }  # fmt: skip
    assert [call["raises"] for call in values["calls"]] == [None, None, None, "ValueError", None]
    assert counting(candidates, "grow")["values"]["calls"][0]["want"] == "(False, None, [[1, 2, 3]], {})\n"
    assert counting(candidates, "evens")["values"]["calls"][1]["want"] == "(True, [0, 2, 4], [5], {})\n"
    problems = {key: one.problem() for key, one in candidates.items()}
    assert problems["noise", "values"] == "flaky"
    assert problems["idle", "values"] == problems["idle", "tests"] == "no mutant fails"
    assert ("large", "values") not in problems  # its calls do not get through the decorator
    assert json.loads(json.dumps(values)) == values


def test_the_first_check_that_counts_is_found_once_and_the_tests_run_only_when_they_are_needed(
    monkeypatch, repository, recording
):
    functions, runs = repository[1], []
    monkeypatch.setattr(
        "data.checks.prove.record_tests", lambda *arguments, **named: runs.append(arguments) or recording
    )
    checks = Checks(list(functions.values()))
    checks.find([functions["area"]])
    assert checks.of(functions["area"])["kind"] == "doctest" and runs == [] and checks.lost() == {}
    checks.find([functions[name] for name in ("area", "grow", "size", "idle", "never_called")])
    assert [checks.of(functions[name])["kind"] for name in ("grow", "size")] == ["values", "tests"]
    assert checks.of(functions["idle"]) is checks.of(functions["never_called"]) is None
    assert checks.why_none(functions["idle"]).endswith("values: no mutant fails, tests: no mutant fails")
    assert checks.why_none(functions["never_called"]).endswith("nothing was found")
    assert len(runs) == 1 and checks.lost() == recording.lost
    checks.find(list(functions.values())[:3])
    assert len(runs) == 1


def test_a_call_through_a_decorator_that_hands_on_other_arguments_is_not_kept(repository, recording, candidates):
    assert recording.calls_of(repository[1]["large"]) == ("([2, 10], {})",)
    assert [*counting(candidates, "large")] == ["tests"]


def test_a_batch_without_a_report_is_run_again_file_by_file(monkeypatch, repository):
    source, functions = repository
    seen = []

    def broken(jobs, processes, what):
        seen.append(len(jobs))
        got = json.dumps({"tests": {}, "broken": {}, "calls": {}}) + "\n"
        return [Outcome("", "died" if len(seen) == 1 else "finished", [got], [None], "", 0.0) for _ in jobs]

    monkeypatch.setattr(tracing, "run_jobs", broken)
    assert record_tests(source, list(functions.values())).lost == {}
    assert seen == [1, 2]


@pytest.mark.parametrize(
    "got",
    [
        "", "[]\n", '{"tests": {}}\n', '{"tests": {}, "broken": {}, "calls": {"99": []}}\n',
        '{"tests": {"a": {"outcome": "passed", "seconds": 1, "entered": [-1]}}, "broken": {}, "calls": {}}\n',
        '{"tests": {"a": 1}, "broken": {}, "calls": {}}\n',
    ],
)  # fmt: skip
def test_a_report_of_another_form_is_none(got):
    assert tracing._report(Outcome("", "finished", [got], [None], "", 0.0), 9) is None


def test_pytest_must_be_there(monkeypatch, repository):
    from common.console import UserError

    monkeypatch.setitem(sys.modules, "pytest", None)
    with pytest.raises(UserError, match="needs the extra package 'pytest'"):
        record_tests(repository[0], [])
