"""The texts that rows hold, whatever their form: what contamination compares, and which fields it does not read."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence

from common.console import UserError
from data.corpus.decontaminate import RUN, WORD
from data.instruct.phrasings import INSTRUCTIONS
from data.instruct.script.phrasings import SCRIPT_INSTRUCTIONS

FIELDS = (
    *("instruction", "input", "output", "system", "history", "messages", "conversations"),
    *("prompt", "completion", "response", "chosen", "rejected"),
    *("query", "code", "negatives", "docstring", "content", "text", "document", "summary"),
    *("question", "context", "answer", "answers", "problem", "description", "explanation"),
    *("canonical_solution", "solution", "solutions", "test_setup_code", "setup", "test_list", "tests", "test"),
    *("challenge_test_list", "reasoning", "reasoning_content"),
)
NOT_TRAINED_ON = ("check", "source")  # of instruction pairs: the proof of the answer, and its origin
NO_TEXT = ("role", "type", "id", "name", "from")  # keys of a message
OWN_PHRASES = re.compile(
    "|".join(
        re.sub(r"\\\{\w+\\\}", ".{1,200}?", re.escape(phrase))
        for phrases in (*INSTRUCTIONS.values(), *SCRIPT_INSTRUCTIONS.values())
        for phrase in phrases
    ),
    re.DOTALL,
)


def texts_of(rows: Sequence[dict], where: str = "data") -> list[tuple[str, str]]:
    """(id, text) of rows of any form: everything in FIELDS, except an instruction phrased by data.instruct itself.

    UserError names a row that has no text in any of them.
    """
    texts = []
    for number, row in enumerate(rows, 1):
        parts = [text for field in FIELDS for text in _strings(row.get(field)) if text.strip()]
        if not parts:
            raise UserError(
                f"{where}:{number}: nothing to compare: none of the known fields holds a text (this line has: "
                f"{', '.join(map(str, row)) or 'nothing'}). Name them as docs/formats.md does, such as instruction, "
                "input and output"
            )
        parts = [text for text in parts if not (text == row.get("instruction") and OWN_PHRASES.fullmatch(text))]
        texts.append((str(row.get("id", row.get("task_id", f"row {number}"))), "\n".join(parts)))
    return texts


def fields_not_compared(rows: Sequence[dict]) -> dict[str, int]:
    """Other fields with a text of RUN words or more -> the number of such rows."""
    return dict(
        Counter(
            field
            for row in rows
            for field, value in row.items()
            if field not in FIELDS + NOT_TRAINED_ON and any(len(WORD.findall(text)) >= RUN for text in _strings(value))
        )
    )


def _strings(value) -> Iterator[str]:
    """The texts in a field: the field itself, the items of a list, or the values of a message except its role."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        inner = value if isinstance(value, list) else [one for key, one in value.items() if key not in NO_TEXT]
        for one in inner:
            yield from _strings(one)
