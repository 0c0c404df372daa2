import gzip
import json
import os
from pathlib import Path

import pytest

from common.console import UserError
from data.checks.extract import read_solution
from eval.code.grade import grade
from eval.code.task_files import read_code_tasks
from eval.code.verdict import job_of, run_tests

MBPP = Path(os.environ.get("TRITUNE_DATA", "/nowhere")) / "mbpp"
ROW = {"text": "Add.", "code": "def g(x):\r\n  return x\r\ndef add(a, b):\r\n  return g(a) + b", "task_id": 11}
ROW |= {"test_setup_code": "", "test_list": ["assert set([add(1, 2)]) == {3}"], "challenge_test_list": []}
HEAD = (
    'from typing import List\n\n\ndef total(x: List[int]) -> int:\n    """ Sum.\n    >>> total([1])\n    1\n    """\n'
)
HUMANEVAL = {
    "task_id": "HumanEval/7",
    "prompt": HEAD,
    "entry_point": "total",
    "canonical_solution": "    return sum(x)\n",
    "test": "\n\nMETADATA = {}\n\n\ndef check(candidate):\n    assert candidate([1, 2]) == 3\n"
    "    assert candidate([]) == 0\n\n",
}
PLUS = HUMANEVAL | {
    "task_id": "HumanEval/8",
    "base_input": [[[1.0, 2.0]]],
    "plus_input": [[[0.5]], [[0.1, 0.2]]],
    "atol": 1e-6,
}
del PLUS["test"]


def write(path, rows):
    text = "".join(json.dumps(row) + "\n" for row in rows).replace("Infinity", "1e999")  # JSON has no other
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return str(path)


def gold_status(task):
    solution = read_solution(task.prompt, task.entry_point, task.gold, also=task.needed)
    return run_tests([job_of(task, solution.code, 5.0)])[0]


def test_mbpps_own_file_is_read_with_its_line_ends_entry_point_and_all_of_its_tests(tmp_path):
    row = ROW | {"challenge_test_list": ["assert add(2, 2) == 4"]}
    (task,) = read_code_tasks(write(tmp_path / "mbpp.jsonl", [row]))
    assert (task.task_id, task.entry_point, task.shown) == ("11", "add", ("assert set([add(1, 2)]) == {3}",))
    assert "\r" not in task.gold and "add(2, 2)" in task.tests and gold_status(task).total == 2


def test_the_sanitized_list_brings_its_imports(tmp_path):
    row = {"task_id": 12, "prompt": "Add.", "code": ROW["code"], "test_imports": ["import math"]}
    row["test_list"] = ["assert math.isclose(add(0.1, 0.2), 0.3)"]
    (tmp_path / "sanitized.json").write_text(json.dumps([row]))
    (task,) = read_code_tasks(str(tmp_path / "sanitized.json"))
    assert gold_status(task).status == "pass" and task.prompt == "Add."


@pytest.mark.parametrize(("split", "numbers"), [("prompt", [10]), ("test", [11, 510]), ("validation", [511, 600]),
                                                ("train", [601]), ("all", [10, 11, 510, 511, 600, 601])])  # fmt: skip
def test_mbpp_is_split_by_its_papers_numbers(tmp_path, split, numbers):
    file = write(tmp_path / "mbpp.jsonl", [ROW | {"task_id": number} for number in (10, 11, 510, 511, 600, 601)])
    assert [int(task.task_id) for task in read_code_tasks(file, split)] == numbers


@pytest.mark.parametrize("name", ["HumanEval.jsonl", "HumanEval.jsonl.gz"])
def test_humanevals_own_file_is_read_packed_or_not(tmp_path, name):
    (task,) = read_code_tasks(write(tmp_path / name, [HUMANEVAL]))
    assert task.is_head and gold_status(task).total == 2


@pytest.mark.parametrize("atol", [1e-6, 0])
def test_evalplus_inputs_are_judged_by_what_the_gold_gives_to_its_tolerance(tmp_path, atol):
    (task,) = read_code_tasks(write(tmp_path / "plus.jsonl", [PLUS | {"atol": atol}]))
    near = task.gold.replace("sum(x)", "sum(x) + 1e-9")
    base_only = task.gold.replace("sum(x)", "3.0 if len(x) == 2 else 0.5")
    found = run_tests([job_of(task, code, 5.0) for code in (task.gold, near, base_only)])
    assert [(verdict.status, verdict.passed) for verdict in found] == [("pass", 3), ("pass", 3), ("wrong", 2)]


