"""Reads a data row as a conversation: chat, prompt and completion, instruction pair or Alpaca, text row.

    {"messages": […]}    {"prompt", "completion"}    {"instruction", "input", "output"}    data/text_rows.py

Every command that takes such rows reads them here. A field that affects training is honoured (`system`, `history`,
`tools`, `reasoning_content`) or refused by name, with what to do; metadata (`id`, `category`, `source`, `check`, …) is
kept in the row but not read. Field names follow other tools: OpenAI (`tools`, `weight`), TRL (prompts and completions
of messages), LlamaFactory (`system`, `history`).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from common.console import UserError
from common.files import read_objects
from data.text_rows import LONG, TASKS, answer_field, prompt_of, task_of, what_is_missing, with_labels
from data.turns import FLAGS, MASKS, ONLY_TEXT, from_json, is_empty, read_message, says_nothing, text_of

FORMS = {"messages": (), "prompt": ("completion",), "instruction": ("input", "output")}
AS_SYSTEM = 'is not read: rename it to "system"'
PREFERENCE = (
    "is one side of a preference, and preferences are not trained on; leave the answer to learn as the completion"
)
REFUSED = {
    **dict.fromkeys(("image", "images", "video", "videos", "audio", "audios"), ONLY_TEXT),
    **dict.fromkeys(("mask", "loss_mask", "completion_mask", "assistant_masks"), MASKS),
    **dict.fromkeys(("chosen", "rejected"), PREFERENCE),
    **dict.fromkeys(
        ("functions", "function_call"), 'is not read: write "tools", and calls as "tool_calls" of a message'
    ),
    **dict.fromkeys(("reasoning", "thinking"), 'is not read: rename it to "reasoning_content", or remove it'),
    **dict.fromkeys(("chat_template_kwargs", "template_kwargs"), "is not read: a template's options hold for all rows"),
    "tool_calls": 'is not read: write the row as "messages"',
    "conversations": 'is not read: rename it to "messages", and "from" and "value" to "role" and "content"',
}
TEXTS = {  # refused if they add something to the conversation
    **dict.fromkeys(("system_prompt", "system_message"), AS_SYSTEM),
    "context": 'is not read: rename it to "input", or put it into the question',
    "documents": "is not read: put it into the question",
}


@dataclass(frozen=True)
class Conversation:
    """The input of a chat template: messages as Tokenizer.render takes them, and tools (JSON schemas) if any.

    An answer with "weight": 0 is not trained on.
    """

    messages: list[dict]
    tools: list[dict] | None = None

    @property
    def question(self) -> Conversation:
        """The conversation without a final answer."""
        has_answer = self.messages[-1]["role"] == "assistant"
        return Conversation(self.messages[:-1], self.tools) if has_answer else self

    @property
    def answer(self) -> dict | None:
        """The final message, if it is the assistant's."""
        return self.messages[-1] if self.messages[-1]["role"] == "assistant" else None


def read_rows(path: Path | str, *, trained: Sequence[dict] = ()) -> list[dict]:
    """The rows of a file: JSON Lines, a JSON list or Parquet. Text rows are completed with the labels of the file, or
    of the training rows `trained`; UserError for a row with a label that is not one of them.
    """
    return with_labels(read_objects(path), where=str(path), trained=trained)


def is_conversation(row: dict) -> bool:
    """Whether a row is a conversation. Alpaca's rows also have a "text", which is ignored."""
    return any(row.get(form) is not None for form in FORMS) or task_of(row) is not None


def conversation_of(row: dict) -> Conversation:
    """The conversation of a row, with its answer last if there is one. ValueError says what is wrong with it."""
    # null is the same as missing: tables have a column for every field
    row = {key: value for key, value in row.items() if value is not None}
    _refuse_fields(row)

    # a text row: its task's prompt
    if task_of(row):
        if said := [key for key in ("history", "tools", "reasoning_content") if not is_empty(row.get(key))]:
            raise ValueError(f'"{said[0]}" is not read in a text row: write the row as "messages"')
        question = {"role": "user", "content": prompt_of(row)}
        answer = {"role": "assistant", "content": row[answer_field(row)]}
        return Conversation(_with_system(row, [question, answer]))

    # the messages of one of the other forms, with the system message that a row may have beside them
    form = _form_of(row)
    if form == "messages":
        messages = _turns(row, form, "history", "reasoning_content")
    else:
        messages = _asked_and_answered(row, form, FORMS[form][-1])
    messages = _with_system(row, messages)
    _refuse_other_texts(row, form, messages)
    return Conversation(messages, _tools(row))


def training_conversation(row: dict) -> Conversation:
    """The conversation of a row up to the last answer to train on; nothing after that affects training.

    ValueError if there is no such answer, or if one is empty.
    """
    whole = conversation_of(row)
    if whole.answer is None:
        wanted = "completion" if "prompt" in row else "output" if "instruction" in row else "an assistant message"
        raise ValueError(f'"{wanted}" is missing (this line has: {", ".join(row)})')
    # the answers to train on; each must have something to learn
    learnt = [i for i, one in enumerate(whole.messages) if one["role"] == "assistant" and one.get("weight") != 0]
    if not learnt:
        raise ValueError("no answer in this row is to be trained on; remove the row")
    for i in learnt:
        if says_nothing(whole.messages[i]):
            where = f"message {i + 1}: " if len(learnt) > 1 else ""
            raise ValueError(f"{where}the answer is empty")

    return Conversation(whole.messages[: learnt[-1] + 1], whole.tools)


