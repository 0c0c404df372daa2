import ast
from types import SimpleNamespace

import pytest

from data.instruct.unit_tests import from_repository, repository_tests

TESTS = '''
import math
import pytest
import numpy as np
from pkg.code import double, other


def test_other_and_double():
    """Both."""
    base = 3
    unrelated = other(1)
    assert unrelated == 1
    values = [base]
    values.append(4)
    result = double(values)
    assert result == [6, 8]
    rest = other(result)
    assert rest
    with pytest.raises(TypeError):
        double(None)
    assert other(2) == 2


def test_of_other():
    made = double([1])
    assert other(made) == 2
    assert made


def test_numpy():
    assert double(np.array([1])) is not None


class TestDouble:
    def setup_method(self):
        self.values = [1]
        self.name = "x"

    def test_of_class(self):
        assert double(self.values) == [2]

    def test_calls_a_helper(self):
        assert double(self.helper()) == [2]

    def test_own_name(self):
        values = [2]
        assert double(values) != double(self.values)
'''


@pytest.fixture
def tests(tmp_path, monkeypatch):
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_code.py").write_text(TESTS)
    monkeypatch.setattr("data.instruct.unit_tests.import_root", lambda source: tmp_path)
    return repository_tests(corpus())


def corpus(*, redact=True):
    reject = {"path": "tests/test_code.py", "reason": "test file", "source": "s", "language": "python"}
    files = [SimpleNamespace(path="pkg/code.py")]
    return SimpleNamespace(sources=("s",), files=files, rejects=[reject], options={"redact": redact})


def cut(tests, *, most_characters=1000):
    function = SimpleNamespace(name="double", qualname="double")
    return list(from_repository(function, tests["double"], most_characters=most_characters))


def test_a_test_is_cut_to_what_its_function_needs(tests):
    first = cut(tests)[0]
    assert first == (
        "import pytest\n"
        "from pkg.code import double\n"
        "from pkg.code import other\n\n\n"
        "def test_double():\n"
        "    base = 3\n"
        "    values = [base]\n"
        "    values.append(4)\n"
        "    result = double(values)\n"
        "    assert result == [6, 8]\n"
        "    rest = other(result)\n"
        "    assert rest\n"
        "    with pytest.raises(TypeError):\n"
        "        double(None)"
    )


def test_what_checks_another_function_is_left_out_of_a_test_with_another_name(tests):
    of_other = [text for text in cut(tests) if "made" in text]
    assert of_other == ["from pkg.code import double\n\n\ndef test_double():\n    made = double([1])\n    assert made"]


def test_as_many_assertions_as_fit_from_the_start(tests):
    assert cut(tests, most_characters=200)[0].endswith("    assert result == [6, 8]")
    assert not any("result" in text for text in cut(tests, most_characters=120))


def test_what_the_class_sets_up_is_put_in_front(tests):
    of_class = [text for text in cut(tests) if "values = [1]" in text]
    assert of_class == [
        "from pkg.code import double\n\n\ndef test_double():\n    values = [1]\n    assert double(values) == [2]"
    ]


def test_tests_that_need_more_than_they_bring_are_left_out(tests):
    found = cut(tests)
    assert len(found) == 3 and not any(word in text for text in found for word in ("helper", "np.", "self"))
    for text in found:
        ast.parse(text)


def test_what_the_corpus_replaces_is_replaced_in_its_tests_too(tmp_path, monkeypatch):
    (tmp_path / "tests").mkdir()
    text = 'from pkg.code import double\n\n\ndef test_double():\n    assert double("jane@uni.museum") == []\n'
    (tmp_path / "tests" / "test_code.py").write_text(text)
    monkeypatch.setattr("data.instruct.unit_tests.import_root", lambda source: tmp_path)
    (hidden,) = cut(repository_tests(corpus()))
    (shown,) = cut(repository_tests(corpus(redact=False)))
    assert 'double("<EMAIL>")' in hidden and 'double("jane@uni.museum")' in shown
