"""The command of experiments/anchors on a tiny model, and when a published figure counts as explained."""

from __future__ import annotations

import json
import shutil

import pytest

from common.console import UserError
from experiments.anchors.published import explanation, name_of, published_of
from experiments.anchors.readings import READINGS
from tests.commands import run

TASK = {"prompt": 'def f(x):\n    """Add one."""\n', "entry_point": "f", "canonical_solution": "    return x + 1\n"}
ANSWER = "Here:\n\n```python\ndef f(x):\n    return x + 1\n```\n\nAnd a call:\n\n```python\nprint(f(1))\n```"


def variant(value, interval, *, distinguishable=True):
    return {"interval": interval, "change": {"value": value, "distinguishable": distinguishable}}


def test_a_figure_outside_is_explained_only_by_what_leads_to_it():
    inside = explanation(0.5, [0.4, 0.6], {"a": variant(0.3, [0.4, 0.9])})
    assert inside == {"inside": True, "causes": []}
    variants = {
        "reaches": variant(0.3, [0.6, 0.9]),
        "too weak": variant(0.1, [0.4, 0.65]),
        "by chance": variant(0.3, [0.6, 0.9], distinguishable=False),
        "away": variant(-0.3, [0.0, 0.9]),
    }
    assert explanation(0.7, [0.4, 0.6], variants) == {"inside": False, "causes": ["reaches"]}
    assert explanation(0.2, [0.4, 0.6], variants)["causes"] == ["away"]
    assert explanation(0.7, [0.4, 0.6], {}) == {"inside": False, "causes": []}  # unexplained


def test_published_figures_are_found_by_the_last_part_of_a_name():
    assert published_of("Qwen/Qwen2.5-Coder-0.5B-Instruct", "humaneval") == 0.616
    assert published_of("/models/qwen2.5-coder-1.5b-instruct", "mbpp-sanitized") == 0.692
    with pytest.raises(UserError, match="nothing is published of it here"):
        name_of("smollm2-135m")


def test_other_readings_lose_what_they_lose(tmp_path):
    tasks, answers = tmp_path / "tasks.jsonl", tmp_path / "answers.jsonl"
    tasks.write_text(json.dumps({"task_id": "t", **TASK, "tests": "assert f(1) == 2"}) + "\n")
    statuses = {}
    for how, read in {"ours": str, **READINGS}.items():
        answers.write_text(json.dumps({"task_id": "t", "completion": read(ANSWER), "sample": "greedy"}) + "\n")
        out = tmp_path / f"{how}.json"
        assert run("-m", "eval.code", "--tasks", tasks, "--answers", answers, "--out", out).returncode == 0
        statuses[how] = json.loads(out.read_text())["results"][0]["status"]
    assert statuses == {"ours": "pass", "no-extraction": "syntax", "first-block": "pass", "stop-words": "syntax"}


def test_it_runs_from_the_answers_to_the_page(smoke, tiny_folder, tmp_path):
    model = tmp_path / "Qwen2.5-Coder-0.5B-Instruct"
    shutil.copytree(tiny_folder, model)
    rows = [{"task_id": f"t{n}", **TASK, "tests": f"assert f({n}) == {n + 1}"} for n in range(4)]
    (tmp_path / "plus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = ("--models", model, "--benchmarks", "--humaneval-plus", tmp_path / "plus.jsonl", "--weights", "rounded")
    results, page = smoke("anchors", *options)
    (one,) = results["anchors"]
    assert one["published"] == 0.573 and one["n"]["greedy_pass@1"] == 3
    assert (one["inside"], one["causes"]) == (False, [])  # random weights solve nothing, in any setting
    assert one["variants"].keys() >= {*READINGS, "plain-prompt", "short-answers", "4-bit"}
    assert one["variants"]["4-bit"]["n"]["greedy_pass@1"] == 2  # the drawn tasks
    assert one["variants"]["no-extraction"]["changes"]["greedy_pass@1"]["n"] == 3
    assert one["variants"]["short-answers"]["metrics"]["answer_characters"] <= one["metrics"]["answer_characters"]
    assert (tmp_path / "anchors" / "qwen2.5-coder-0.5b-instruct-humaneval-plus.svg").is_file()
    assert "The weights are not as published: rounded." in page and "| humaneval-plus | 0.573 | 0.000 [" in page
    count = len(smoke.commands)
    smoke("anchors", *options)
    assert len(smoke.commands) == count
