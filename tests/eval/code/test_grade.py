import json
import random
import sys

import pytest

from common.console import UserError, run_command
from eval.code import __main__ as code
from eval.code import verdict
from eval.code.ask import ask, chat_prompt, plain_prompt
from eval.code.grade import choose_ks, grade
from eval.code.score import task_values
from eval.code.tasks import CodeTask, drawn
from eval.code.verdict import Verdict
from eval.compare import compare
from model import load_tokenizer

GOLDS = {"one": "def f(x):\n    return 1\n", "two": "def f(x):\n    return 2\n"}
TASKS = [
    CodeTask("one", "Return one.", "f", "assert f(0) == 1\n", gold=GOLDS["one"]),
    CodeTask("two", "Return two.", "f", "assert f(0) == 2\n", gold=GOLDS["two"]),
]
ANSWERS = [
    {"task_id": task, "completion": answer, "sample": sample}
    for task in GOLDS
    for sample, answer in enumerate([GOLDS["one"], "no idea", "```\ndef f(x) return 1\n```", "def f(x):\n    return x"])
] + [{"task_id": task, "completion": f"```python\n{gold}```", "sample": "greedy"} for task, gold in GOLDS.items()]


@pytest.fixture(scope="module")
def result():
    return grade(TASKS, ANSWERS, ks=(1, 3))


def test_figures_are_the_unbiased_estimate_over_samples_with_greedy_beside(result):
    lengths = {"answer_characters": sum(len(f"```python\n{gold}```") for gold in GOLDS.values()) / 2}
    passed = {"greedy_pass@1": 1.0, "pass@1": 0.125, "pass@3": 0.375}
    assert result["metrics"] == passed | {"syntactic": 1.0} | lengths
    assert result["values"]["pass@3"] == {"one": 0.75, "two": 0.0} and result["n"] == 2
    low, high = result["intervals"]["pass@1"]
    assert low <= 0.125 <= high
    assert result["gold"] == {"passed": 2, "n": 2, "failed": {}}


def test_each_answer_keeps_its_raw_text_what_was_read_and_where_and_its_class(result):
    of_one = {row["sample"]: row for row in result["results"] if row["task_id"] == "one"}
    samples = ("greedy", 0, 1, 2, 3)
    assert [of_one[sample]["cause"] for sample in samples] == [
        None, None, "no code in the answer", "syntax", "off by one",
    ]  # fmt: skip
    assert {key: of_one[3][key] for key in ("asked", "expected", "got", "held")} == {
        "asked": "f(0)", "expected": "1", "got": "0", "held": 0,
    }  # fmt: skip
    statuses = [of_one[sample]["status"] for sample in samples]
    assert statuses == ["pass", "pass", "extraction", "syntax", "wrong"]
    assert of_one["greedy"]["route"] == "fence" and of_one["greedy"]["completion"].startswith("```")
    assert of_one["greedy"]["code"] == GOLDS["one"] and of_one[1]["code"] is None
    assert result["routes"] == {"fence": 2, "none": 4, "text": 4}


def test_the_order_of_tasks_and_answers_and_the_number_of_processes_change_nothing(result):
    answers = random.Random(1).sample(ANSWERS, len(ANSWERS))
    again = grade(TASKS, answers, ks=(1, 3), processes=1)
    assert again["results"] == result["results"] and again["environment"] == result["environment"]
    backwards = grade(TASKS[::-1], answers, ks=(1, 3))
    assert backwards["metrics"] == result["metrics"]


def test_an_interrupted_run_resumes_and_runs_nothing_twice(result, tmp_path, monkeypatch):
    keep = tmp_path / "kept.jsonl"
    monkeypatch.setattr(verdict, "CHUNK", 1)
    run_tests, runs = verdict.run_tests, []

    def stops_at_the_third(jobs, **options):
        runs.append(str(jobs))
        if len(runs) == 3:
            raise KeyboardInterrupt
        return run_tests(jobs, **options)

    monkeypatch.setattr(verdict, "run_tests", stops_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        grade(TASKS, ANSWERS, keep=keep)
    with open(keep, "a") as file:
        file.write('{"key": "half a li')
    again = grade(TASKS, ANSWERS, ks=(1, 3), keep=keep)
    assert again["results"] == result["results"]
    assert len(set(runs)) == len(runs) - 1  # only the third came twice
    assert len(verdict.VerdictCache(keep).known) == len(runs) - 1


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        (ANSWERS[:1], "1 tasks have no answer, the first is two"),
        ([*ANSWERS, ANSWERS[0]], "sample 0 of one is given twice"),
        (ANSWERS[1:], "unequal numbers"),
        ([{"task_id": "three", "completion": ""}], "answers:1: there is no task three"),
        ([{"task_id": "one"}], '"completion" that is text'),
        ([{**answer, "sample": "x"} for answer in ANSWERS], '"sample" must be a whole number'),
        ([answer for answer in ANSWERS if answer["sample"] in (0, 1, 2)], "too few for pass@3"),
        ([answer for answer in ANSWERS if answer["sample"] == "greedy"], "0 samples per task are too few"),
    ],
)
def test_answers_that_do_not_fit_are_refused_before_anything_runs(answers, reason, monkeypatch):
    monkeypatch.setattr(verdict, "run_tests", None)
    with pytest.raises(UserError, match=reason):
        grade(TASKS, answers, ks=(1, 3))