MBPP_PLUS = {
    "task_id": "Mbpp/1",
    "prompt": '"""\nPair.\nassert pair((1, (2,)), {"a": {3}}, [1j]) == 0\n"""\n',
    "entry_point": "pair",
    "canonical_solution": "def pair(x, y, z):\n    return [repr(x), repr(y), repr(z)]\n",
    "base_input": [[[1, [2]], {"a": [3]}, ["1j"]]],
    "plus_input": [[[[[4]], float("inf")], {"b": []}, ["-2j"]]],
    "atol": 0,
}


def test_mbpp_plus_inputs_have_the_types_that_its_prompt_shows(tmp_path):
    (task,) = read_code_tasks(write(tmp_path / "plus.jsonl", [MBPP_PLUS]))
    shown = "INPUTS = [[(1, (2,)), {'a': {3}}, [1j]], [(((4,),), inf), {'b': set()}, [-2j]]]"
    assert shown in task.tests and gold_status(task).status == "pass"


@pytest.mark.parametrize(
    ("name", "code", "status"),
    [
        ("pair", "def pair(x, y, z): return (repr(x), repr(y), repr(z))", "wrong"),
        ("Diff", "def Diff(x, y, z): return (repr(z), repr(y), repr(x))", "pass"),
        ("check_str", "def check_str(x, y, z): return 1", "pass"),
    ],
)
def test_results_are_compared_as_evalplus_compares_them(tmp_path, name, code, status):
    row = json.loads(json.dumps(MBPP_PLUS).replace("pair(", f"{name}(")) | {"entry_point": name}
    (task,) = read_code_tasks(write(tmp_path / "plus.jsonl", [row]))
    assert run_tests([job_of(task, code, 5.0)])[0].status == status


HUB_PLUS = {
    "task_id": 11,
    "code": ROW["code"],
    "prompt": "Add.",
    "test_imports": [],
    "test_list": ["assert add(1, 2) == 3"],
}
HUB_PLUS |= {
    "test": "inputs = [[1, 2], [5, 6]]\nresults = [3, 11]\nfor i, o in zip(inputs, results):\n    assert add(*i) == o\n"
}


@pytest.mark.parametrize(
    "test",
    [HUB_PLUS["test"], "def check(candidate):\n    assert candidate(1, 2) == 3\n    assert candidate(5, 6) == 11\n"],
)
def test_of_two_suites_in_a_row_the_stronger_decides(tmp_path, test):
    (task,) = read_code_tasks(write(tmp_path / "plus.jsonl", [HUB_PLUS | {"test": test}]))
    table = "def add(a, b): return {(1, 2): 3}[a, b]"
    assert task.shown == ("assert add(1, 2) == 3",) and gold_status(task).status == "pass"
    assert run_tests([job_of(task, table, 5.0)])[0].status == "exception"


def test_inputs_of_evalplus_beside_mbpps_tests_decide(tmp_path):
    (task,) = read_code_tasks(write(tmp_path / "plus.jsonl", [MBPP_PLUS | {"test_list": ["assert pair(1, 2, 3)"]}]))
    assert "INPUTS" in task.tests


@pytest.mark.parametrize(
    "ids", [["own/1", "own/2"], ["Mbpp/12", "Mbpp/700"], list(range(1, 4)), [2001, 2002], ["1", "2"]]
)
def test_an_own_file_in_mbpps_form_keeps_all_of_its_tasks(tmp_path, capsys, ids):
    tasks = read_code_tasks(write(tmp_path / "own.jsonl", [ROW | {"task_id": i} for i in ids]))
    assert [task.task_id for task in tasks] == list(map(str, ids)) and capsys.readouterr().out == ""


def test_a_split_says_what_it_leaves(tmp_path, capsys):
    file = write(tmp_path / "own.jsonl", [ROW | {"task_id": i} for i in (1, 11, 12)])
    assert len(read_code_tasks(file, "test")) == 2
    assert "2 of 3 tasks are in MBPP's split 'test'" in capsys.readouterr().out
    every = write(tmp_path / "renamed.jsonl", [ROW | {"task_id": i} for i in range(1, 975)])
    assert len(read_code_tasks(every)) == 500  # all of MBPP's numbers: it is MBPP, whatever its name
    with pytest.raises(UserError, match="needs MBPP's numbers"):
        read_code_tasks(write(tmp_path / "text.jsonl", [ROW | {"task_id": "a/1"}]), "test")


