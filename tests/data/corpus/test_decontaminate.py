import gzip
import json
import os
import re
from pathlib import Path

import pytest

from common.console import UserError
from data.corpus import build_corpus
from data.corpus.decontaminate import RUN, KnownTexts, read_task_texts

SHARED = Path(os.environ.get("TRITUNE_DATA", "/nowhere")) / "mbpp"
SOLUTION = (
    "def similar_elements(first, second):\n    shared = tuple(set(first) & set(second))\n    return sorted(shared)"
)
MBPP = {
    "task_id": 2,
    "text": "Write a function to find the shared elements from the given two lists.",
    "code": SOLUTION.replace("\n", "\r\n"),
    "test_list": ["assert similar_elements((3, 4, 5, 6), (5, 7, 4, 10)) == [4, 5]"],
}
HUMANEVAL = {
    "task_id": "HumanEval/0",
    "prompt": 'def close(numbers, threshold):\n    """ Check if in given list of numbers, are any two numbers '
    'closer to each other than\n    given threshold.\n    """\n',
    "canonical_solution": "    return any(abs(a - b) < threshold for a in numbers for b in numbers)\n",
    "test": "def check(candidate):\n    assert candidate([1.0], 0.5) == False\n",
}


@pytest.fixture
def tasks(tmp_path):
    (tmp_path / "mbpp.jsonl").write_text(json.dumps(MBPP) + "\n")
    with gzip.open(tmp_path / "HumanEval.jsonl.gz", "wt") as file:
        file.write(json.dumps(HUMANEVAL) + "\n")
    return [str(tmp_path / name) for name in ("mbpp.jsonl", "HumanEval.jsonl.gz")]


def known_tasks(paths):
    return KnownTexts.of(read_task_texts(paths), RUN)


def test_a_run_of_words_is_found_by_its_owner():
    known = KnownTexts.of([("a", "one two three four"), ("b", "two three four five"), ("c", "one")], 3)
    assert known.found_in("x, Two (three) four; y") == "a"
    assert known.found_in("three four five") == "b"
    assert known.found_in("two four three") is None and known.found_in("one") is None
    assert KnownTexts.of([], 3).found_in("one two three") is None


@pytest.mark.parametrize(
    ("text", "task"),
    [
        (SOLUTION.upper().replace("    ", "\t"), "MBPP/2"),
        ("# Write a function, to find the shared elements\n# from the given two lists.", "MBPP/2"),
        ("x = 1\n" + HUMANEVAL["canonical_solution"], "HumanEval/0"),
        ("# in given list of numbers, are any two numbers closer to each other", "HumanEval/0"),
        ("# in given list of numbers, are any two numbers closer to each", None),  # twelve words
        ("x = [3, 4, 5, 6, 5, 7, 4, 10, 4, 5, 3, 4, 5, 6, 5, 7, 4, 10, 4, 5]", None),  # numbers alone
        (HUMANEVAL["test"], None),  # its first lines are the same in every task
    ],
)
def test_a_run_of_words_gives_a_task_away_whatever_the_layout(tasks, text, task):
    assert RUN == 13
    assert known_tasks(tasks).found_in(text) == task


def test_a_file_that_holds_a_task_is_rejected_with_its_name(tasks, tmp_path):
    (tmp_path / "code").mkdir()
    filling = "\n".join(f"name_{i} = {i}" for i in range(12))
    (tmp_path / "code" / "clean.py").write_text(filling)
    (tmp_path / "code" / "leak.py").write_text(f"# {filling!r}\n{SOLUTION}\n{filling}")
    corpus = build_corpus(str(tmp_path / "code"), decontaminate=tasks)
    assert [file.path for file in corpus.files] == ["clean.py"]
    (reject,) = corpus.rejects
    assert (reject["reason"], reject["detail"]) == ("benchmark task", "holds 13 words in a row of MBPP/2")
    assert len(build_corpus(str(tmp_path / "code")).files) == 2


def test_the_sanitized_list_is_read_too(tmp_path):
    row = {"task_id": 3, "prompt": "Write a python function to identify non-prime numbers.", "code": SOLUTION}
    (tmp_path / "sanitized-mbpp.json").write_text(json.dumps([row]))
    assert known_tasks([str(tmp_path / "sanitized-mbpp.json")]).found_in(SOLUTION) == "MBPP/3"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'{"task_id": 1}\n{"text": "x"}\n', "task 2 has no task_id"),
        ("a.jsonl", b"{", "a.jsonl:1: not JSON"),
        ("a.jsonl", b"\xff", "a.jsonl:1: not UTF-8"),
        ("a.jsonl.gz", b"\x1f\x8bno gzip", "a damaged gzip file"),
        ("b.jsonl", None, "no such file"),
    ],
)
def test_a_task_file_that_cannot_be_used_is_named(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_task_texts([str(tmp_path / name)])


@pytest.mark.skipif(not SHARED.is_dir(), reason="TRITUNE_DATA names no folder with mbpp/")
def test_every_task_of_mbpp_is_found_where_its_words_or_its_solution_are_long_enough():
    rows = [json.loads(line) for line in (SHARED / "mbpp.jsonl").read_text().splitlines()]
    tasks = known_tasks([str(SHARED / "mbpp.jsonl")])
    long = [row for row in rows if max(len(re.findall(r"[^\W\d]\w*", row[field])) for field in ("text", "code")) >= RUN]
    assert len(rows) == 974 and len(long) > 700
    assert all(tasks.found_in(f"{row['text']}\n{row['code']}") for row in long)