@pytest.mark.parametrize(
    ("samples", "ks", "chosen"), [(10, None, (1, 3)), (9, None, (1,)), (4, (3,), (3,)), (1, (1,), (1,))]
)
def test_fewer_than_ten_samples_estimate_more_than_pass_at_1_only_if_asked(samples, ks, chosen):
    assert choose_ks(samples, ks) == chosen


def test_one_answer_a_task_has_pass_at_1_alone():
    rows = [{"task_id": str(i), "sample": 0, "status": "pass" if i < 3 else "wrong"} for i in range(4)]
    rows = [row | {"detail": "", "completion": "x"} for row in rows]
    assert task_values(rows, (1,)).keys() == {"pass@1", "syntactic", "answer_characters"}
    assert list(task_values(rows, (1,))["pass@1"].values()) == [1, 1, 1, 0]


def test_valid_code_is_a_rate_of_its_own_over_all_tasks_and_is_compared_task_by_task():
    """Wrong code is valid, code of another name too; what does not parse, or is raised as a SyntaxError, is not."""
    codes = [
        "def f(x):\n    return 7\n",
        "def g(x):\n    return 1\n",
        "```\ndef f(x) return 1\n```",
        "I do not know.",
        "def f(x):\n    return eval('1 +')\n",
        "def f(x):\n    return undefined\n",
        "```python\ndef f(x):\n  return 1\n return 2\n```",
    ]
    tasks = [CodeTask(str(i), "Return one.", "f", "assert f(0) == 1\n") for i in range(len(codes))]
    before = grade(tasks, [{"task_id": str(i), "completion": code} for i, code in enumerate(codes)])
    assert list(before["values"]["syntactic"].values()) == [1, 1, 0, 0, 0, 1, 0]
    assert before["n_of"]["syntactic"] == 7 and before["intervals"]["syntactic"][0] < 3 / 7
    after = grade(tasks, [{"task_id": str(i), "completion": codes[0]} for i in range(len(codes))])
    change = compare(before, after)["syntactic"]
    assert change["value"] == pytest.approx(4 / 7) and change["n"] == 7
    assert before["causes"] == {
        "wrong value": 1, "misread instruction": 1, "syntax": 2, "no code in the answer": 1, "raises SyntaxError": 1,
        "uses a name that does not exist": 1,
    }  # fmt: skip


def test_figures_are_also_by_type_of_task():
    golds = ["def f(x):\n    return x + 1\n", "def f(x):\n    return x.upper()\n", "def f(x):\n    return -x\n"]
    tests = ["assert f(1) == 2\n", "assert f('a') == 'A'\n", "assert f(1) == -1\n"]
    tasks = [CodeTask(str(i), "Do.", "f", tests[i], gold=gold) for i, gold in enumerate(golds)]
    result = grade(tasks, [{"task_id": str(i), "completion": golds[0], "sample": "greedy"} for i in range(3)])
    assert {kind: of["n"] for kind, of in result["by_type"].items()} == {"strings": 1, "numbers": 2}
    numbers = result["by_type"]["numbers"]
    assert numbers["metrics"]["greedy_pass@1"] == 0.5 and numbers["n_of"]["greedy_pass@1"] == 2
    assert numbers["intervals"]["greedy_pass@1"][0] < 0.5 < numbers["intervals"]["greedy_pass@1"][1]
    assert [row["type"] for row in result["results"]] == ["numbers", "strings", "numbers"]


def test_a_part_of_the_tasks_may_have_samples(result):
    kept = [row for row in ANSWERS if row["task_id"] == "one" or row["sample"] == "greedy"]
    part = grade(TASKS, kept, ks=(1, 3))
    assert part["n_of"] == {"greedy_pass@1": 2, "pass@1": 1, "pass@3": 1, "syntactic": 2, "answer_characters": 2}
    assert part["values"]["pass@3"] == {"one": 0.75}


