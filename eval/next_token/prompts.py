"""The prompts at which base and tuned are compared: texts, rows or files, each with a position to predict."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from common.files import holds_rows
from data.masking import encode_prompt, plain_document, supervise
from data.rows import Conversation, conversation_of, is_conversation, named_line, read_rows
from eval.next_token.language import code_before
from eval.source_files import read_files
from model.tokenizer import Tokenizer


@dataclass(frozen=True)
class Prompt:
    """A text and a position in it: the next token after input_ids[:at] is the one of interest.

    kind  "seen" (trained on), "unseen", or "given" (neither is said)
    code  what the next token continues, if it is code: of a chat, the answer so far
    """

    name: str
    kind: str
    input_ids: list[int]
    at: int
    code: str = ""

    def cut(self, window: int) -> Prompt:
        """At most `window` tokens, around the position of interest."""
        start = max(0, min(self.at - window // 2, len(self.input_ids) - window))
        return replace(self, input_ids=self.input_ids[start : start + window], at=self.at - start)


def given_prompt(tokenizer: Tokenizer, text: str, *, name: str = "prompt", kind: str = "given") -> Prompt:
    """A text as it is, whose continuation is of interest."""
    ids = [*tokenizer.prefix_ids, *tokenizer.encode(text)]
    return Prompt(name, kind, ids, len(ids), code_before(text))


def asked_prompt(
    tokenizer: Tokenizer, text: str, *, name: str = "prompt", kind: str = "given", raw: bool = False, begins: str = ""
) -> Prompt:
    """An instruction as the chat template renders it; as it is if there is no template, or with `raw`.

    begins  the beginning of the answer, which stands before the token of interest
    """
    if raw or tokenizer.chat_template is None or not text:
        return given_prompt(tokenizer, text + begins, name=name, kind=kind)
    question = encode_prompt(tokenizer, [{"role": "user", "content": text}])
    return _answered(tokenizer, name, kind, question, begins)


def _answered(tokenizer: Tokenizer, name: str, kind: str, question: list[int], begins: str) -> Prompt:
    """A rendered question and the beginning of its answer."""
    ids = [*question, *tokenizer.encode(begins)]
    return Prompt(name, kind, ids, len(ids), code_before(begins))


def read_prompts(
    tokenizer: Tokenizer, place: Path, *, kind: str, count: int, window: int, begins: str = ""
) -> list[Prompt]:
    """The first `count` prompts of a file, a folder or a corpus.

    A file of rows (data/rows.py): the first token of the answer is of interest (with `begins`, the one
    after this beginning, which takes the answer's place), or {"text"}. Of a source file (in a corpus: a training file
    if kind is "seen", else a test file) it is the token in the middle of the first `window` tokens.
    """
    if not holds_rows(place):
        files = read_files(place, split="train" if kind == "seen" else "test")[:count]
        cut = [(name, plain_document(tokenizer, text).input_ids[:window]) for name, text in files]
        return [_middle(tokenizer, name, kind, ids) for name, ids in cut]
    prompts = []
    for number, row in enumerate(read_rows(place)[:count], start=1):
        name = str(row.get("id", f"{place.name}:{number}"))
        if "text" in row and not is_conversation(row):
            prompts.append(given_prompt(tokenizer, str(row["text"]), name=name, kind=kind))
            continue
        with named_line(f"{place}:{number}"):
            prompts.append(_of_conversation(tokenizer, name, kind, conversation_of(row), begins))
    return prompts


def _middle(tokenizer: Tokenizer, name: str, kind: str, ids: list[int]) -> Prompt:
    at = (len(ids) + 1) // 2
    return Prompt(name, kind, ids, at, tokenizer.decode(ids[:at]))


def _of_conversation(tokenizer: Tokenizer, name: str, kind: str, whole: Conversation, begins: str) -> Prompt:
    if tokenizer.chat_template is None:  # as `asked_prompt` does: the texts alone
        asked = "\n\n".join(str(message["content"]) for message in whole.question.messages) + "\n\n"
        return given_prompt(tokenizer, asked + begins, name=name, kind=kind)
    question = encode_prompt(tokenizer, whole.question.messages, tools=whole.tools)
    if begins or not whole.answer:
        return _answered(tokenizer, name, kind, question, begins)
    return Prompt(name, kind, supervise(tokenizer, whole.messages, tools=whole.tools).input_ids, len(question))
