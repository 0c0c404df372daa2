"""Text rows: classification, question answering, summarisation. Each task has one prompt.

    {"id", "text", "label"}    {"id", "question", "context", "answer"}    {"id", "document", "summary"}

"labels" are the answers that a row can have, all of them named in its prompt. A classification row needs them, and gets
those of its file where it has none; a question has them if its answer is one of a few words. "references" are further
right answers. data/rows.py reads such a row as a conversation, so that every command takes it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

from common.console import UserError

TASKS = {"classification": ("text", "label"), "qa": ("question", "answer"), "summarization": ("document", "summary")}
LONG = {"classification": "text", "qa": "context", "summarization": "document"}  # what is cut where a row is too long
PROMPTS = {
    "classification": "{text}\n\nWhich label fits this text? Answer with one of: {labels}.",
    "qa": "{context}\n\nQuestion: {question}\nAnswer with {form}.",
    "summarization": "{document}\n\nSummarize this text in one or two sentences.",
}
OTHER_FORMS = ("messages", "prompt", "instruction")  # with one of these, a row is of another form (data/rows.py)
VERDICTS = ("yes", "no", "maybe")  # the labels of questions that have no other answers
MOST_LABELS = 200
SHOWN = 12  # labels in an error


def task_of(row: dict) -> str | None:
    """The task of a text row, None for any other row."""
    if any(row.get(form) is not None for form in OTHER_FORMS):
        return None
    for task, fields in TASKS.items():
        if all(isinstance(row.get(field), str) for field in fields):
            return task
    return None


def common_task(rows: list[dict]) -> str | None:
    """The task of a file's rows, None unless all have the same one."""
    tasks = {task_of(row) for row in rows}
    return tasks.pop() if len(tasks) == 1 else None


def what_is_missing(row: dict) -> str:
    """For a row that is none, but looks like a text row: what it would need, after "; "."""
    for asked, answer in TASKS.values():
        if row.get(asked) is not None:
            return f'; beside "{asked}" a text row needs "{answer}", a text'
    return ""


def answer_field(row: dict) -> str:
    """The field that holds a text row's answer."""
    return TASKS[str(task_of(row))][1]


def prompt_of(row: dict) -> str:
    """The question of a text row. ValueError for one that is empty, without labels, or with an answer outside them."""
    task = str(task_of(row))
    asked, answer = TASKS[task]
    for field in (asked, answer):
        if not row[field].strip():
            raise ValueError(f'"{field}" is empty')

    # the answers to choose from
    labels = row.get("labels")
    if task == "classification" and labels is None:
        raise ValueError('"labels" is missing: all the labels that there are')
    if labels is not None:
        _refuse_bad_labels(labels)
        if row[answer] not in labels:
            raise ValueError(f'"{answer}" is {row[answer]!r}, which is not one of its labels: {_shown(labels)}')
    if task == "qa" and not isinstance(row.get("context") or "", str):
        raise ValueError('"context" must be a text')
    return filled_prompt(task, row)


def filled_prompt(task: str, row: dict) -> str:
    """The task's prompt with the fields of a row, whatever they are. A question may come without a context."""
    labels = row.get("labels")
    listed = f"{', '.join(labels[:-1])} or {labels[-1]}" if labels else ""
    fields = row | {"context": row.get("context") or "", "labels": listed, "form": listed or "a few words"}
    prompt = PROMPTS[task].format_map(fields)
    return prompt.removeprefix("\n\n") if task == "qa" and not fields["context"] else prompt


def with_labels(rows: list[dict], *, where: str, trained: Sequence[dict] = ()) -> list[dict]:
    """The rows, text rows with the labels of their file: those given in a row, else those that occur.

    trained  the training rows: those of the same task decide what the labels are
    UserError names the row with a label that is not one of them, or with other labels than the rest.
    """
    rows = list(rows)
    for task in ("classification", "qa"):
        answer = TASKS[task][1]
        numbered = {number: row for number, row in enumerate(rows, 1) if task_of(row) == task}
        guides = [row for row in trained if task_of(row) == task]
        labels = labels_of(guides or [*numbered.values()])
        if not (labels or guides):
            labels = _labels_that_occur([row[answer] for row in numbered.values()], task, where)

        # every row has the same ones
        if labels is None:
            continue
        for number, row in numbered.items():
            if (row.get("labels") or labels) != labels:
                raise UserError(f"{where}:{number}: its labels ({_shown(row['labels'])}) are not {_shown(labels)}")
            if guides and row[answer] not in labels:
                raise UserError(
                    f"{where}:{number}: the label {row[answer]!r} does not occur in training, only {_shown(labels)}"
                )
            rows[number - 1] = row | {"labels": labels}
    return rows


def labels_of(rows: Iterable[dict]) -> list[str] | None:
    """The labels that text rows share, None where they have none."""
    return next((row["labels"] for row in rows if row.get("labels")), None)


def shortened(row: dict, fits: Callable[[dict], bool]) -> dict:
    """A text row that is too long, its text (context, document) cut at the end, after the last word that fits.

    fits  whether a row is short enough. A row that would not fit even with no text at all is returned as it is
    """
    field = LONG.get(str(task_of(row)))
    text = row.get(field) if field else None
    if not isinstance(text, str):
        return row

    # bisect over the characters: the first `low` fit, the first `high` do not
    low, high = 0, len(text)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(row | {field: text[:middle]}) else (low, middle)

    # without the beginning of a word, unless there are no spaces between words
    cut = re.sub(r"(?<=\s)\S{1,40}$", "", text[:low]) if text[low : low + 1].strip() else text[:low]
    return row | {field: cut.rstrip()} if cut.strip() else row


def _labels_that_occur(answers: list[str], task: str, where: str) -> list[str] | None:
    """Sorted, for classification; of questions only verdicts, in their own order; None if there are none."""
    found = sorted(set(answers))
    if task == "qa":
        return [one for one in VERDICTS if one in found] if len(found) > 1 and set(found) <= set(VERDICTS) else None
    if len(found) == 1:
        raise UserError(f'{where}: only the label {found[0]!r} occurs; give all "labels" in the rows, or more rows')
    if len(found) > MOST_LABELS:
        raise UserError(f'{where}: {len(found):,} different labels, more than a prompt can name; is "label" the class?')
    return found or None


def _refuse_bad_labels(labels: object) -> None:
    texts = [one for one in labels if isinstance(one, str) and one.strip()] if isinstance(labels, list) else []
    if len(texts) < 2 or texts != labels:
        raise ValueError('"labels" must be a list of two or more texts')
    plain = [" ".join(one.lower().split()) for one in texts]
    if twice := next((one for one in plain if plain.count(one) > 1), None):
        raise ValueError(f'"labels" has {twice!r} twice, apart from capitals and spaces')


def _shown(labels: object) -> str:
    if not isinstance(labels, list):
        return repr(labels)
    more = f" and {len(labels) - SHOWN} more" if len(labels) > SHOWN else ""
    return ", ".join(map(str, labels[:SHOWN])) + more