def test_ids_may_be_numbers_in_every_form(tmp_path):
    own = {"prompt": "Add.", "entry_point": "add", "tests": "assert add(1, 1) == 2"}
    rows = [HUMANEVAL | {"task_id": 7}, PLUS | {"task_id": 8}, own | {"task_id": 9}]
    assert [task.task_id for task in read_code_tasks(write(tmp_path / "tasks.jsonl", rows))] == ["7", "8", "9"]


def test_own_tasks_need_no_gold(tmp_path):
    row = {"task_id": "a", "prompt": "Add.", "entry_point": "add", "tests": ["assert add(A, 1) == 2"], "setup": "A = 1"}
    tasks = read_code_tasks(write(tmp_path / "own.jsonl", [row]))
    result = grade(tasks, [{"task_id": "a", "completion": "def add(a, b):\n    return a + b"}], ks=(1,))
    assert result["metrics"]["pass@1"] == 1 and result["gold"]["n"] == 0


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([{"task_id": 1, "prompt": "x", "entry_point": "f"}], ":1: not a code task ('tests' is missing)"),
        ([ROW, ROW | {"task_id": 12, "test_list": ["assert 1"]}], ":2: not a code task (its tests call no function"),
        ([ROW, ROW], ":2: the task_id 11 is used twice, first on line 1"),
        ([HUMANEVAL | {"task_id": "11"}, ROW], ":2: the task_id 11 is used twice"),
        ([ROW, ROW | {"task_id": None}], ':2: not a code task ("task_id" must be text or a whole number, not null)'),
        ([ROW | {"task_id": True}], "not true"),
        ([ROW | {"task_id": 1.5}], "not 1.5"),
        ([HUMANEVAL | {"task_id": ["a"]}], ':1: not a code task ("task_id"'),
        ([HUMANEVAL | {"prompt": None}], '"prompt" must be text, not NoneType'),
        ([ROW | {"test_list": []}], ':1: not a code task (its "test_list" is empty'),
        ([HUMANEVAL | {"tests": ["assert f()"]}], '"tests" beside "test": only one of them can be used'),
        ([HUMANEVAL | {"test": ""}], ':1: not a code task (its "test" is empty'),
        (
            [{"task_id": 1, "prompt": "x", "entry_point": "f", "tests": []}],
            ':1: not a code task (its "tests" are empty',
        ),
        ([], "no task"),
        ([{"task_id": 1, "prompt": "x", "entry_point": "f", "tests": "assert f("}], ":1: not a code task ('(' was"),
    ],
)
def test_a_file_that_holds_no_tasks_is_refused_in_one_line(tmp_path, rows, reason):
    with pytest.raises(UserError) as error:
        read_code_tasks(write(tmp_path / "tasks.jsonl", rows))
    assert reason in str(error.value)


def test_mbpp_by_name_is_looked_for_in_its_folder_and_the_error_says_where_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv("TRITUNE_DATA", str(tmp_path))
    monkeypatch.setenv("TRITUNE_CACHE", str(tmp_path / "cache"))
    with pytest.raises(UserError, match=r"download mbpp\.jsonl from https"):
        read_code_tasks("mbpp")
    (tmp_path / "mbpp").mkdir()
    write(tmp_path / "mbpp" / "mbpp.jsonl", [ROW])
    assert len(read_code_tasks("mbpp")) == 1


@pytest.mark.skipif(not MBPP.is_dir(), reason="TRITUNE_DATA names no folder with mbpp/")
def test_gold_solutions_of_mbpp_pass_also_those_whose_tests_need_the_solutions_own_classes():
    every = read_code_tasks(str(MBPP / "mbpp.jsonl"), "all")
    tasks = [task for task in every if int(task.task_id) in {11, 367, 533, 601}]
    golds = [{"task_id": task.task_id, "completion": f"Sure:\n```python\n{task.gold}\n```"} for task in tasks]
    result = grade(tasks, golds, ks=(1,))
    assert result["gold"] == {"passed": 4, "n": 4, "failed": {}}
    assert [row["status"] for row in result["results"]] == ["pass"] * 4


@pytest.mark.slow
@pytest.mark.skipif(not MBPP.is_dir(), reason="TRITUNE_DATA names no folder with mbpp/")
@pytest.mark.parametrize("name", ["mbpp.jsonl", "sanitized-mbpp.json"])
def test_every_gold_solution_of_mbpp_passes_the_whole_way(name):
    tasks = read_code_tasks(str(MBPP / name), "all")
    golds = [{"task_id": task.task_id, "completion": f"```python\n{task.gold}\n```"} for task in tasks]
    result = grade(tasks, golds, ks=(1,))
    assert result["gold"]["failed"] == {} and result["metrics"]["pass@1"] == 1
