"""Shows what a model would be trained on, token by token: which are supervised, and where documents begin.

    ── document 2 · pairs.jsonl:17 · row 140–211 · positions 0–71 · 30 learnt ──
    <|im_start|> user ⏎ Fix this … <|im_end|> ⏎ <|im_start|> assistant ⏎ return a + b <|im_end|> ⏎
       markup             prompt      markup      markup       prompt       learnt    learnt markup

First, four rules are checked on every row; the first row that breaks one is reported, and nothing is shown. Rows are
shown packed, as the training loop gets them: ids and labels of `to_batch`, positions from its lengths.
"""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from common.console import UserError, progress, run_command
from common.files import write_text
from common.html import CONTROL, Safe, element, join, note, page
from common.options import option, parse
from data.masking import ONLY_READ, Example, answers_only_read, encode_prompt, show_mask, supervise
from data.packing import pack, to_batch
from data.rows import named_line, read_rows, training_conversation, unread_fields
from model import load_tokenizer
from model.chat_template import QUESTION
from model.loss import IGNORE
from model.tokenizer import Tokenizer

# style in the terminal (ANSI SGR) and on the page (CSS), legible on dark and light backgrounds
ROLES = {
    "prompt": ("2", "color: var(--muted)"),
    "markup": ("36", "color: var(--after); opacity: 0.75"),
    "learnt": ("1;32", "background: var(--better-soft); color: var(--better)"),
    "learnt markup": ("1;4;35", "background: var(--worse-soft); color: var(--worse); text-decoration: underline"),
}


@dataclass(frozen=True)
class Token:
    """One token of a packed row."""

    id: int
    text: str  # "" if a later token completes its character
    role: str  # a key of ROLES; markup: the template's control tokens
    position: int  # from 0 in each document


@dataclass(frozen=True)
class Document:
    """One document of a packed row."""

    line: int  # of the data file, from 1
    start: int  # in the row, in tokens
    tokens: list[Token]
    example: Example

    def heading(self, number: int, name: str) -> str:
        """Its source line, its place in the row, and how many of its tokens are supervised."""
        last = len(self.tokens) - 1
        learnt = sum(token.role.startswith("learnt") for token in self.tokens)
        return (
            f"document {number} · {name}:{self.line} · row {self.start}–{self.start + last} · positions 0–{last} · "
            f"{learnt} learnt"
        )


def check_row(
    tokenizer: Tokenizer, messages: list[dict], example: Example, *, bos: int | None, tools: list[dict] | None = None
) -> None:
    """Raise ValueError, with the reason, unless the four rules of a training row hold.

    messages  the conversation, the answer last       example  its ids and labels, not cut
    bos       the id that every row begins with, once; None if conversations begin without (`bos_of`)
    The rules: something is supervised; the ids of the prompt are a prefix of those of prompt and answer; the token that
    ends the turn is supervised; the row begins with exactly one BOS.
    """
    if not example.supervised:
        raise ValueError("nothing is supervised: the loss would have no token of this row")

    # the prompt's ids are a prefix; None marks the end, so that a prompt longer than the row differs from it
    prompt = encode_prompt(tokenizer, messages[:-1], tools=tools)
    pairs = zip(prompt, [*example.input_ids, None], strict=False)
    if (at := next((i for i, (one, other) in enumerate(pairs) if one != other), None)) is not None:
        raise ValueError(
            f"the prompt's ids are not a prefix of those of prompt and answer: they diverge at token {at:,}, so "
            "what is trained is not what will be asked"
        )

    # the answer's end, and the row's beginning
    if not tokenizer.stop_ids & set(example.labels[len(prompt) :]):
        raise ValueError("the token that ends the turn is not supervised: the model would not learn to stop")
    found = sum(1 for _ in itertools.takewhile(lambda token: token == bos, example.input_ids))
    if bos is not None and found != 1:
        text = tokenizer.decode([bos], keep_special=True)
        raise ValueError(f"the row begins with {found} BOS tokens ({text}), not 1")


def bos_of(tokenizer: Tokenizer) -> int | None:
    """The BOS token, if the model has one and its template begins conversations with it."""
    first = encode_prompt(tokenizer, [QUESTION])[:1]
    return first[0] if first and first == tokenizer.prefix_ids[:1] else None


