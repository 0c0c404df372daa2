"""Judges answers to instruction pairs: reads each, runs it by its pair's check, lints it, looks up the names it uses.

    answer ──► read (form, code) ──► run by the check ──► ruff, names ──► a row that says what was found

The graders of models (eval/instruct) and of teachers (data/instruct/teaching.py) judge by these rows.
"""

from __future__ import annotations

from collections.abc import Sequence

from common.markdown import without_blocks
from common.python_syntax import module_name, parsed
from data.checks import EXECUTED, jobs_of, run_groups
from data.checks.hallucination import Answer, check_names
from data.checks.linting import Issue, lint_style, style_issues
from data.checks.script import is_script
from data.checks.thoughts import split_thoughts
from data.checks.verdict import explain, mutation_score
from data.instruct.answers import CODE_CATEGORIES, IN_PLACE, given_code, read
from data.instruct.docstyle import docstring_in
from data.instruct.reading import Reading


def judge_answers(pairs: Sequence[dict], answers: Sequence[dict]) -> list[dict]:
    """A row for each answer, as `read_answer`, `run_answers` and `check_style_and_names` fill it.

    pairs    [N] the pair that each answer belongs to; a pair may occur several times
    answers  [N] {"output", "stopped": whether the model ended by itself}
    """
    rows = [read_answer(pair, answer) for pair, answer in zip(pairs, answers, strict=True)]
    return check_style_and_names(pairs, run_answers(pairs, rows))


def read_answer(pair: dict, answer: dict) -> dict:
    """The row of an answer that has not been run.

    {"id", "category", "status": "pass" (prose), "not executed" (code) or why its form fails, "lenient": whether it has
    the right form, "output", "thoughts" if a reasoning model gave any, "stopped", "code", "detail"}
    """
    thoughts, output = split_thoughts(answer["output"])
    reading = read(pair, output)
    is_prose = pair["category"] not in CODE_CATEGORIES
    if is_prose and not answer["stopped"]:  # code that was cut off shows it by not parsing; prose does not
        reading = Reading(None, "did not stop", "wrong")
    return {
        "id": pair["id"],
        "category": pair["category"],
        "status": reading.status or ("pass" if is_prose else "not executed"),
        "lenient": reading.problem is None,
        "output": output,
        **({"thoughts": thoughts} if thoughts else {}),
        "stopped": answer["stopped"],
        "code": reading.code,
        "detail": reading.problem or "",
    }


def run_answers(
    pairs: Sequence[dict], rows: Sequence[dict], *, processes: int | None = None, allow_unsafe_exec: bool = False
) -> list[dict]:
    """The rows after running, by its pair's check, each answer that has the right form and a check that can be run.

    Adds what `data.checks.verdict.explain` says and, of a unit test, its "mutation_score".
    """
    is_run = [row["lenient"] and pair["check"]["kind"] in EXECUTED for pair, row in zip(pairs, rows, strict=True)]
    jobs = [
        jobs_of(pair["check"], row["code"]) if runs else [] for pair, row, runs in zip(pairs, rows, is_run, strict=True)
    ]
    outcomes = run_groups(jobs, processes=processes, allow_unsafe_exec=allow_unsafe_exec, what="running answers")
    done = []
    for pair, row, runs, of_row in zip(pairs, rows, is_run, outcomes, strict=True):
        found = explain(pair["check"], of_row) if runs else {}
        if runs and row["category"] == "unit_test":
            found["mutation_score"] = mutation_score(of_row)
        done.append(row | found)
    return done


def check_style_and_names(
    pairs: Sequence[dict], rows: Sequence[dict], *, processes: int | None = None, allow_unsafe_exec: bool = False
) -> list[dict]:
    """The rows with "style_issues", "names_checked", "hallucinated", "names_unknown" and "names_by_kind".

    Ruff runs once for all rows, and equal names are looked up once. Both are for Python: rows of other languages have
    no issue and no name.
    """
    is_python = [not is_script(pair) for pair in pairs]
    codes = [
        row["code"] if python and row["code"] and parsed(row["code"]) else None
        for row, python in zip(rows, is_python, strict=True)
    ]
    found = iter(lint_style([code for code in codes if code is not None]))
    issues = [next(found) if code is not None else [] for code in codes]
    packages = _packages(pairs)
    answers = [
        Answer() if is_script(pair) else _named(pair, row, code, listed, packages)
        for pair, row, code, listed in zip(pairs, rows, codes, issues, strict=True)
    ]
    reports = check_names(answers, processes=processes, allow_unsafe_exec=allow_unsafe_exec)
    done = []
    for pair, row, code, listed, report in zip(pairs, rows, codes, issues, reports, strict=True):
        given = given_code(pair) if pair["category"] in IN_PLACE else ""
        done.append(
            row
            | {
                "style_issues": style_issues(code, listed, given) if code is not None else [],
                "names_checked": report.checked,
                "hallucinated": list(report.hallucinated),
                "names_unknown": report.unknown,
                "names_by_kind": report.kinds,
            }
        )
    return done


def _packages(pairs: Sequence[dict]) -> dict[str, str]:
    """Top folder of a source path -> its package, as the executed checks name it."""
    of_path = ((pair.get("source", {}).get("path"), pair["check"].get("package")) for pair in pairs)
    return {path.split("/")[0]: package for path, package in of_path if path and package}


def _named(pair: dict, row: dict, code: str | None, issues: list[Issue], packages: dict[str, str]) -> Answer:
    path = pair.get("source", {}).get("path")
    package = pair["check"].get("package") or (packages.get(path.split("/")[0]) if path else None)
    module = pair["check"].get("module")
    if module is None and package and path:  # a check of structure names none
        module = module_name(path)
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
    """The text of an answer in which names are looked up as words; fenced blocks are code."""
    if category in CODE_CATEGORIES:
        return None
    return without_blocks(docstring_in(output), marks="`") if category == "docstring" else without_blocks(output)
