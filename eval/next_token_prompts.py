"""The prompts at which base and tuned are compared: texts, rows or files, each with a position to predict."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from common.files import holds_rows
from data.masking import encode_prompt, plain_document, supervise
from data.rows import conversation_of, is_conversation, named_line, read_rows
from eval.source_files import read_files
from model.tokenizer import Tokenizer


@dataclass(frozen=True)
class Prompt:
    """A text and a position in it: the next token after input_ids[:at] is the one of interest.

    kind  "seen" (trained on), "unseen", or "given" (on the command line)
    """

    name: str
    kind: str
    input_ids: list[int]
    at: int

    def cut(self, window: int) -> Prompt:
        """At most `window` tokens, around the position of interest."""
        start = max(0, min(self.at - window // 2, len(self.input_ids) - window))
        return Prompt(self.name, self.kind, self.input_ids[start : start + window], self.at - start)


def given_prompt(tokenizer: Tokenizer, text: str, *, name: str = "prompt", kind: str = "given") -> Prompt:
    """A text as it is, whose continuation is of interest."""
    ids = [*tokenizer.prefix_ids, *tokenizer.encode(text)]
    return Prompt(name, kind, ids, len(ids))


def read_prompts(tokenizer: Tokenizer, place: Path, *, kind: str, count: int, window: int) -> list[Prompt]:
    """The first `count` prompts of a file, a folder or a corpus.

    A file of rows holds data rows (data/rows.py), where the first token of the answer is of interest, or {"text"}. Of a
    source file (in a corpus: a training file if kind is "seen", else a test file) it is the token in the middle of the
    first `window` tokens.
    """
    if not holds_rows(place):
        files = read_files(place, split="train" if kind == "seen" else "test")[:count]
        cut = [(name, plain_document(tokenizer, text).input_ids[:window]) for name, text in files]
        return [Prompt(name, kind, ids, (len(ids) + 1) // 2) for name, ids in cut]
    prompts = []
    for number, row in enumerate(read_rows(place)[:count], start=1):
        name = str(row.get("id", f"{place.name}:{number}"))
        if "text" in row and not is_conversation(row):
            prompts.append(given_prompt(tokenizer, str(row["text"]), name=name, kind=kind))
            continue
        with named_line(f"{place}:{number}"):
            whole = conversation_of(row)
            question = encode_prompt(tokenizer, whole.question.messages, tools=whole.tools)
            ids = supervise(tokenizer, whole.messages, tools=whole.tools).input_ids if whole.answer else question
        prompts.append(Prompt(name, kind, ids, len(question)))
    return prompts