def checked_examples(
    rows: list[dict], tokenizer: Tokenizer, *, where: str, train_on_prompt: bool = False
) -> list[Example]:
    """The examples of instruction rows, uncut. UserError names file, line and reason of the first bad one."""
    bos = bos_of(tokenizer)
    examples = []
    for number, row in enumerate(progress(rows, what="checking", unit="row"), 1):
        with named_line(f"{where}:{number}"):
            asked = training_conversation(row)
            example = supervise(tokenizer, asked.messages, tools=asked.tools, train_on_prompt=train_on_prompt)
            check_row(tokenizer, asked.messages, example, bos=bos, tools=asked.tools)
        examples.append(example)
    return examples


def documents_of(row: list[Example], lines: dict[int, int], tokenizer: Tokenizer) -> list[Document]:
    """The documents of a packed row, with what the training loop sees of each token.

    lines  {id(example): line of the data file}
    """
    # exactly what the loop gets, as lists
    batch = to_batch(row, "cpu")
    ids, labels = batch.input_ids[0].tolist(), batch.labels[0].tolist()
    control = set(tokenizer.control_tokens.values())
    documents, start = [], 0
    for example, length in zip(row, batch.lengths, strict=True):
        # each token with its text, and its role by label and id
        texts = token_texts(tokenizer, ids[start : start + length])
        tokens = []
        for position, text in enumerate(texts):
            token, label = ids[start + position], labels[start + position]
            role = ("prompt", "markup", "learnt", "learnt markup")[2 * (label != IGNORE) + (token in control)]
            tokens.append(Token(token, text, role, position))
        documents.append(Document(lines[id(example)], start, tokens, example))
        start += length
    return documents


def token_texts(tokenizer: Tokenizer, ids: list[int]) -> list[str]:
    """The text that each token adds, [T]; a character split over tokens belongs to the last of them.

    A single token may be half a character, and SentencePiece drops the first one's space: each is decoded together with
    the one before it.
    """
    texts, begin, read = [], 0, 0
    for end in range(1, len(ids) + 1):
        # what the tokens from `begin` on say without this one, and with it
        known = tokenizer.decode(ids[begin:read], keep_special=True)
        now = tokenizer.decode(ids[begin:end], keep_special=True)
        # not yet a whole character
        if now.endswith("\ufffd") and end < len(ids):
            texts.append("")
            continue
        texts.append(now[len(known) :])
        begin, read = read, end
    return texts


def in_terminal(documents: Sequence[Document], tokenizer: Tokenizer, *, name: str, colour: bool) -> str:
    """A packed row as text: coloured by role, or each span below a line "learnt" or "read"."""
    parts = []
    for number, document in enumerate(documents, 1):
        parts.append(f"── {document.heading(number, name)} ──")
        if not colour:
            parts.append(_printable(show_mask(tokenizer, document.example)))
            continue
        runs = itertools.groupby(document.tokens, lambda token: token.role)
        parts.append("".join(_coloured("".join(token.text for token in run), role) for role, run in runs))
    return "\n".join(parts)


def _coloured(text: str, role: str) -> str:
    # line by line: pagers lose colours across line ends
    return "\n".join(f"\x1b[{ROLES[role][0]}m{line}\x1b[0m" if line else "" for line in _printable(text).split("\n"))


def _printable(text: str) -> str:
    """Data may hold escape sequences; a terminal must not obey them."""
    return CONTROL.sub("\ufffd", text).replace("\r", "\ufffd")