def test_tasks_are_drawn_alike_for_every_model_and_a_larger_draw_holds_the_smaller():
    tasks = [CodeTask(str(i), "", "f", "") for i in range(30)]
    draws = [drawn(tasks, count) for count in (5, 12, None)]
    assert list(map(len, draws)) == [5, 12, 30] and set(draws[0]) < set(draws[1])
    assert draws[1] == drawn(tasks[::-1], 12)[::-1] != tasks[:12]  # neither the order of the file nor its head
    assert [task.task_id for task in draws[0]] == ["1", "8", "14", "22", "29"]


def test_the_time_an_answer_has_grows_with_its_golds(monkeypatch):
    limits = []

    def run_tests(jobs, **options):
        limits.append([job.seconds for job in jobs])
        return [Verdict("pass", "", 1, 1, 20.0 if job.id == "one" else 0.1) for job in jobs]

    monkeypatch.setattr(verdict, "run_tests", run_tests)
    grade(TASKS, [{"task_id": i, "completion": GOLDS[i]} for i in GOLDS], ks=(1,))
    assert limits == [[60.0, 60.0], [100, 5.0]]


@pytest.mark.parametrize(
    ("said", "completion", "statuses"),
    [
        ("<think>\n```python\ndef f(x): return 2\n```\nNo.\n</think>\n\n", GOLDS["one"], ["pass", "wrong"]),
        (f"Perhaps\n```python\n{GOLDS['two']}```\n</think>\n", f"```python\n{GOLDS['one']}```", ["pass", "wrong"]),
        (f"<think>\n{GOLDS['one']}", "", ["extraction", "extraction"]),
    ],
)
def test_what_a_reasoning_model_says_to_itself_is_no_answer_and_is_kept(said, completion, statuses):
    result = grade(TASKS, [{"task_id": i, "completion": said + completion} for i in GOLDS])
    assert [row["status"] for row in result["results"]] == statuses
    assert {(row["thoughts"], row["completion"]) for row in result["results"]} == {(said, completion)}


HEAD = 'def f(x):\n    """Add one."""\n'


def test_prompts_show_what_the_tests_need():
    mbpp = CodeTask("1", "Add.", "add", "", shown=("assert add(1, 2) == 3",))
    head = CodeTask("2", HEAD, "f", "")
    assert plain_prompt(mbpp) == '"""\nAdd.\nassert add(1, 2) == 3\n"""\n'
    assert plain_prompt(head) == HEAD.rstrip()
    assert "assert add(1, 2) == 3" in chat_prompt(mbpp) and HEAD in chat_prompt(head)
    assert "`f`" in chat_prompt(TASKS[0])


@pytest.mark.parametrize("chat", [True, False])
def test_a_model_is_asked_once_however_often_and_in_whatever_order(tiny, tokenizer, tmp_path, chat):
    options = {"chat": chat, "samples": 2, "temperature": 1.0, "top_p": 1.0, "max_new_tokens": 6, "seed": 3}
    keep = tmp_path / "answers.jsonl"
    first = ask(tiny, tokenizer, TASKS, **options, keep=keep)
    assert [row["sample"] for row in first] == ["greedy", 0, 1] * 2
    assert ask(tiny, tokenizer, TASKS[::-1], **options) == first
    assert ask(None, tokenizer, TASKS, **options, keep=keep) == first  # there is no model to ask any more
    with pytest.raises(AttributeError):
        ask(None, tokenizer, TASKS, **options | {"seed": 4}, keep=keep)


def test_of_the_drawn_tasks_alone_answers_are_sampled(tiny, tokenizer):
    options = {"chat": True, "temperature": 1.0, "top_p": 1.0, "max_new_tokens": 6, "seed": 3}
    tasks = [*TASKS, CodeTask("three", "Return three.", "f", "assert f(0) == 3\n")]
    (only,) = drawn(tasks, 1)
    rows = ask(tiny, tokenizer, tasks, samples=2, sampled=1, **options)
    of_tasks = {task.task_id: [row for row in rows if row["task_id"] == task.task_id] for task in tasks}
    assert {i: len(of_task) for i, of_task in of_tasks.items()} == {t.task_id: 3 if t == only else 1 for t in tasks}
    greedy = {row["task_id"]: row["completion"] for row in rows if row["sample"] == "greedy"}
    alone = ask(tiny, tokenizer, tasks, samples=0, sampled=1, **options)
    assert greedy == {row["task_id"]: row["completion"] for row in alone}


