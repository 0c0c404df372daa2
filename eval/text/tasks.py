"""Rows as text tasks: what is asked, the right answers, the labels to choose from; and a model's answers to them."""

from __future__ import annotations

from common.console import UserError
from data.checks.thoughts import split_thoughts
from data.masking import encode_prompt
from data.rows import conversation_of, named_line
from data.text_rows import LONG, common_task, shortened, task_of
from model import Stop, generate
from model.decoder import Decoder
from model.tokenizer import Tokenizer

NEW_TOKENS = {"classification": 16, "qa": 48, "summarization": 128}  # of an answer at most, by task


def task_in(rows: list[dict], given: str | None, *, where: str) -> str:
    """The task of text rows, or of rows of other forms the given one. UserError if there is none, or if they differ."""
    task = common_task(rows)
    if given and task in (None, given):
        return given
    if given:
        raise UserError(f"{where}: --task {given}, but these are rows of {task}")
    if task is None:
        kinds = " and ".join(dict.fromkeys(task_of(row) or "rows of another form" for row in rows)) or "no row"
        raise UserError(f"{where}: the rows do not say what the task is ({kinds}); give --task")
    return task


def read_text_tasks(rows: list[dict], *, where: str = "data") -> list[dict]:
    """Rows as tasks: {"id", "messages" (the question), "tools" or None, "references" (right answers, one or more),
    "labels" (the answers to choose from, or None), "text" (what the question is about)}.

    UserError names a row without an answer, with an empty one, or with an id that is already used.
    """
    tasks, seen = [], set()
    for number, row in enumerate(rows, start=1):
        task = _task_of_row(row, number, where)
        if task["id"] in seen:
            raise UserError(f"{where}:{number}: the id {task['id']!r} is used twice")
        seen.add(task["id"])
        tasks.append(task)
    if not tasks:
        raise UserError(f"{where}: no row to grade")
    return tasks


def read_training_tasks(rows: list[dict], *, where: str = "training") -> list[dict]:
    """The same of training rows, whose ids do not matter."""
    return [_task_of_row(row, number, where) for number, row in enumerate(rows, 1)]


def _task_of_row(row: dict, number: int, where: str) -> dict:
    with named_line(f"{where}:{number}"):
        asked = conversation_of(row)
    further = row.get("references") or []
    own = [split_thoughts(asked.answer["content"])[1]] if asked.answer else []
    references = own + (further if isinstance(further, list) else [0])
    if not references or not all(isinstance(text, str) and text.strip() for text in references):
        raise UserError(f"{where}:{number}: the right answer to grade by is missing or empty")
    kind = task_of(row)
    about = [row.get("question"), row.get(LONG[kind])] if kind else [asked.question.messages[-1]["content"]]
    return {
        "id": str(row.get("id", number)),
        "messages": asked.question.messages,
        "tools": asked.tools,
        "references": list(dict.fromkeys(references)),
        "labels": row.get("labels") if kind else None,
        "text": "\n".join(text for text in about if text),
    }


def labels_in(tasks: list[dict]) -> list[str]:
    """The labels of a classification, or of questions with a few answers: the rows' own, else those that occur.

    UserError for a task with several right answers, or with other labels than the rest.
    """
    labels = tasks[0]["labels"] or sorted({task["references"][0] for task in tasks})
    for task in tasks:
        if len(task["references"]) > 1:
            raise UserError(f"task {task['id']}: a label is the one right answer; this task has several references")
        if (task["labels"] or labels) != labels:
            raise UserError(f"task {task['id']}: its labels are not those of the other tasks")
    return labels


def fit_rows(rows: list[dict], tokenizer: Tokenizer, *, most: int, where: str) -> tuple[list[dict], int]:
    """The rows, texts cut at their end so that each prompt has at most `most` tokens; and how many were cut.

    UserError for a prompt that is too long without its text, or has no text that could be cut.
    """

    def length(row: dict) -> int:
        asked = conversation_of(row)
        return len(encode_prompt(tokenizer, asked.question.messages, tools=asked.tools))

    fitting, cut = [], 0
    for number, row in enumerate(rows, 1):
        with named_line(f"{where}:{number}"):
            if length(row) > most:
                row, whole = shortened(row, lambda one: length(one) <= most), row
                if row is whole:
                    raise UserError(f"a prompt of {length(row)} tokens, of which at most {most} are read")
                cut += 1
        fitting.append(row)
    return fitting, cut


def answer_tasks(
    decoder: Decoder, tokenizer: Tokenizer, tasks: list[dict], *, max_new_tokens: int, where: str = "data"
) -> tuple[dict[str, str], set[str]]:
    """The greedy answer to each task, by id; and the ids of those that reached the limit instead of an end."""
    prompts = []
    for number, one in enumerate(tasks, 1):
        with named_line(f"{where}:{number}"):
            prompts.append(encode_prompt(tokenizer, one["messages"], tools=one["tools"]))
    stop = Stop(max_new_tokens=max_new_tokens, ids=tokenizer.stop_ids)
    new = generate(decoder, prompts, stop, unused_ids=tokenizer.unused_ids, what="answering")
    answers = {one["id"]: tokenizer.decode(ids).strip() for one, (ids,) in zip(tasks, new, strict=True)}
    return answers, {one["id"] for one, (ids,) in zip(tasks, new, strict=True) if len(ids) == max_new_tokens}
