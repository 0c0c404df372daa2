"""The part of a check that runs inside the sandbox, tried outside of it."""

import ast
import math

import pytest

from data.checks import probe


@pytest.mark.parametrize(
    "value",
    [
        None, True, -3, 10**30, 2.5, -0.0, math.inf, -math.inf, "a\n'\"é", b"\x00", [], (), (1,), {}, set(), {3, 1, 2},
        {"a": [1, (2, {3})], (4, None): {5: {}}},
    ],
)  # fmt: skip
def test_plain_data_come_back_equal_and_of_the_same_types(value):
    text = probe.literal(value, 200)
    again = ast.literal_eval(text)
    assert again == value and repr(again) == repr(value) and "\n" not in text


class Number(int):
    pass


ENDLESS: list = []
ENDLESS.append(ENDLESS)


@pytest.mark.parametrize(
    "value", [math.nan, object(), Number(3), frozenset(), [range(3)], {"a": len}, ENDLESS, "x" * 300, list(range(300))]
)
def test_other_data_and_too_many_are_refused(value):
    with pytest.raises(ValueError):
        probe.literal(value, 200)


def test_a_call_shows_its_result_its_kind_and_what_became_of_its_arguments(capsys):
    probe.show("bisect", "insort", "([[1, 3], 2], {})")
    probe.show("itertools", "islice", "([[1, 2, 3], 2], {})")
    probe.show("builtins", "str.upper", "(['a'], {})")
    probe.show("builtins", "object", "([], {})")
    assert capsys.readouterr().out.splitlines() == [
        "(False, None, [[1, 2, 3], 2], {})", "(True, [1, 2], [[1, 2, 3], 2], {})", "(False, 'A', ['a'], {})",
        "not plain data",
    ]  # fmt: skip
