"""Which tokens are supervised. To change the mask, start here.

    <|im_start|> user ⏎ Fix this … <|im_end|> ⏎ <|im_start|> assistant ⏎ return a + b <|im_end|> ⏎
    ···················· prompt: read, not learnt ····················  ■■■■■■■■■■■■ ■■■■■■■■■■  ·

The assistant's words and the token that ends its turn are supervised; without the latter a model never learns to stop.
The mask goes by position and role, never by id: where padding and end token are the same id, the end stays supervised.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from data.rows import Conversation, named_line, training_conversation
from data.text_rows import shortened
from model.loss import IGNORE
from model.tokenizer import Tokenizer

ONLY_READ = "{} answers are read, not learnt: nothing asks for them, or the template rewrites them once more follows"


@dataclass(frozen=True)
class Example:
    """One document: labels[t] is input_ids[t] where that token is trained on, else IGNORE; model/loss.py shifts them.

    The first label is always IGNORE, whatever is given: no token precedes it to predict it from.
    """

    input_ids: list[int]
    labels: list[int]

    def __post_init__(self) -> None:
        if self.labels:
            # the class is frozen, so an ordinary assignment would raise
            object.__setattr__(self, "labels", [IGNORE, *self.labels[1:]])

    @property
    def supervised(self) -> int:
        """The number of positions that the loss sums over."""
        return sum(label != IGNORE for label in self.labels)


def supervise(
    tokenizer: Tokenizer, messages: list[dict], *, tools: list[dict] | None = None, train_on_prompt: bool = False
) -> Example:
    """Ids and labels of a conversation, built side by side so that they cannot drift apart.

    messages, tools  as Tokenizer.render takes them; an answer with "weight": 0 is not supervised
    """
    if train_on_prompt and any(message.get("weight") == 0 for message in messages):
        raise ValueError("--train-on-prompt trains on every token, but an answer here has weight 0; drop one of them")

    # control tokens and text apart: what a user writes never becomes a control token
    ids: list[int] = []
    labels: list[int] = []
    segments = tokenizer.segments(messages, tools=tools)
    for segment, piece in zip(segments, tokenizer.encode_segments(segments), strict=True):
        ids += piece
        labels += piece if segment.is_supervised or train_on_prompt else [IGNORE] * len(piece)

    # if the template does not end the last turn, the eos token does
    if segments[-1].is_supervised and not segments[-1].is_special:
        ids.append(tokenizer.eos_id)
        labels.append(tokenizer.eos_id)
    return Example(ids, labels)


def spans(labels: list[int]) -> list[tuple[int, int, bool]]:
    """A document's labels as runs of supervised and unsupervised positions: (start, stop, is supervised), in order."""
    # a run begins wherever a position differs from the one before
    is_supervised = [label != IGNORE for label in labels]
    cuts = [0, *(at for at in range(1, len(labels)) if is_supervised[at] != is_supervised[at - 1]), len(labels)]
    return [(start, stop, is_supervised[start]) for start, stop in itertools.pairwise(cuts)]


def show_mask(tokenizer: Tokenizer, example: Example) -> str:
    """The text of a document, each span below a line "learnt" or "read"."""
    parts = []
    for start, stop, is_supervised in spans(example.labels):
        text = tokenizer.decode(example.input_ids[start:stop], keep_special=True)
        parts.append(f"── {'learnt' if is_supervised else 'read'} ──\n{text}")
    return "\n".join(parts)


def encode_prompt(tokenizer: Tokenizer, messages: list[dict], *, tools: list[dict] | None = None) -> list[int]:
    """Ids up to the start of the assistant's answer: a prefix of `supervise(messages + answer).input_ids`."""
    # segment by segment, as in `supervise`: encoded in one piece, the seam to the answer could get other tokens
    segments = tokenizer.segments(messages, add_generation_prompt=True, tools=tools)
    return [token for piece in tokenizer.encode_segments(segments) for token in piece]


def plain_document(tokenizer: Tokenizer, text: str) -> Example:
    """A whole text, supervised up to and including its end token; a BOS before it is not."""
    # prefix_ids: [BOS], or [] for a model without one
    ids = [*tokenizer.encode(text), tokenizer.eos_id]
    return Example(tokenizer.prefix_ids + ids, [IGNORE] * len(tokenizer.prefix_ids) + ids)


def tokenize_rows(
    rows: list[dict], tokenizer: Tokenizer, *, max_length: int, where: str, train_on_prompt: bool = False
) -> tuple[list[Example], dict[str, int]]:
    """Examples of instruction rows, cut to max_length tokens, and counts of what was lost.

    The counts are those of `cut_examples`; "shortened": text rows that lost the end of their text instead, so that the
    answer stays; and "read": answers left unsupervised because the template renders them differently once the
    conversation continues (Qwen3 drops its think block). UserError names file and line of a row that cannot be used,
    before any training.
    """

    def example_of(asked: Conversation) -> Example:
        return supervise(tokenizer, asked.messages, tools=asked.tools, train_on_prompt=train_on_prompt)

    def fits(row: dict) -> bool:
        return len(example_of(training_conversation(row)).input_ids) <= max_length

    # ids and labels of each row; only a text row can be shortened
    examples, read, short = [], 0, 0
    for number, row in enumerate(rows, 1):
        with named_line(f"{where}:{number}"):
            asked = training_conversation(row)
            example = example_of(asked)
            if len(example.input_ids) > max_length and (fitting := shortened(row, fits)) is not row:
                example, short = example_of(training_conversation(fitting)), short + 1
        examples.append(example)
        read += 0 if train_on_prompt else answers_only_read(asked.messages, example)

    # truncated, and without the rows that this leaves with nothing to predict
    kept, lost = cut_examples(examples, max_length)
    return kept, {**lost, "shortened": short, "read": read}


def answers_only_read(messages: list[dict], example: Example) -> int:
    """How many answers of a conversation should be supervised but are not in its example."""
    # each supervised answer is one run of labels
    wanted = sum(message["role"] == "assistant" and message.get("weight") != 0 for message in messages)
    return wanted - sum(is_supervised for *_, is_supervised in spans(example.labels))


def cut_examples(examples: list[Example], max_length: int) -> tuple[list[Example], dict[str, int]]:
    """The first max_length tokens of each, and {"cut": how many were longer, "dropped": how many have no supervised
    token left}. Dropped ones are neither returned nor counted as cut.
    """
    kept, lost = [], {"cut": 0, "dropped": 0}
    for whole in examples:
        # truncated at the end: the answer loses its last tokens first
        example = Example(whole.input_ids[:max_length], whole.labels[:max_length])
        if not example.supervised:
            lost["dropped"] += 1
            continue
        lost["cut"] += len(example.input_ids) < len(whole.input_ids)
        kept.append(example)
    return kept, lost
