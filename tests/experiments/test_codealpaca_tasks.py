"""Our own code tasks: each has a solution that passes, and tests that fail nearly everything else."""

from __future__ import annotations

import ast
import json
import textwrap
from collections import Counter
from pathlib import Path

import pytest

from data.checks.mutate import mutants
from tests.commands import run

FILE = Path(__file__).resolve().parents[2] / "experiments" / "codealpaca" / "own_tasks.jsonl"
TASKS = [json.loads(line) for line in FILE.read_text(encoding="utf-8").splitlines()]


def test_every_solution_passes_and_there_are_eight_tasks_of_each_type(tmp_path):
    done = run("-m", "eval.code", "--tasks", FILE, "--gold", "--out", tmp_path / "gold.json")
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "gold.json").read_text())["results"]
    assert {row["status"] for row in results} == {"pass"}
    assert [*Counter(row["type"] for row in results).values()] == [8] * 6


@pytest.mark.slow
def test_nearly_every_mutant_of_a_solution_fails(tmp_path):
    """Five of those that pass mean the same: a + b for b + a, or another order of what may come in any order."""
    tasks, answers = [], []
    for task in TASKS:
        for number, program in enumerate(programs(task["canonical_solution"])):
            tasks.append(task | {"task_id": f"{task['task_id']}, mutant {number}"})
            fenced = f"```python\n{program}```"
            answers.append({"task_id": tasks[-1]["task_id"], "completion": fenced, "sample": "greedy"})
    for name, rows in (("tasks", tasks), ("answers", answers)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = tmp_path / "out.json"
    done = run(
        "-m", "eval.code", "--tasks", tmp_path / "tasks.jsonl", "--answers", tmp_path / "answers.jsonl", "--out", out
    )
    assert done.returncode == 0, done.stderr
    passed = [row["task_id"] for row in json.loads(out.read_text())["results"] if row["status"] == "pass"]
    assert len(answers) > 700 and len(passed) <= 8, passed


def programs(solution: str):
    """The solution with one change in one function or method."""
    lines = solution.splitlines(keepends=True)
    tree = ast.parse(solution)
    within = [node for node in ast.walk(tree) if isinstance(node, (ast.Module, ast.ClassDef))]
    for function in (node for parent in within for node in parent.body if isinstance(node, ast.FunctionDef)):
        before, after = lines[: function.lineno - 1], lines[function.end_lineno :]
        source, indent = "".join(lines[function.lineno - 1 : function.end_lineno]), " " * function.col_offset
        for mutant in mutants(textwrap.dedent(source)):
            yield "".join([*before, textwrap.indent(mutant.source, indent), *after])