def unread_fields(rows: list[dict]) -> list[str]:
    """Names of non-empty fields that are not read, except the metadata of docs/formats.md."""
    # what is read, and the metadata that is expected
    read = {*FORMS, *itertools.chain(*FORMS.values()), "system", "history", "tools", "reasoning_content", *FLAGS}
    read |= {*itertools.chain(*TASKS.values()), *LONG.values(), "labels"} if any(map(task_of, rows)) else set()
    aside = read | {"id", "category", "language", "source", "check", "teacher", "explained_by", "references"}
    return list(dict.fromkeys(key for row in rows for key in row if key not in aside and not is_empty(row[key])))


@contextmanager
def named_line(where: str) -> Iterator[None]:
    """Turns errors about a row in this block into a UserError that begins with `where`: its file and line."""
    try:
        yield
    except (ValueError, UserError) as error:
        raise UserError(f"{where}: {error}") from None


def _form_of(row: dict) -> str:
    if "messages" in row:
        return "messages"
    if "prompt" in row and ("completion" in row or "instruction" not in row):
        return "prompt"
    if "instruction" in row:  # "prompt" beside it often repeats the same, filled into a template
        return "instruction"
    raise ValueError(
        f'"instruction", "messages" or "prompt" is missing (this line has: {", ".join(row)}){what_is_missing(row)}'
    )


def _turns(row: dict, name: str, *apart: str) -> list[dict]:
    """The messages of a field. `apart`: fields that are ambiguous next to a list, and refused."""
    for key in apart:
        if not is_empty(row.get(key)):
            raise ValueError(f'"{key}" beside a list of messages is not read: write it into the messages')
    turns = from_json(row[name])
    if not isinstance(turns, list) or not turns or not all(isinstance(turn, dict) for turn in turns):
        raise ValueError(f'"{name}" must be a list of {{"role", "content"}}')
    return [read_message(turn, f"message {number}") for number, turn in enumerate(turns, 1)]


def _asked_and_answered(row: dict, asked: str, answered: str) -> list[dict]:
    """The messages of the two forms without `messages`. Prompt and completion may be lists of messages; then only those
    of the completion are trained on, as in TRL.
    """
    # the question: messages, whose answers are context, or one text
    if isinstance(row[asked], list):
        turns = [one | {"weight": 0} if one["role"] == "assistant" else one for one in _turns(row, asked, "history")]
    else:
        question = text_of(row, asked)
        if asked == "instruction" and not is_empty(row.get("input")):
            question += f"\n\n{text_of(row, 'input')}"
        turns = [{"role": "user", "content": question}]
    turns = _history(row) + turns

    # the answer, if there is one: messages, or one text
    if answered not in row:
        return turns
    if isinstance(row[answered], list):
        return turns + _turns(row, answered, "reasoning_content")
    answer = {"role": "assistant", "content": text_of(row, answered), "reasoning_content": row.get("reasoning_content")}
    return [*turns, read_message(answer, f'"{answered}"')]


def _history(row: dict) -> list[dict]:
    """Earlier turns as LlamaFactory writes them, [[question, answer], …]; as there, their answers are trained on."""
    history = from_json(row.get("history") or [])
    pairs = history if isinstance(history, list) else []
    is_pair = [isinstance(pair, list) and len(pair) == 2 and all(isinstance(t, str) for t in pair) for pair in pairs]
    if not isinstance(history, list) or not all(is_pair):
        raise ValueError('"history" must be a list of [question, answer]')
    roles = ("user", "assistant")
    return [{"role": role, "content": text} for pair in pairs for role, text in zip(roles, pair, strict=True)]


def _with_system(row: dict, messages: list[dict]) -> list[dict]:
    if is_empty(row.get("system")):
        return messages
    system = {"role": "system", "content": text_of(row, "system")}
    # the same text twice, as a field and as a message, is not a contradiction
    own = [message["content"] for message in messages if message["role"] == "system"]
    if own and own != [system["content"]]:
        raise ValueError('"system" beside a system message: keep only one')
    return messages if own else [system, *messages]


def _tools(row: dict) -> list[dict] | None:
    tools = from_json(row.get("tools") or [])
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise ValueError('"tools" must be a list of {"type": "function", "function": {"name", …}}')
    return tools or None


def _refuse_fields(row: dict) -> None:
    for key, what_to_do in REFUSED.items():
        if not is_empty(row.get(key)):
            raise ValueError(f'"{key}" {what_to_do}')
    if row.get("label") is False and row.get("text") is None:
        raise ValueError('"label" is false: an answer that is not wanted cannot be trained on; remove the row')
    # flags of a whole row; a number in "loss" is a measurement, not a flag
    for flag in FLAGS:
        value = row.get(flag, 1)
        if value is False or (flag == "weight" and value != 1):
            raise ValueError(f'"{flag}" is {value!r}: rows train whole or not at all; remove the row or the field')


def _refuse_other_texts(row: dict, form: str, messages: list[dict]) -> None:
    """ValueError for a further text field that the conversation does not already contain."""
    said = [message["content"].strip() for message in messages]
    # fields of the other forms, and those that often hold a system message or a context
    others = {key for keys in FORMS.items() for key in (keys[0], *keys[1])} - {form, *FORMS[form]}
    for key in sorted(others & row.keys()) + sorted(TEXTS.keys() & row.keys()):
        value = row[key] if isinstance(row[key], list) else [row[key]]
        parts = [part.get("content") if isinstance(part, dict) else part for part in value]
        # "prompt" beside "instruction" usually repeats it: then nothing is lost
        is_repeated = all(isinstance(part, str) and _repeats(part.strip(), said) for part in parts)
        if not is_repeated and not is_empty(row[key]):
            what_to_do = TEXTS.get(key, f'beside "{form}" is not read: keep only one')
            raise ValueError(f'"{key}" {what_to_do}')


def _repeats(text: str, said: list[str]) -> bool:
    """Whether a message contains the text, or the text is the whole conversation in one."""
    return any(text in one for one in said) or all(one in text for one in said)
