"""Instruction rows from elsewhere (Alpaca, chat, prompt and completion), Python only, cleaned for training.

The same rows in two variants with the same ids and split: `code/` answers with the code alone, `explained/` with the
code and its explanation. Rows without an explanation are in the latter only if a teacher explains them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace

from common.console import progress
from common.files import SURROGATE
from common.markdown import blocks, fenced
from common.python_syntax import parsed
from common.shuffle import seeded_order
from data.checks.code_blocks import is_code, split_answer
from data.checks.thoughts import split_thoughts
from data.importing.indentation import with_four_spaces
from data.instruct.pair_filters import PLACEHOLDER, Distinct, pair_problem
from data.instruct.replies import Reply
from data.instruct.teacher import Teacher
from data.instruct.teaching import SYSTEM
from data.rows import training_conversation
from model.unrendered import THOUGHTS

OTHER_LANGUAGE = re.compile(
    r"\b(java ?script|typescript|java|ruby|php|(?:my)?sql|html5?|css|bash|shell|perl|rust|swift|kotlin|scala|matlab"
    r"|haskell|react(?:js)?|angular|vue|node\.?js|jquery|golang|arduino|assembly|lisp|powershell|visual basic|vba"
    r"|objective-c|latex|xml)\b|\bC(?:\+\+|#)|\bC (?:program|code|function|language)\b|\bin (?:C|R|Go)\b(?![+#])",
    re.IGNORECASE,
)
LEAST_WORDS = 8  # of an explanation
LONGEST = 4000  # characters of an answer, and of a question
EXPLAIN = "{question}\n\n{code}\n\nExplain this solution in two to four sentences. No code."


@dataclass(frozen=True)
class ImportedRow:
    """A kept row: the conversation up to the answer, and the answer's code and words separately."""

    id: str
    question: tuple[dict, ...]  # messages
    code: str
    words: str  # "" when the answer is code alone
    fields: dict = field(default_factory=dict)  # "instruction" and "input" if the row had them
    thoughts: str = ""  # of a reasoning model, before its answer: kept, but not trained on

    def as_pair(self, *, explained: bool, source: dict) -> dict:
        """The row to train on: an instruction pair, or chat if the question has several messages."""
        answer = f"{fenced(self.code, 'python')}\n\n{self.words}" if explained else self.code
        head = {"id": self.id, "category": "explained code" if explained else "code"}
        rest = {"source": source} | ({"thoughts": self.thoughts} if self.thoughts else {})
        if self.fields:
            return {**head, **self.fields, "output": answer, **rest}
        messages = [*self.question, {"role": "assistant", "content": answer}]
        return {**head, "messages": messages, **rest}


def import_rows(rows: list[dict], *, name: str) -> tuple[list[ImportedRow], list[dict]]:
    """Rows of any accepted form that answer in Python, and rejects: {"id", "reason"}. Ids are NAME/row, from 1."""
    kept, rejects, distinct = [], [], Distinct()
    for number, row in enumerate(progress(rows, what="importing", unit="row"), 1):
        try:
            one = _read_row(f"{name}/{number}", row)
            if problem := distinct.problem("", f"{_asked(one)}\n{one.code}"):
                raise ValueError(problem)
            kept.append(one)
        except ValueError as error:
            rejects.append({"id": f"{name}/{number}", "reason": str(error)})
    return kept, rejects


def _read_row(id: str, row: dict) -> ImportedRow:
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

    # in Python, unless the question names another language
    asked = "\n".join(message["content"] for message in question if message["role"] == "user")
    other = OTHER_LANGUAGE.search(asked)
    if other and not re.search(r"\bpython", asked, re.IGNORECASE):
        raise ValueError(f"asks for {other.group().lower()}")

    # a reasoning model's thoughts apart from its answer
    thoughts, answered = split_thoughts(answer["content"])
    if not answered.strip():
        raise ValueError("thoughts without an answer")
    if max(len(answered), len(asked)) > LONGEST:
        raise ValueError(f"over {LONGEST} characters")
    if SURROGATE.search("".join(message["content"] for message in messages)):
        raise ValueError("a lone surrogate, which no text file can hold")

    # the code, and the words around it
    code, words = parted(answered)
    code = with_four_spaces(code)
    if PLACEHOLDER.search(code):
        raise ValueError("placeholder in the answer")

    # a single question keeps "instruction" and "input" apart if the row had them apart
    fields = {}
    if len(question) == 1:
        given = {"instruction": row.get("instruction") or "", "input": row.get("input") or ""}
        is_apart = "\n\n".join(filter(None, given.values())) == question[0]["content"]
        alone = given if is_apart else {"instruction": question[0]["content"], "input": ""}
        fields = {key: value.strip() for key, value in alone.items()}
    return ImportedRow(id, tuple(question), code, words, fields, thoughts)


def _asked(row: ImportedRow) -> str:
    return "\n".join(message["content"] for message in row.question)


def parted(answer: str) -> tuple[str, str]:
    """The Python code of an answer and the words around it. ValueError when it has no code that parses."""
    answer = answer.replace("\r\n", "\n").strip("\n")
    blocks, around = split_answer(answer)
    code = "\n\n".join(block.strip("\n") for block in blocks) if blocks else answer
    tree = parsed(code)
    if tree is None:
        raise ValueError("no Python that parses")
    if not is_code(tree):
        raise ValueError("a value or a word, no code")
    words = re.sub(r"\n{3,}", "\n\n", around).strip() if blocks else ""
    return code.rstrip(), words if len(words.split()) >= LEAST_WORDS else ""


def explain_with(teacher: Teacher, rows: list[ImportedRow]) -> tuple[list[ImportedRow], list[dict]]:
    """The rows, those without words explained by the teacher where its answer is usable; and its unusable answers."""
    # ask for the rows without words
    silent = [row for row in rows if not row.words]
    system = {"role": "system", "content": SYSTEM}
    asked = [EXPLAIN.format(question=_asked(row), code=fenced(row.code, "python")) for row in silent]
    replies = teacher.ask([[system, {"role": "user", "content": one}] for one in asked], samples=1)

    # usable explanations by row, the others as rejects
    words, rejects = {}, []
    for row, (reply,) in zip(silent, replies, strict=True):
        if reply is None:
            continue
        problem = _explanation_problem(row, reply)
        if problem:
            rejects.append({"id": row.id, "reason": f"teacher: {problem}", "output": reply.text})
        else:
            words[row.id] = reply.text.strip()
    return [replace(row, words=row.words or words.get(row.id, "")) for row in rows], rejects


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
