"""Answers to read, and the causes of errors, of each task."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from common.files import read_jsonl
from common.shuffle import seeded_order
from data.rows import conversation_of
from eval.causes import cause_of_pair
from eval.code.score import GREEDY
from experiments.study.data import SEED, data_file
from experiments.study.grid import Task

COUNT = 10  # examples of a task
MOST = 600  # characters of a prompt or an answer that are shown


def examples(out: Path, task: Task, results: Mapping[str, dict]) -> list[dict]:
    """Ten test rows, drawn by the seed and not by how they were answered, with every method's answer.

    results  eval result by method, all of one model and seed
    Returns {"id", "prompt", "references", "answers": [{"method", "answer", "status", "cause"}]} a row.
    """
    rows = {str(row["id"]): row for row in read_jsonl(data_file(out, task, "test"))}
    answers = {method: {row["id"]: row for row in graded_rows(rows, result)} for method, result in results.items()}
    chosen = []
    for name in seeded_order(list(rows), SEED)[:COUNT]:
        asked = conversation_of(rows[name])
        assert asked.answer is not None  # test rows have one: they were graded by it
        given = [
            {"method": method, "answer": of_method[name]["answer"][:MOST]}
            | {key: of_method[name][key] for key in ("status", "cause")}
            for method, of_method in answers.items()
        ]
        references = [asked.answer["content"], *(rows[name].get("references") or [])]
        prompt = asked.question.messages[-1]["content"][:MOST]
        chosen.append({"id": name, "prompt": prompt, "references": references, "answers": given})
    return chosen


def causes(out: Path, task: Task, result: dict) -> dict[str, int]:
    """How many answers failed for each cause, the most frequent first."""
    rows = {str(row["id"]): row for row in read_jsonl(data_file(out, task, "test"))}
    return dict(Counter(row["cause"] for row in graded_rows(rows, result) if row["cause"]).most_common())


def graded_rows(asked: Mapping[str, dict], result: dict) -> list[dict]:
    """{"id", "answer", "status", "cause" or None} of each greedy answer in a result of eval.text or eval.instruct."""
    if "causes" in result:  # eval.text finds them itself
        return [
            {"id": row["id"], "answer": row["answer"], "status": row["status"], "cause": row.get("cause")}
            for row in result["results"]
        ]
    return [
        {
            "id": row["id"], "answer": row["output"], "status": row["status"],
            "cause": None if row["status"] == "pass" else cause_of_pair(asked[row["id"]], row),
        }
        for row in result["results"]
        if row["sample"] == GREEDY
    ]  # fmt: skip
