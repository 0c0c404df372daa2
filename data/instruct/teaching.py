"""A teacher's answers in place of the repository's own: several a task, the check decides, then the majority.

    task ──► n replies ──► read, run, linted by the grader of eval.instruct ──► those that hold ──► most often given

The grader is a program of its own (`python -m eval.instruct`), spoken to in files, as the sandbox is: an answer is
learnt from only if it would count as right when a model gave it. What the repository itself knows best (the line of a
bug, the body of a function) is never asked for.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from common.console import UserError
from common.files import read_json, write_jsonl
from data.instruct.docstyle import docstring_in
from data.instruct.pair_filters import normalized, pair_problem
from data.instruct.replies import Reply
from data.instruct.teacher import KEY_VARIABLES, Teacher
from data.rows import conversation_of

TAUGHT = ("docstring", "explain", "unit_test", "improve")
SYSTEM = (
    "You are an experienced Python programmer. Answer exactly in the form that is asked for, without greeting or "
    "comment. Be concise and precise; say nothing about the code that it does not show."
)


def teach(pairs: list[dict], teacher: Teacher, *, candidates: int, most_output: int) -> tuple[list[dict], list[dict]]:
    """The pairs, with the teacher's answer as output where one holds, and the candidates that did not.

    An answer holds when it passes the pair's check (by running, where that runs code), ruff, the look-up of its names
    and data/instruct/pair_filters.py. Of those that hold, the one given most often is taken, of equals the first.
    Taught pairs say so: "teacher": {"model", "candidates", "held", "alike"}. Others keep the output that they have.
    Rejects: {"id", "category", "reason", "output"}.
    """
    asked = [pair for pair in pairs if pair["category"] in TAUGHT]
    replies = teacher.ask([question(pair) for pair in asked], samples=candidates)
    given = [(pair, reply) for pair, of_pair in zip(asked, replies, strict=True) for reply in of_pair if reply]
    held: dict[str, list[str]] = {}
    rejects = []
    for (pair, reply), row in zip(given, _graded(given), strict=True):
        output = _as_output(pair, reply.text, row["code"])
        problem = _problem(row) or pair_problem({**pair, "output": output})
        if problem is None and len(output) > most_output:
            problem = f"output over {most_output} characters"
        if problem is None:
            held.setdefault(pair["id"], []).append(output)
        else:
            found = {"id": pair["id"], "category": pair["category"]}
            rejects.append({**found, "reason": f"teacher: {problem}", "output": reply.text})
    return [
        _taught(pair, held[pair["id"]], teacher, candidates) if pair["id"] in held else pair for pair in pairs
    ], rejects


def question(pair: dict) -> list[dict]:
    """What a teacher is asked for a pair: the conversation up to the answer."""
    messages = conversation_of({key: value for key, value in pair.items() if key != "output"}).messages
    return [{"role": "system", "content": SYSTEM}, *messages]


def majority(outputs: list[str]) -> tuple[str, int]:
    """The output given most often, layout and case aside, and how often; of equals the first."""
    counts = Counter(map(normalized, outputs))
    most = max(counts.values())
    return next((output, most) for output in outputs if counts[normalized(output)] == most)


def _taught(pair: dict, held: list[str], teacher: Teacher, candidates: int) -> dict:
    output, alike = majority(held)
    told = {"model": teacher.model, "candidates": candidates, "held": len(held), "alike": alike}
    return {**pair, "output": output, "teacher": told}


def _graded(given: list[tuple[dict, Reply]]) -> list[dict]:
    """The grader's row for each candidate. Each is a task of its own: not all tasks have equally many."""
    if not given:
        return []
    home = Path(__file__).resolve().parents[2]
    with tempfile.TemporaryDirectory(prefix="tritune-teaching-") as name:
        folder = Path(name)
        ids = [f"{number} {pair['id']}" for number, (pair, _) in enumerate(given)]
        write_jsonl(folder / "pairs.jsonl", ({**pair, "id": i} for i, (pair, _) in zip(ids, given, strict=True)))
        answers = ({"id": i, "output": r.text, "stopped": r.stopped} for i, (_, r) in zip(ids, given, strict=True))
        write_jsonl(folder / "answers.jsonl", answers)
        command = [sys.executable, "-m", "eval.instruct", "--k", "1", "--data", str(folder / "pairs.jsonl")]
        command += ["--answers", str(folder / "answers.jsonl"), "--out", str(folder / "result.json")]
        environment = {name: value for name, value in os.environ.items() if name not in KEY_VARIABLES}
        done = subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True, check=False)
        if done.returncode == 2:
            raise UserError(done.stderr.strip().removeprefix("tritune: "))
        if done.returncode:
            raise RuntimeError(f"the grader ended with status {done.returncode}: {done.stderr[-2000:]}")
        rows = {row["id"]: row for row in read_json(folder / "result.json")["results"]}
    return [rows[i] for i in ids]


def _problem(row: dict) -> str | None:
    """Why the grader's row of a candidate is not good enough to be learnt from."""
    if row["status"] not in ("pass", "not executed") or not row["lenient"]:
        return f"{row['status']}: {row['detail'].strip()[:200]}" if row["detail"] else row["status"]
    if row["hallucinated"]:
        return f"names what does not exist: {', '.join(row['hallucinated'])}"
    return f"ruff: {row['style_issues'][0]}" if row["style_issues"] else None


def _as_output(pair: dict, text: str, code: str | None) -> str:
    """An answer in the form that the repository's own have."""
    if pair["category"] == "explain":
        return text.strip()
    if pair["category"] == "docstring":
        words = docstring_in(text)
        return f'{"r" if chr(92) in words else ""}"""{words}\n"""'
    return (code or text).strip("\n")
