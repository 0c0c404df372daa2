"""Which tokens count. "Change the mask" starts here.

    <|im_start|> user ⏎ Fix this … <|im_end|> ⏎ <|im_start|> assistant ⏎ return a + b <|im_end|> ⏎
    ···················· prompt: read, not learnt ····················  ■■■■■■■■■■■■ ■■■■■■■■■■  ·

Learnt are the assistant's words and the token that ends its turn; without the latter a model never learns to stop. The
mask goes by position and role, never by id: that the padding token may be the end token hides nothing.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from model.console import UserError
from model.loss import IGNORE
from model.tokenizer import Tokenizer


@dataclass(frozen=True)
class Example:
    """One document: token ids, and beside each the label that it is to be predicted as, or IGNORE."""

    input_ids: list[int]
    labels: list[int]

    @property
    def supervised(self) -> int:
        """Positions that the loss sums over. The first token has nothing before it to be predicted from."""
        return sum(label != IGNORE for label in self.labels[1:])


def supervise(tokenizer: Tokenizer, messages: list[dict], *, train_on_prompt: bool = False) -> Example:
    """Ids and labels of a conversation, built side by side so that they cannot drift apart."""
    ids: list[int] = []
    labels: list[int] = []
    segments = tokenizer.segments(messages)
    for segment, piece in zip(segments, tokenizer.encode_segments(segments), strict=True):
        ids += piece
        labels += piece if segment.is_learnt or train_on_prompt else [IGNORE] * len(piece)
    if segments[-1].is_learnt and not segments[-1].is_special:  # the template itself ends no turn
        ids.append(tokenizer.eos_id)
        labels.append(tokenizer.eos_id)
    return Example(ids, labels)


def spans(labels: list[int]) -> list[tuple[int, int, bool]]:
    """A document's positions cut where reading turns into learning: (start, stop, is learnt), in order.

    The first token is read whatever its label: nothing stands before it that could predict it.
    """
    is_learnt = [False, *(label != IGNORE for label in labels[1:])]
    cuts = [0, *(at for at in range(1, len(labels)) if is_learnt[at] != is_learnt[at - 1]), len(labels)]
    return [(start, stop, is_learnt[start]) for start, stop in itertools.pairwise(cuts)]


def show_mask(tokenizer: Tokenizer, example: Example) -> str:
    """The text of a document with a line "learnt" or "read" over each of its spans."""
    parts = []
    for start, stop, is_learnt in spans(example.labels):
        text = tokenizer.decode(example.input_ids[start:stop], keep_special=True)
        parts.append(f"── {'learnt' if is_learnt else 'read'} ──\n{text}")
    return "\n".join(parts)


def encode_prompt(tokenizer: Tokenizer, messages: list[dict]) -> list[int]:
    """Ids up to where the assistant begins to speak: a prefix of `supervise(messages + answer).input_ids`."""
    segments = tokenizer.segments(messages, add_generation_prompt=True)
    return [token for piece in tokenizer.encode_segments(segments) for token in piece]


def plain_document(tokenizer: Tokenizer, text: str) -> Example:
    """A whole text to be learnt from, its end token too; what the model expects before it (BOS) is not learnt."""
    ids = [*tokenizer.encode(text), tokenizer.eos_id]
    return Example(tokenizer.prefix_ids + ids, [IGNORE] * len(tokenizer.prefix_ids) + ids)


def messages_of(row: dict) -> list[dict]:
    """The conversation of a data row: chat (`messages`), instruction pair or Alpaca, or prompt/completion.

    The assistant's answer comes last when the row has one. ValueError says what a row lacks.
    """
    if "messages" in row:
        turns = row["messages"]
        if not isinstance(turns, list) or not turns or not all(isinstance(turn, dict) for turn in turns):
            raise ValueError('"messages" must be a list of {"role", "content"}')
        return [{"role": _text(turn, "role"), "content": _text(turn, "content")} for turn in turns]
    if "prompt" in row:
        question, answer = _text(row, "prompt"), "completion"
    elif "instruction" in row:
        given = row.get("input") or ""
        question = _text(row, "instruction") + (f"\n\n{_text(row, 'input')}" if given else "")
        answer = "output"
    else:
        raise ValueError(f'"instruction", "messages" or "prompt" is missing (this line has: {", ".join(row)})')
    messages = [{"role": "user", "content": question}]
    return [*messages, {"role": "assistant", "content": _text(row, answer)}] if answer in row else messages


def training_messages(row: dict) -> list[dict]:
    """`messages_of` a row that must end with an answer. ValueError when it does not, or when the answer is empty."""
    messages = messages_of(row)
    if messages[-1]["role"] != "assistant":
        wanted = "completion" if "prompt" in row else "output" if "instruction" in row else "an assistant message"
        raise ValueError(f'"{wanted}" is missing (this line has: {", ".join(row)})')
    if not messages[-1]["content"].strip():
        raise ValueError("the answer is empty")
    return messages


def _text(row: dict, key: str) -> str:
    if key not in row:
        raise ValueError(f'"{key}" is missing (this line has: {", ".join(row)})')
    if not isinstance(row[key], str):
        raise ValueError(f'"{key}" must be a string, not {type(row[key]).__name__}')
    return row[key]


def tokenize_rows(
    rows: list[dict], tokenizer: Tokenizer, *, max_length: int, where: str, train_on_prompt: bool = False
) -> tuple[list[Example], dict[str, int]]:
    """Examples of instruction rows, cut to max_length tokens, and what was lost on the way.

    Returns the examples and {"cut": rows whose answer lost its end, "dropped": rows left with nothing supervised}.
    UserError names file and line of a row that cannot be used, before anything is trained.
    """
    examples, lost = [], {"cut": 0, "dropped": 0}
    for number, row in enumerate(rows, 1):
        try:
            example = supervise(tokenizer, training_messages(row), train_on_prompt=train_on_prompt)
        except ValueError as error:
            raise UserError(f"{where}:{number}: {error}") from None
        kept = Example(example.input_ids[:max_length], example.labels[:max_length])
        if not kept.supervised:
            lost["dropped"] += 1
            continue
        lost["cut"] += len(kept.input_ids) < len(example.input_ids)
        examples.append(kept)
    return examples, lost