def spread(count: int, rows: int) -> list[int]:
    """Up to `count` evenly spaced numbers from 0 … rows - 1: packing puts long documents first, short ones last."""
    count = min(count, rows)
    return [i * (rows - 1) // max(count - 1, 1) for i in range(count)]


def as_page(rows: dict[int, Sequence[Document]], *, name: str, told: str) -> str:
    """A self-contained HTML page of packed rows, by number; hovering over a token shows its position and id."""
    legend = element("p", join((element("span", role, class_=_class(role)) for role in ROLES), " · "), class_="tokens")
    sections = [
        (f"row-{number}", f"Row {number}", join(_document(i, one, name) for i, one in enumerate(documents, 1)))
        for number, documents in rows.items()
    ]
    style = "".join(f".{_class(role)} {{ {rule}; }}\n" for role, (_, rule) in ROLES.items())
    style += ".tokens { white-space: pre-wrap; max-width: none; font: 0.85rem/1.5 monospace; }\n"
    what = legend + note("Control tokens are markup. Learnt markup is the token that ends the answer.")
    return page(name, told, [("legend", "Legend", what), *sections], style=style)


def _document(number: int, document: Document, name: str) -> Safe:
    tokens = Safe(
        "".join(
            element(
                "span",
                token.text.replace("\n", "⏎\n"),
                class_=_class(token.role),
                title=f"position {token.position} · row {document.start + token.position} · id {token.id} "
                f"· {token.role}",
            )
            for token in document.tokens
        )
    )
    return element("h3", document.heading(number, name)) + element("p", tokens, class_="tokens")


def _class(role: str) -> str:
    return "role-" + role.replace(" ", "-")


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of this command."""

    model: str = option(help="folder, .gguf file, hub id or embedded default")
    data: Path = option(help="rows as train_sft.py reads them, JSON Lines", metavar="FILE")
    html: Path | None = option(None, "also write a page that shows the position and id of each token", metavar="FILE")
    rows: int = option(2, "packed rows to show", least=1)
    max_length: int = option(2048, "tokens of a packed row", least=2)
    chat_template: str | None = option(None, "Jinja file (default: the model's own template)", metavar="FILE")
    train_on_prompt: bool = option(False, "include the prompt's tokens in the loss, as train_sft.py does with it")


def main() -> None:
    """Show what a model learns from instruction rows, token by token, after checking every row."""
    # the rows, checked at full length
    options = parse(Options, description=main.__doc__)
    tokenizer = load_tokenizer(options.model, chat_template=options.chat_template)
    rows = read_rows(options.data)
    if not rows:
        raise UserError(f"{options.data}: no row")
    whole = checked_examples(rows, tokenizer, where=str(options.data), train_on_prompt=options.train_on_prompt)

    # cut and packed as train_sft.py does; `lines` keeps where each came from
    size = options.max_length
    cut = [Example(example.input_ids[:size], example.labels[:size]) for example in whole]
    lines = {id(example): number for number, example in enumerate(cut, 1)}
    kept = [example for example in cut if example.supervised]
    packed = pack(kept, size)

    # a line that accounts for all of them, and notes
    tokens = sum(len(example.input_ids) for example in kept)
    shortened = sum(len(example.input_ids) > size for example in whole)
    told = (
        f"{len(rows):,} rows, every rule holds · {tokens:,} tokens, {sum(one.supervised for one in kept):,} learnt · "
        f"{shortened:,} cut at {size:,}, {len(cut) - len(kept):,} of them left with nothing to learn and dropped"
    )
    print(f"data     {told}")
    messages = [training_conversation(row).messages for row in rows]
    read = sum(map(answers_only_read, messages, whole))
    if read and not options.train_on_prompt:
        print(f"note     {ONLY_READ.format(read)}")
    if unread := unread_fields(rows):
        print(f"fields   not part of what is trained: {', '.join(unread)}")
    if bos_of(tokenizer) is None and tokenizer.prefix_ids:
        print("note     the tokenizer puts a BOS before a plain text, the chat template none: rows go without")
    print(f"packed   {len(packed):,} rows of at most {size:,} tokens; {min(options.rows, len(packed))} shown")

    # some rows, in the terminal and as a page
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")  # no-color.org
    if colour:
        print("legend   " + "  ".join(_coloured(role, role) for role in ROLES))
    shown = {i + 1: documents_of(packed[i], lines, tokenizer) for i in spread(options.rows, len(packed))}
    for number, documents in shown.items():
        print(f"\nrow {number}\n{in_terminal(documents, tokenizer, name=options.data.name, colour=colour)}")
    if options.html:
        write_text(options.html, as_page(shown, name=options.data.name, told=told))
        print(f"\npage     {options.html}")


if __name__ == "__main__":
    sys.exit(run_command(main))