@pytest.mark.parametrize("has_bos", [True, False])
def test_the_prompt_has_exactly_one_bos_if_the_model_has_one(tokenizer_folder, tmp_path, monkeypatch, has_bos):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((tokenizer_folder / name).read_bytes())
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    settings |= {"bos_token": "<|endoftext|>", "add_bos_token": True} if has_bos else {}
    settings["chat_template"] = ("{{ bos_token }}" if has_bos else "") + settings["chat_template"]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    tokenizer = load_tokenizer(str(tmp_path))
    seen = []
    monkeypatch.setattr("eval.code.ask.generate", lambda _, prompts, *rest, **more: seen.extend(prompts) or [[[]]])
    for chat in (True, False):
        ask(None, tokenizer, TASKS[:1], chat=chat, samples=0, temperature=1, top_p=1, max_new_tokens=4, seed=0)
    assert [ids.count(tokenizer.eos_id) for ids in seen] == [int(has_bos)] * 2


def command(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["eval.code", *map(str, arguments)])
    return run_command(code.main)


def test_the_command_asks_a_model_grades_and_writes_a_result(tiny_folder, tmp_path, monkeypatch, capsys):
    tasks = tmp_path / "tasks.jsonl"
    tasks.write_text(
        json.dumps({"task_id": "a", "prompt": "Add.", "entry_point": "f", "tests": "assert f(1) == 2"}) + "\n"
    )
    options = ["--tasks", tasks, "--model", tiny_folder, "--max-new-tokens", 4, "--samples", 4, "--k", 1, 3]
    assert command(monkeypatch, *options, "--out", tmp_path / "r.json") == 0
    result = json.loads((tmp_path / "r.json").read_text())
    names = ["greedy_pass@1", "pass@1", "pass@3", "syntactic", "answer_characters"]
    assert list(result["metrics"]) == names and result["metrics"]["greedy_pass@1"] == 0
    assert len(result["results"]) == 5 and "tier" in result["sandbox"] and result["settings"]["samples"] == 4
    assert not (tmp_path / "r.kept.jsonl").exists() and (tmp_path / "r.answers.jsonl").exists()
    assert "pass@3" in capsys.readouterr().out
    answers = [
        "--tasks",
        tasks,
        "--answers",
        tmp_path / "r.answers.jsonl",
        "--k",
        1,
        3,
        "--out",
        tmp_path / "again.json",
    ]
    assert command(monkeypatch, *answers) == 0  # what a model said can be graded again without it
    assert json.loads((tmp_path / "again.json").read_text())["results"] == result["results"]


def test_the_command_measures_a_draw_of_the_tasks(tiny_folder, tmp_path, monkeypatch, capsys):
    task = {"prompt": "Add.", "entry_point": "f", "tests": "assert f(1) == 2"}
    rows = [task | {"task_id": str(i)} for i in range(6)]
    (tmp_path / "tasks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = ["--tasks", tmp_path / "tasks.jsonl", "--limit", 3, "--out", tmp_path / "r.json"]
    sampling = ["--samples", 2, "--sampled-tasks", 1, "--max-new-tokens", 2, "--seed", 5]
    assert command(monkeypatch, *options, "--model", tiny_folder, *sampling) == 0
    result = json.loads((tmp_path / "r.json").read_text())
    expected = [row["task_id"] for row in rows if CodeTask(row["task_id"], "", "", "") in drawn(
        [CodeTask(row["task_id"], "", "", "") for row in rows], 3
    )]  # fmt: skip
    assert list(dict.fromkeys(row["task_id"] for row in result["results"])) == expected and result["n"] == 3
    assert result["drawn"] == {"n": 3, "of": 6, "seed": 0} and result["settings"]["limit"] == 3
    assert result["n_of"]["pass@1"] == 1 and result["n_of"]["greedy_pass@1"] == 3
    printed = capsys.readouterr().out
    assert (
        "pass@1" in printed and "n = 1" in printed and "failures" in printed and "greedy_pass@1 of numbers" in printed
    )

    # the same draw of given answers to all tasks; the others are counted
    answers = [{"task_id": row["task_id"], "completion": "def f(x): return x + 1"} for row in rows]
    (tmp_path / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in answers))
    assert command(monkeypatch, *options, "--answers", tmp_path / "answers.jsonl") == 0
    again = json.loads((tmp_path / "r.json").read_text())
    assert [row["task_id"] for row in again["results"]] == expected and again["metrics"]["pass@1"] == 1
    assert "3 of 6 answers are to tasks that --limit did not draw" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--gold", "--limit", "0"], "--limit 0: must be at least 1"),
        (["--gold", "--adapter", "x"], "--adapter goes with"),
        (["--model", "m", "--samples", "2", "--k", "3"], "too few for pass@3"),
        (["--gold", "--k", "1"], "omit --k"),
        (["--gold"], "no such file"),
    ],
)
def test_bad_options_are_one_line_and_status_2(tmp_path, monkeypatch, capsys, options, reason):
    assert command(monkeypatch, *options, "--tasks", tmp_path / "none.jsonl", "--out", tmp_path / "r.json") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and reason in error
