import json
import random
import sys

import pytest

from common.console import UserError, run_command
from eval.code import __main__ as code
from eval.code import verdict
from eval.code.ask import ask, chat_prompt, plain_prompt
from eval.code.grade import choose_ks, grade
from eval.code.score import summary
from eval.code.tasks import CodeTask
from eval.code.verdict import Verdict
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
    assert result["metrics"] == {"greedy_pass@1": 1.0, "pass@1": 0.125, "pass@3": 0.375}
    assert result["values"]["pass@3"] == {"one": 0.75, "two": 0.0} and result["n"] == 2
    low, high = result["intervals"]["pass@1"]
    assert low <= 0.125 <= high
    assert result["gold"] == {"passed": 2, "n": 2, "failed": {}}


def test_each_answer_keeps_its_raw_text_what_was_read_and_where_and_its_class(result):
    of_one = {row["sample"]: row for row in result["results"] if row["task_id"] == "one"}
    statuses = [of_one[sample]["status"] for sample in ("greedy", 0, 1, 2, 3)]
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
    assert summary(rows, (1,))["metrics"] == {"pass@1": 0.75}


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
    assert result["metrics"] == {"greedy_pass@1": 0.0, "pass@1": 0.0, "pass@3": 0.0}
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


@pytest.mark.parametrize(
    ("options", "reason"),
    [
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
