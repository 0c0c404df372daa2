"""Instruction rows from elsewhere (Alpaca, chat, prompt and completion), of chosen languages, cleaned for training.

Rows have two variants with the same ids and split: `code/` answers with the code alone, `explained/` with the code and
its explanation. Rows without an explanation are in the latter only if a teacher explains them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from common.console import progress
from common.files import SURROGATE
from common.markdown import blocks, fenced
from common.shuffle import seeded_order
from data.checks.thoughts import split_thoughts
from data.importing.answer_code import parted, refused_by_question
from data.importing.indentation import with_four_spaces
from data.instruct.pair_filters import PLACEHOLDER, Distinct, pair_problem
from data.instruct.replies import Reply
from data.instruct.teacher import Teacher
from data.rows import training_conversation
from model.unrendered import THOUGHTS

LONGEST = 4000  # characters of an answer, and of a question
SYSTEM = "You are an experienced programmer. Be concise and precise; say nothing about the code that it does not show."
EXPLAIN = "{question}\n\n{code}\n\nExplain this solution in two to four sentences. No code."


@dataclass(frozen=True)
class ImportedRow:
    """A kept row: the conversation up to the answer, and the answer's code and words separately."""

    id: str
    question: tuple[dict, ...]  # messages
    code: str
    words: str  # "" when the answer is code alone
    language: str = "python"
    fields: dict = field(default_factory=dict)  # "instruction" and "input" if the row had them
    thoughts: str = ""  # of a reasoning model, before its answer: kept, but not trained on
    teacher: str = ""  # the model that wrote the words, where the row had none

    def as_pair(self, *, explained: bool, source: dict) -> dict:
        """The row to train on: an instruction pair, or chat if the question has several messages."""
        answer = f"{fenced(self.code, self.language)}\n\n{self.words}" if explained else self.code
        head = {"id": self.id, "category": "explained code" if explained else "code", "language": self.language}
        rest = {"source": source} | ({"thoughts": self.thoughts} if self.thoughts else {})
        rest |= {"explained_by": self.teacher} if explained and self.teacher else {}
        if self.fields:
            return {**head, **self.fields, "output": answer, **rest}
        messages = [*self.question, {"role": "assistant", "content": answer}]
        return {**head, "messages": messages, **rest}


def import_rows(
    rows: list[dict], *, name: str, languages: Sequence[str] = ("python",)
) -> tuple[list[ImportedRow], list[dict]]:
    """Rows of any accepted form that answer in one of the languages, the first that fits.

    Also returns rejects, {"id", "reason"}; the reason is that of the last language. Ids are NAME/row, from 1.
    """
    kept, rejects, distinct = [], [], Distinct()
    for number, row in enumerate(progress(rows, what="importing", unit="row"), 1):
        try:
            one = _read_row(f"{name}/{number}", row, languages)
            if problem := distinct.problem("", f"{_asked(one)}\n{one.code}"):
                raise ValueError(problem)
            kept.append(one)
        except ValueError as error:
            rejects.append({"id": f"{name}/{number}", "reason": str(error)})
    return kept, rejects


def _read_row(id: str, row: dict, languages: Sequence[str]) -> ImportedRow:
    """ValueError says why a row is not used."""
    whole = training_conversation(row)
    *question, answer = messages = whole.messages

    # only plain questions and answers, without tools
    if whole.tools or any("tool_calls" in message for message in messages):
        raise ValueError("calls tools")
    if THOUGHTS & answer.keys():
        raise ValueError("an answer with its thoughts apart")
    if not any(message["content"].strip() for message in question):
        raise ValueError("no question")

    # in a language that the question may be meant for
    asked = "\n".join(message["content"] for message in question if message["role"] == "user")
    meant = [language for language in languages if not refused_by_question(asked, language)]
    if not meant:
        raise ValueError(refused_by_question(asked, languages[-1]))

    # a reasoning model's thoughts apart from its answer
    thoughts, answered = split_thoughts(answer["content"])
    if not answered.strip():
        raise ValueError("thoughts without an answer")
    if max(len(answered), len(asked)) > LONGEST:
        raise ValueError(f"over {LONGEST} characters")
    if SURROGATE.search("".join(message["content"] for message in messages)):
        raise ValueError("a lone surrogate, which no text file can hold")

    # the code, and the words around it
    language, code, words = _in_first(meant, answered, asked)
    code = with_four_spaces(code) if language == "python" else code
    if PLACEHOLDER.search(code):
        raise ValueError("placeholder in the answer")

    # a single question keeps "instruction" and "input" apart if the row had them apart
    fields = {}
    if len(question) == 1:
        given = {"instruction": row.get("instruction") or "", "input": row.get("input") or ""}
        is_apart = "\n\n".join(filter(None, given.values())) == question[0]["content"]
        alone = given if is_apart else {"instruction": question[0]["content"], "input": ""}
        fields = {key: value.strip() for key, value in alone.items()}
    return ImportedRow(id, tuple(question), code, words, language, fields, thoughts)


def _in_first(languages: Sequence[str], answer: str, asked: str) -> tuple[str, str, str]:
    """The first of the languages that an answer is in, its code and its words. ValueError as `parted` for the last."""
    for language in languages[:-1]:
        with contextlib.suppress(ValueError):
            return language, *parted(answer, language, asked)
    return languages[-1], *parted(answer, languages[-1], asked)


def _asked(row: ImportedRow) -> str:
    return "\n".join(message["content"] for message in row.question)


def explain_with(teacher: Teacher, rows: list[ImportedRow]) -> tuple[list[ImportedRow], list[dict]]:
    """The rows that have an explanation, their own or the teacher's; and rejects: those that have none.

    Rejects are {"id", "reason"}, with "output" where the teacher's answer is unusable.
    """
    # ask for the rows without words
    silent = [row for row in rows if not row.words]
    system = {"role": "system", "content": SYSTEM}
    asked = [EXPLAIN.format(question=_asked(row), code=fenced(row.code, row.language)) for row in silent]
    replies = teacher.ask([[system, {"role": "user", "content": one}] for one in asked], samples=1)

    # usable explanations by row, the others as rejects
    words, rejects = {}, []
    for row, (reply,) in zip(silent, replies, strict=True):
        if reply is None:
            rejects.append({"id": row.id, "reason": "teacher: gave no answer"})
        elif problem := _explanation_problem(row, reply):
            rejects.append({"id": row.id, "reason": f"teacher: {problem}", "output": reply.text})
        else:
            words[row.id] = reply.text.strip()
    taught = [replace(row, words=words[row.id], teacher=teacher.model) if row.id in words else row for row in rows]
    return [row for row in taught if row.words], rejects


def _explanation_problem(row: ImportedRow, reply: Reply) -> str | None:
    if not reply.stopped:
        return "output that breaks off"
    if blocks(reply.text):
        return "code in an explanation"
    return pair_problem({"category": "explain", "input": row.code, "output": reply.text})


def split_rows(rows: list[ImportedRow], *, test_share: float, validation_share: float, seed: int) -> dict[str, str]:
    """The side of each row by its id: a seeded draw, shares rounded to whole rows."""
    order = seeded_order([row.id for row in rows], seed)
    test = round(test_share * len(rows))
    validation = test + round(validation_share * len(rows))
    return {
        id: "test" if position < test else "validation" if position < validation else "train"
        for position, id in enumerate(order)
    }
