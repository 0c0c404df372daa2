"""Answers of one model rated from 1 to 5: a page that needs no server, and what raters saved from it."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from common.console import UserError
from common.files import read_json
from common.highlight import pieces
from common.html import CONTROL, Safe, template
from common.shuffle import seeded_order
from eval.rate.agreement import krippendorff_alpha
from eval.rate.server import STYLE
from eval.stats import bootstrap_mean

QUESTIONS = {
    "clarity": "How clear is the answer?",
    "readability": "How easy is it to read?",
    "adherence": "How well does it do what was asked?",
}
SCALE = (1, 2, 3, 4, 5)
_HERE = Path(__file__).parent


def page(answers: dict[str, str], prompts: dict[str, str], *, rated: str, seed: int = 0) -> str:
    """A page on which each answer is rated from 1 to 5 on each of QUESTIONS; a rater saves a file of ratings from it.

    answers  task id -> the answer; shown in an order that depends on the seed
    prompts  task id -> what was asked; a task without a prompt is shown by its id
    rated    the hash of the result that the answers are from, which the saved file repeats
    It loads nothing from outside itself, and nothing on it says which model answered.
    """
    script = (_HERE / "ratings.js").read_text(encoding="utf-8")
    allowed = base64.b64encode(hashlib.sha256(f"\n{script}".encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{allowed}'"
    items = [
        {"id": i, "prompt": pieces(_clean(prompts.get(i, i))), "answer": pieces(_clean(answers[i]))}
        for i in seeded_order(list(answers), seed)
    ]
    data = json.dumps({"rated_sha256": rated, "questions": QUESTIONS, "items": items})
    render = template(_HERE / "ratings.html.j2")
    # within a script element only "<" could end it, or open a comment
    return str(render(style=STYLE, policy=Safe(policy), data=Safe(data.replace("<", "\\u003c")), script=Safe(script)))


def _clean(text: str) -> str:
    return CONTROL.sub("\ufffd", text)


def read_ratings(paths: Sequence[str], answers: dict[str, str], *, rated: str) -> dict[str, dict[str, dict[str, int]]]:
    """rater -> task id -> question -> rating, from the files that raters saved.

    UserError for a file that is no file of ratings, that rates another result or another task, or whose rater has
    another file already.
    """
    of_raters: dict[str, dict[str, dict[str, int]]] = {}
    for path in paths:
        saved = read_json(path)
        if not isinstance(saved.get("ratings"), list) or not saved.get("rater"):
            raise UserError(f"{path}: no file of ratings, as the page of --page saves it")
        if saved.get("rated_sha256") != rated:
            raise UserError(f"{path}: its ratings are of another result; give the one that the page was made from")
        if saved["rater"] in of_raters:
            raise UserError(f"{path}: there is another file by {saved['rater']}; give one file for each rater")
        of_raters[saved["rater"]] = {str(row.get("id")): _checked(path, row, answers) for row in saved["ratings"]}
    return of_raters


def _checked(path: str, row: dict, answers: dict[str, str]) -> dict[str, int]:
    if row.get("id") not in answers:
        raise UserError(f"{path}: the result has no answer to {row.get('id')}")
    given = {question: row[question] for question in QUESTIONS if question in row}
    for question, value in given.items():
        if type(value) is not int or value not in SCALE:
            raise UserError(f"{path}: {row['id']}: {question} must be a whole number from 1 to 5, not {value!r}")
    return given


def summarise(of_raters: dict[str, dict[str, dict[str, int]]], *, seed: int = 0) -> dict:
    """Means, intervals and agreement of ratings, in the form of an eval result.

    "metrics", "intervals" (95 %, resampling tasks) and "n_of" by question; "values": question -> task -> the mean over
    its raters; "raters": rater -> question -> mean; "agreement": question -> {"n": tasks with two raters or more,
    "equal" and "within_one": shares of their pairs of ratings, "alpha": Krippendorff's, ordinal}; "results": a row a
    task. UserError if there is no rating.
    """
    tasks = sorted({i for of_tasks in of_raters.values() for i, given in of_tasks.items() if given})
    if not tasks:
        raise UserError("there is no rating in these files")
    # question -> task -> its ratings, one a rater
    ratings: dict[str, dict[str, list[int]]] = {question: {} for question in QUESTIONS}
    for rated in of_raters.values():
        for i in tasks:
            for question, value in rated.get(i, {}).items():
                ratings[question].setdefault(i, []).append(value)
    values = {question: {i: fmean(listed) for i, listed in of.items()} for question, of in ratings.items() if of}
    found = {question: bootstrap_mean(list(of.values()), seed=seed) for question, of in values.items()}
    return {
        "metrics": {question: mean for question, (mean, _, _) in found.items()},
        "intervals": {question: [low, high] for question, (_, low, high) in found.items()},
        "n_of": {question: len(of) for question, of in values.items()},
        "n": len(tasks),
        "values": values,
        "raters": {rater: _means(rated) for rater, rated in of_raters.items()},
        "agreement": {question: _agreement(list(ratings[question].values())) for question in values},
        "results": [{"id": i, "status": "rated", "ratings": _of_task(of_raters, i)} for i in tasks],
    }


def _of_task(of_raters: dict[str, dict[str, dict[str, int]]], i: str) -> dict[str, dict[str, int]]:
    return {rater: rated[i] for rater, rated in of_raters.items() if rated.get(i)}


def _means(rated: dict[str, dict[str, int]]) -> dict[str, float]:
    listed = {question: [given[question] for given in rated.values() if question in given] for question in QUESTIONS}
    return {question: fmean(of) for question, of in listed.items() if of}


def _agreement(units: list[list[int]]) -> dict:
    """units: the ratings of each task."""
    several = [unit for unit in units if len(unit) > 1]
    pairs = [abs(one - other) for unit in several for i, one in enumerate(unit) for other in unit[:i]]
    return {
        "n": len(several),
        "equal": sum(apart == 0 for apart in pairs) / len(pairs) if pairs else None,
        "within_one": sum(apart <= 1 for apart in pairs) / len(pairs) if pairs else None,
        "alpha": krippendorff_alpha(units, ordinal=True),
    }


def table(result: dict) -> str:
    """The result as text, one line per question."""
    lines = []
    for question, mean in result["metrics"].items():
        low, high = result["intervals"][question]
        line = f"{question:12} {mean:.2f} of 5  [{low:.2f}, {high:.2f}]  n = {result['n_of'][question]}"
        shared = result["agreement"][question]
        if shared["n"]:
            line += f" · raters equal on {shared['equal']:.0%}, within one on {shared['within_one']:.0%}"
            line += "" if shared["alpha"] is None else f", alpha {shared['alpha']:.2f}"
            line += f" (n = {shared['n']})"
        lines.append(line)
    return "\n".join(lines)
