"""A teacher's answers in place of the repository's own: several per task; the check decides, then the majority.

    task ──► n replies ──► read, run, linted, names looked up ──► those that pass ──► the one given most often

A teacher is judged as a model under evaluation is (data/instruct/judging.py): only an answer that would count as right
is trained on. By default it is not asked for what the repository itself knows best (a bug, the body of a function).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

from data.checks.script import is_script
from data.corpus.languages import NAMES
from data.instruct.docstyle import docstring_in, quoted
from data.instruct.judging import judge_answers
from data.instruct.pair_filters import normalized, pair_problem
from data.instruct.script.answers import comment_in
from data.instruct.teacher import Teacher
from data.rows import conversation_of

TAUGHT = ("docstring", "explain", "unit_test", "improve")  # by default
REFUSED = "teacher: "  # begins the reason of an answer that does not hold, before its kind and details
SYSTEM = (
    "You are an experienced Python programmer. Answer exactly in the form that is asked for, without greeting or "
    "comment. Be concise and precise; say nothing about the code that it does not show."
)


def teach(
    pairs: list[dict], teacher: Teacher, *, candidates: int, most_output: int, categories: Collection[str] = TAUGHT
) -> tuple[list[dict], list[dict]]:
    """The pairs, with the teacher's answer as output where one holds, and the candidates that did not.

    An answer holds if it passes the pair's check (by running, where that runs code), ruff, the look-up of its names and
    data/instruct/pair_filters.py; ruff and the look-up are for Python alone. Of those that hold, the most frequent is
    taken, the first among equals. Taught pairs record "teacher": {"model", "candidates", "held", "alike"}. Others keep
    their output.
    Rejects: {"id", "category", "reason", "output"}.
    """
    asked = [pair for pair in pairs if pair["category"] in categories]
    replies = teacher.ask([question(pair) for pair in asked], samples=candidates)
    given = [(pair, reply) for pair, of_pair in zip(asked, replies, strict=True) for reply in of_pair if reply]
    rows = judge_answers(
        [pair for pair, _ in given], [{"output": reply.text, "stopped": reply.stopped} for _, reply in given]
    )
    held: dict[str, list[str]] = {}
    rejects = []
    for (pair, reply), row in zip(given, rows, strict=True):
        output = _as_output(pair, reply.text, row["code"])
        problem = _problem(row) or pair_problem({**pair, "output": output})
        if problem is None and len(output) > most_output:
            problem = f"output over {most_output} characters"
        if problem is None:
            held.setdefault(pair["id"], []).append(output)
        else:
            found = {"id": pair["id"], "category": pair["category"]}
            rejects.append({**found, "reason": f"{REFUSED}{problem}", "output": reply.text})
    return [
        _taught(pair, held[pair["id"]], teacher, candidates) if pair["id"] in held else pair for pair in pairs
    ], rejects


def question(pair: dict) -> list[dict]:
    """The messages sent to a teacher for a pair: the conversation up to the answer."""
    messages = conversation_of({key: value for key, value in pair.items() if key != "output"}).messages
    system = SYSTEM.replace("Python", NAMES[pair["check"]["language"]]) if is_script(pair) else SYSTEM
    return [{"role": "system", "content": system}, *messages]


def majority(outputs: list[str]) -> tuple[str, int]:
    """The most frequent output up to layout and case, the first among equals, and its count."""
    counts = Counter(map(normalized, outputs))
    most = max(counts.values())
    return next((output, most) for output in outputs if counts[normalized(output)] == most)


def _taught(pair: dict, held: list[str], teacher: Teacher, candidates: int) -> dict:
    output, alike = majority(held)
    told = {"model": teacher.model, "candidates": candidates, "held": len(held), "alike": alike}
    return {**pair, "output": output, "teacher": told}


def _problem(row: dict) -> str | None:
    """Why a judged candidate is not good enough to train on, or None."""
    if row["status"] not in ("pass", "not executed") or not row["lenient"]:
        return f"{row['status']}: {row['detail'].strip()[:200]}" if row["detail"] else row["status"]
    if row["hallucinated"]:
        return f"names what does not exist: {', '.join(row['hallucinated'])}"
    return f"ruff: {row['style_issues'][0]}" if row["style_issues"] else None


def _as_output(pair: dict, text: str, code: str | None) -> str:
    """An answer in the form of the repository's own outputs."""
    if pair["category"] in ("explain", "bugfix", "complete"):  # code stays in its block, after what is said of it
        return text.strip()
    if pair["category"] == "docstring":
        return comment_in(text) if is_script(pair) else quoted(f"{docstring_in(text)}\n")
    return (code or text).strip("\n")
