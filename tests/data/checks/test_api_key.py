"""A teacher's API key is in this process's environment. No foreign code may see it, on whatever path it runs."""

import shutil
import subprocess
import sys

import pytest

from data.checks import jobs_of, proves, race_job, run_groups, unit_test_check
from data.checks.check import doctest_check, suite_check, values_check
from data.checks.hallucination import Answer, check_names
from data.checks.tracing import record_tests
from data.corpus import build_corpus
from data.corpus.functions import functions_of
from data.instruct.completions import KEY_VARIABLES

KEY = "sk-of-the-teacher"
MODULE = f'''"""Looks for a key wherever a process may find one."""

import os


def sees_key(start):
    """Whether some environment holds the key.

    >>> sees_key(0)
    False
    """
    texts = [f"{{name}}={{value}}" for name, value in os.environ.items()]
    try:
        places = os.listdir("/proc")
    except OSError:
        places = []
    for place in [*places, "self", str(os.getppid())]:
        try:
            with open(f"/proc/{{place}}/environ", errors="replace") as file:
                texts.append(file.read())
        except OSError:
            continue
    return any({KEY!r} in text for text in texts[start:])


if not sees_key(0):
    NO_KEY_AT_IMPORT = True
'''
TESTS = "from keys import sees_key\n\n\ndef test_no_key():\n    assert sees_key(0) is False\n"


@pytest.fixture
def package(tmp_path):
    (tmp_path / "keys.py").write_text(MODULE + "".join(f"CONSTANT_{i} = {i}\n" for i in range(12)))
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_keys.py").write_text(TESTS)
    corpus = build_corpus(str(tmp_path))
    return corpus.source, functions_of(corpus.files[0])[0]


@pytest.fixture(autouse=True, params=KEY_VARIABLES)
def key(monkeypatch, request):
    monkeypatch.setenv(request.param, KEY)


def test_the_search_finds_the_key_where_it_is(package):
    command = [sys.executable, "-c", "import keys; print(keys.sees_key(0), hasattr(keys, 'NO_KEY_AT_IMPORT'))"]
    assert subprocess.run(command, cwd=package[0], capture_output=True, text=True).stdout == "True False\n"


def test_checks_and_races_see_no_key(package):
    source, function = package
    calls = [{"arguments": "([0], {})", "want": "(False, False, [0], {})\n", "raises": None}]
    mutant = function.source.replace("return any(", "return not any(")
    checks = [
        (doctest_check(source, function), function.source),
        (values_check(source, function, calls), function.source),
        (unit_test_check(source, function, [mutant]), TESTS),
        (suite_check(source, function, ["tests/test_keys.py::test_no_key"]), function.source),
    ]
    outcomes = run_groups([jobs_of(check, answer) for check, answer in checks])
    assert [proves(check, found) for (check, _), found in zip(checks, outcomes, strict=True)] == [True] * 4
    raises = function.source.replace("return any(", "assert not any(")
    ((raced,),) = run_groups([[race_job(checks[0][0], raises, raises)]])
    assert (raced.outcome, raced.exceptions) == ("finished", [None])


def test_traced_tests_and_imported_modules_see_no_key(package):
    source, function = package
    recording = record_tests(source, [function])
    assert list(recording.seconds) == ["tests/test_keys.py::test_no_key"] and recording.lost == {}
    (report,) = check_names([Answer(code="from keys import NO_KEY_AT_IMPORT\n", package=source, path="keys.py")])
    assert (report.hallucinated, report.unknown) == ((), 0)


@pytest.mark.skipif(sys.platform != "linux" or not shutil.which("node"), reason="needs node, on Linux")
def test_javascript_sees_no_key():
    from eval.code.tasks import CodeTask
    from eval.code.verdict import job_of, run_tests

    look = (
        "const fs = require('node:fs');\n"
        "const texts = [JSON.stringify(process.env)];\n"
        "for (const place of ['self', process.ppid, 1]) {\n"
        "  try { texts.push(fs.readFileSync(`/proc/${place}/environ`, 'utf8')); } catch {}\n"
        "}\n"
        f"const seen = () => texts.some((text) => text.includes({KEY!r}));\n"
    )
    task = CodeTask("task", look, "seen", "assert seen() == False\n", language="js")
    assert [verdict.status for verdict in run_tests([job_of(task, look, 10.0)])] == ["pass"]
