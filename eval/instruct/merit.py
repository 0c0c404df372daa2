"""How good an answer is beyond right or wrong: measures by category, from 0 to 1.

| measure | of | is |
|---|---|---|
| mutation_score | unit_test | mutants that the test fails on / mutants; 0 if it fails on the function itself |
| improvement | improve | 1 if its check ran and passed, and complexity, ruff's findings, time or size improved |
| docstring_match | docstring | entries due and present / due or present (arguments, returns, raises) |
| docstring_clean | docstring | 1 if ruff's pydocstyle rules find nothing in it |
| explanation_coverage | explain | share of what the function takes, calls and raises that the text mentions |
"""

from __future__ import annotations

import ast
import json
from dataclasses import replace

from common.markdown import without_blocks
from common.python_syntax import parsed
from data.checks import EXECUTED, race_job
from data.instruct.answers import given_code
from data.instruct.docstyle import docstring_in
from eval.code.score import GREEDY
from eval.instruct.improvement import gains, is_gain, time_gain
from eval.instruct.wording import docstring_issues, docstring_match, explanation_coverage
from sandbox.run import run_jobs

MEASURES = ("mutation_score", "improvement", "docstring_match", "docstring_clean", "explanation_coverage")


def with_measures(by_id: dict[str, dict], rows: list[dict], *, allow_unsafe_exec: bool = False) -> list[dict]:
    """The judged rows with "measures", name -> value, as far as each applies.

    A row that fails its category's form has 0. What was not executed has no mutation_score and no improvement. Greedy
    answers are timed (in the sandbox, about two seconds each), samples are not.
    """
    rows = [row | {"measures": {}} for row in rows]
    _improvements(by_id, [row for row in rows if _is_executed(by_id, row, "improve")], allow_unsafe_exec)
    for row in rows:
        if _is_executed(by_id, row, "unit_test"):
            row["measures"]["mutation_score"] = row.get("mutation_score", 0.0)
    _docstrings(by_id, [row for row in rows if row["category"] == "docstring"])
    for row in rows:
        code = given_code(by_id[row["id"]])
        if row["category"] == "explain" and _has_function(code):
            covered = explanation_coverage(without_blocks(row["output"]), code)
            if covered is not None:
                row["measures"]["explanation_coverage"] = covered if row["lenient"] else 0.0
    return rows


def _is_executed(by_id: dict[str, dict], row: dict, category: str) -> bool:
    is_due = row["category"] == category and by_id[row["id"]]["check"]["kind"] in EXECUTED
    return is_due and row["status"] != "not executed"


def _improvements(by_id: dict[str, dict], rows: list[dict], allow_unsafe_exec: bool) -> None:
    kept = [row for row in rows if row["status"] == "pass" and parsed(given_code(by_id[row["id"]]))]
    measured = gains([given_code(by_id[row["id"]]) for row in kept], [row["code"] for row in kept])
    for row in rows:
        row["measures"]["improvement"] = 0.0
    times = _times(by_id, [row for row in kept if row["sample"] == GREEDY], allow_unsafe_exec)
    for row, gain in zip(kept, measured, strict=True):
        row["gain"] = gain | {"time": times.get(row["id"]) if row["sample"] == GREEDY else None}
        row["measures"]["improvement"] = float(is_gain(row["gain"]))


def _times(by_id: dict[str, dict], rows: list[dict], allow_unsafe_exec: bool) -> dict[str, float]:
    """`time_gain` by row id, for rows whose check has examples or calls to time."""
    asked = {row["id"]: race_job(by_id[row["id"]]["check"], given_code(by_id[row["id"]]), row["code"]) for row in rows}
    jobs = [replace(job, id=i) for i, job in asked.items() if job is not None]
    outcomes = run_jobs(jobs, what="measuring time", allow_unsafe_exec=allow_unsafe_exec)
    rounds = {
        one.id: json.loads(one.got[0]) for one in outcomes if one.outcome == "finished" and one.exceptions == [None]
    }
    return {i: time_gain(of_row) for i, of_row in rounds.items() if of_row}


def _docstrings(by_id: dict[str, dict], rows: list[dict]) -> None:
    rows = [row for row in rows if _has_function(given_code(by_id[row["id"]]))]
    codes = [given_code(by_id[row["id"]]) for row in rows]
    texts = [docstring_in(row["output"]) for row in rows]
    for row, code, text, issues in zip(rows, codes, texts, docstring_issues(codes, texts), strict=True):
        row["docstring_issues"] = [f"{issue.rule}: {issue.message}" for issue in issues]
        row["measures"]["docstring_match"] = docstring_match(text, code) if row["lenient"] else 0.0
        row["measures"]["docstring_clean"] = float(row["lenient"] and not issues)


def _has_function(code: str) -> bool:
    tree = parsed(code)
    return tree is not None and any(isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef) for n in ast.walk(tree))
