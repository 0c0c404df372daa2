import sys

import pytest

from data.checks.check import doctest_check
from data.corpus import build_corpus
from data.corpus.functions import functions_of
from eval.instruct.improvement import complexity, gains, is_gain, time_gain
from eval.instruct.merit import add_measures
from eval.instruct.wording import docstring_issues, docstring_match, explanation_coverage

FUNCTION = """def mean(values, *, start=0):
    if not values:
        raise ValueError("no value")
    total = start
    for value in values:
        total += value
    return total / len(values)
"""
ARGS = "Average.\n\nArgs:\n    values (list): Numbers.\n    start (int): Of the sum.\n"
RETURNS = "\nReturns:\n    float: The mean.\n"
RAISES = "\nRaises:\n    ValueError: If there is no value.\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (ARGS + RETURNS + RAISES, 1),
        (ARGS + RETURNS, 3 / 4),
        (ARGS + RAISES, 3 / 4),
        (ARGS + RETURNS + RAISES + "    TypeError: From what it calls.\n", 1),
        (ARGS + "    weight (int): Invented.\n" + RETURNS + RAISES, 4 / 5),
        (ARGS.replace(" (list): Numbers.", ":") + RETURNS + RAISES, 3 / 4),
        ("Average.\n\n:param values: Numbers.\n:param start: Sum.\n:returns: Mean.\n:raises ValueError: If none.", 1),
        ("Average of values from start, returns it, raises ValueError.", 0),
    ],
)
def test_a_docstring_is_measured_against_the_signature_and_what_the_body_returns_and_raises(text, expected):
    assert docstring_match(text, FUNCTION) == expected


def test_nothing_given_back_must_not_be_documented_and_yields_must():
    assert docstring_match("Do it." + RETURNS, "def f():\n    def g():\n        return 1\n    return None\n") == 0
    assert docstring_match("Do it.\n\nYields:\n    int: Each.", "def f():\n    yield 1\n") == 1
    assert docstring_match("Do it.", "def f(self):\n    pass\n") == 1


def test_what_goes_into_double_starred_arguments_may_be_documented_by_name():
    code = "def f(a, **options):\n    pass\n"
    assert docstring_match("Do.\n\nArgs:\n    a: One.\n    color: Of the line.\n", code) == 1
    assert docstring_match("Do.\n\nArgs:\n    a: One.\n", code) == 1 / 2


def test_an_explanation_covers_what_is_taken_called_and_raised():
    code = FUNCTION.replace("len(values)", "count_items(values)")
    assert explanation_coverage("Adds `values` to `start`, counts the items; ValueError if empty.", code) == 1
    assert explanation_coverage("Adds values to something.", code) == 1 / 4
    assert explanation_coverage("It restarts.", code) == 0
    assert explanation_coverage("Nothing.", "def f():\n    return 1\n") is None


def test_ruff_reads_a_docstring_in_its_function():
    good, missing, unended, *hostile = docstring_issues(
        [FUNCTION] * 6,
        [
            ARGS + RETURNS,
            "Average.\n\nArgs:\n    values: Numbers.",
            "Average",
            'Say """ or \\d.',
            "Ends in \\",
            'Says "so."',
        ],
    )
    assert good == []
    assert [issue.rule for issue in missing] == ["D417"] and [issue.rule for issue in unended] == ["D415"]
    assert not {"syntax", "invalid-syntax", "D301"} & {issue.rule for issues in hostile for issue in issues}


def test_a_gain_is_better_somewhere_and_worse_nowhere():
    loop = "def f(xs):\n    ys = []\n    for x in xs:\n        ys.append(x)\n    return ys\n"
    plain, nested = "def f(xs):\n    return list(xs)\n", loop.replace("ys.append(x)", "if x or not x:\n            1")
    better, worse, same = (gain | {"time": None} for gain in gains([loop, plain, loop], [plain, nested, loop]))
    assert better["complexity"] == 1 and better["issues"] > 0 and is_gain(better)
    assert worse["complexity"] == -3 and not is_gain(worse)
    assert same == {"complexity": 0, "issues": 0, "size": 0, "time": None} and not is_gain(same)
    assert not is_gain(same | {"complexity": 2, "issues": -1, "size": 9}) and is_gain(same | {"size": 1})
    assert is_gain(same | {"time": 0.2, "size": -3}) and not is_gain(better | {"time": -0.2})


@pytest.mark.parametrize(
    ("rounds", "expected"),
    [
        ([[1.0, 0.7]] * 21, 0.3),
        ([[1.0, 1.5]] * 21, -0.5),
        ([[1.0, 0.92]] * 21, 0),  # too little
        ([[1.0, 0.5]] * 13 + [[1.0, 1.1]] * 8, 0),  # too often the other way
        ([[1.0, 0.5]] * 5, 0),  # too few
    ],
)
def test_time_counts_from_a_tenth_on_and_beyond_the_noise(rounds, expected):
    assert time_gain(rounds) == expected


@pytest.mark.parametrize(
    ("body", "expected"),
    [("return 1", 1), ("return a if a and b or c else d", 4), ("return [x for x in a if x if b]", 4)],
)
def test_complexity_counts_the_places_where_the_path_parts(body, expected):
    assert complexity(f"def f(a, b, c, d):\n    {body}\n") == expected


SLOW = '''def total(n):
    """Add."""
    result = 0
    for i in range(n):
        result = result + i
    return result
'''
FAST = 'def total(n):\n    """Add."""\n    return n * (n - 1) // 2\n'
CHEATS = {  # slower than SLOW, each
    "changes its clocks": "import time\n    time.perf_counter = time.monotonic = time.clock_gettime = lambda *a: 0.0\n",
    "ends the other": "import os\n    for fd in range(3, 64):\n        try:\n            os.write(fd, b'[0]\\n')\n"
    "        except OSError:\n            pass\n",
    "ends itself": "import os\n    os._exit(0)\n",
}


@pytest.mark.skipif(sys.platform != "linux", reason="the clock of another process is Linux's")
def test_time_is_measured_where_an_answer_cannot_change_it(tmp_path):
    example = "    >>> total(2000)\n    1999000\n"
    filler = "".join(f"\n\ndef other_{number}(x):\n    return x + {number}\n" for number in range(12))
    shown = SLOW.replace("Add.", f"Add.\n\n{example}    ")
    (tmp_path / "sums.py").write_text(f'"""Sums."""\n\n\n{shown}{filler}')
    corpus = build_corpus(str(tmp_path))
    function = next(one for one in functions_of(corpus.files[0], min_lines=1) if one.name == "total")
    check = doctest_check(corpus.source, function)
    cheats = {name: SLOW.replace("    result = 0\n", f"    {text}    result = 0\n") for name, text in CHEATS.items()}
    codes = {"same": SLOW, "fast": FAST, "slow": SLOW.replace("result + i", "sum([result, i])")} | cheats
    pairs = {name: {"category": "improve", "input": shown, "check": check} for name in codes}
    rows = [
        {"id": name, "category": "improve", "status": "pass", "sample": "greedy", "code": code, "lenient": True}
        for name, code in codes.items()
    ]
    add_measures(pairs, rows)
    time = {row["id"]: row["gain"]["time"] for row in rows}
    assert time["same"] == 0 and time["fast"] > 0.9 and time["slow"] < -0.1
    assert all((time[name] or 0) <= 0 for name in CHEATS), time
    improved = {row["id"] for row in rows if row["measures"]["improvement"]}
    assert improved == {"fast"}
