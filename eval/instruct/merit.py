"""How good an answer is beyond right or wrong: its style, what it invents, and measures of a category from 0 to 1.

| measure | of | is |
|---|---|---|
| mutation_score | unit_test | mutants that the test fails on / mutants; 0 if it fails on the function itself |
| improvement | improve | 1 if its check ran and passed, and complexity, ruff's findings, time or size gained |
| docstring_match | docstring | entries due and there / entries due or there (arguments, returns, raises) |
| docstring_clean | docstring | 1 if ruff's pydocstyle rules find nothing in it |
| explanation_coverage | explain | what the function takes, calls and raises and the text mentions / all of it |
"""

from __future__ import annotations

import ast
import json
from collections.abc import Sequence

from common.markdown import without_blocks
from common.python_syntax import parsed
from data.checks import EXECUTED, KILLED, race_job
from data.instruct.docstyle import docstring_in
from eval.instruct.answers import CODE_CATEGORIES, IN_PLACE, given_code
from eval.instruct.hallucination import Answer, check_names
from eval.instruct.structure import docstring_match, explanation_coverage
from eval.instruct.style import docstring_issues, gains, is_gain, lint, style_issues, time_gain
from sandbox.run import Job, run_jobs

MEASURES = ("mutation_score", "improvement", "docstring_match", "docstring_clean", "explanation_coverage")


def lint_and_look_up(by_id: dict[str, dict], rows: list[dict], options: dict) -> None:
    """Sets style_issues, names_checked, names_by_kind, hallucinated and names_unknown of each row."""
    codes = [row["code"] if row["code"] and parsed(row["code"]) else None for row in rows]
    found = iter(lint([code for code in codes if code is not None]))
    issues = [next(found) if code is not None else [] for code in codes]
    answers, packages = [], _packages(by_id)
    for row, code, listed in zip(rows, codes, issues, strict=True):
        pair = by_id[row["id"]]
        given = given_code(pair) if pair["category"] in IN_PLACE else ""
        row["style_issues"] = style_issues(code, listed, given) if code is not None else []
        answers.append(_named(pair, row, code, listed, packages))
    for row, report in zip(rows, check_names(answers, **options), strict=True):
        row.update(names_checked=report.checked, hallucinated=list(report.hallucinated), names_unknown=report.unknown)
        row.update(names_by_kind=report.kinds)


def _packages(by_id: dict[str, dict]) -> dict[str, str]:
    """Top folder of a source path -> the package that it is of, as the checks that are executed name it."""
    of_path = ((pair.get("source", {}).get("path"), pair["check"].get("package")) for pair in by_id.values())
    return {path.split("/")[0]: package for path, package in of_path if path and package}


def _named(pair: dict, row: dict, code: str | None, issues: list, packages: dict[str, str]) -> Answer:
    path = pair.get("source", {}).get("path")
    package = pair["check"].get("package") or (packages.get(path.split("/")[0]) if path else None)
    module = pair["check"].get("module")
    if module is None and package and path:  # a check of structure names none
        module = path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    return Answer(
        code=code,
        issues=tuple(issues),
        prose=_prose(pair["category"], row["output"]),
        prompt=f"{pair.get('instruction', '')}\n{pair['input']}",
        package=package,
        module=module if pair["category"] != "unit_test" else None,
        path=path,
    )


def _prose(category: str, output: str) -> str | None:
    """The words of an answer, in which names are looked up as words: what stands between fences is code."""
    if category in CODE_CATEGORIES:
        return None
    return without_blocks(docstring_in(output), marks="`") if category == "docstring" else without_blocks(output)


def mutation_score(results: Sequence[dict]) -> float:
    """Share of mutants that a test fails on; results are of `data.checks.unit_test_jobs`, the function itself first."""
    if len(results) < 2 or results[0]["outcome"] != "finished":
        return 0.0
    return sum(result["outcome"] in KILLED for result in results[1:]) / len(results[1:])


def add_measures(by_id: dict[str, dict], rows: list[dict], *, allow_unsafe_exec: bool = False) -> None:
    """Sets row["measures"], name -> value, for what can be told of each row; executed rows have their verdict already.

    A row that fails its category's form has 0. What was not executed has no mutation_score and no improvement. The time
    of greedy answers is measured (in the sandbox, about two seconds each), but not that of samples.
    """
    for row in rows:
        row["measures"] = {}
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


def _is_executed(by_id: dict[str, dict], row: dict, category: str) -> bool:
    is_due = row["category"] == category and by_id[row["id"]]["check"]["kind"] in EXECUTED
    return is_due and row["status"] != "not executed"


def _improvements(by_id: dict[str, dict], rows: list[dict], allow_unsafe_exec: bool) -> None:
    kept = [row for row in rows if row["status"] == "pass" and parsed(given_code(by_id[row["id"]]))]
    measured = gains([given_code(by_id[row["id"]]) for row in kept], [row["code"] for row in kept])
    for row in rows:
        row["measures"]["improvement"] = 0.0
    times = _times(by_id, [row for row in kept if row["sample"] == "greedy"], allow_unsafe_exec)
    for row, gain in zip(kept, measured, strict=True):
        row["gain"] = gain | {"time": times.get(row["id"]) if row["sample"] == "greedy" else None}
        row["measures"]["improvement"] = float(is_gain(row["gain"]))


def _times(by_id: dict[str, dict], rows: list[dict], allow_unsafe_exec: bool) -> dict[str, float]:
    """What `time_gain` says of each row by its id, where the examples of its check could be run against the clock."""
    asked = {row["id"]: race_job(by_id[row["id"]]["check"], given_code(by_id[row["id"]]), row["code"]) for row in rows}
    jobs = [Job(i, **job) for i, job in asked.items() if job is not None]
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
