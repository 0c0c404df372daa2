"""Texts from outside the corpus: some to replay against forgetting, some to measure forgetting with.

Mixing in a small share of old text preserves most of what the model knew at little cost to the new (Ibrahim et al.,
arXiv:2403.08763: 5 % where the distributions are close, more where they are not). There replay displaces new text;
here, with a single repository, it comes on top. Plain texts are supervised whole, conversations in their answers, so
that a chat model stays one.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from common.console import UserError
from common.files import read_text
from common.shuffle import seeded_order
from data.masking import Example, cut_examples, plain_document, supervise
from data.packing import pieces
from data.rows import is_conversation, named_line, read_rows, training_conversation
from model.tokenizer import Tokenizer

SUFFIXES = frozenset({".py", ".md", ".rst", ".txt"})
HELD_BACK = 5  # without a probe, one in this many replay texts is held back as one
MOST_HELD_BACK = 50


@dataclass(frozen=True)
class OtherTexts:
    """Rows by name, {"text": …} or a conversation in any form of data/rows.py; every text occurs once over both."""

    replay: dict[str, dict]
    probe: dict[str, dict]
    lost: dict[str, int]  # texts left out: "empty", "repeated" (in these files, or in the corpus)

    def sha256(self) -> str:
        """One hash over every text, its name and its use."""
        return hashlib.sha256(json.dumps([self.replay, self.probe]).encode()).hexdigest()


def read_other_texts(replay: str | None, probe: str | None, *, corpus_texts: set[str], seed: int) -> OtherTexts:
    """The texts of `replay` and `probe`: a file of rows, a folder of .py, .md, .rst and .txt files, or None.

    Without a probe, one in five of the replay texts (at most 50, drawn by the seed) is held back as one. Raises
    UserError for a line that cannot be used, and where no text is left to replay or to probe with.
    """
    # the probe first: what forgetting is measured on must not be replayed
    to_probe, lost_probe = _distinct(_read(probe), corpus_texts) if probe else ({}, {})
    probed = {_text(row) for row in to_probe.values()}
    to_replay, lost_replay = _distinct(_read(replay), corpus_texts | probed) if replay else ({}, {})
    lost = {reason: lost_probe.get(reason, 0) + lost_replay.get(reason, 0) for reason in ("empty", "repeated")}

    # without one, some of the replay texts are held back
    if replay and not probe:
        count = min(MOST_HELD_BACK, -(-len(to_replay) // HELD_BACK))
        to_probe = {name: to_replay.pop(name) for name in seeded_order(list(to_replay), seed)[:count]}

    # both must have something left
    for place, texts, purpose in ((replay, to_replay, "replay"), (probe or replay, to_probe, "probe forgetting with")):
        if place and not texts:
            raise UserError(
                f"{place}: no text is left to {purpose}, apart from empty ones and those of the corpus; give more"
            )
    return OtherTexts(to_replay, to_probe, lost)


def other_texts_summary(other: OtherTexts) -> str:
    """One line: how many texts there are to replay and to probe with, and how many were left out."""
    return (
        f"other    {len(other.replay)} texts to replay from, {len(other.probe)} to probe forgetting with · left out: "
        f"{other.lost['empty']} empty, {other.lost['repeated']} repeated"
    )


def _read(place: str) -> dict[str, dict]:
    # a folder: one text a file
    path = Path(place)
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.suffix in SUFFIXES and file.is_file())
        return {file.relative_to(path).as_posix(): {"text": read_text(file)} for file in files}

    # a file of rows: every row is read now, so that a bad one stops the run before it trains
    rows = {}
    for number, row in enumerate(read_rows(path), 1):
        with named_line(f"{place}:{number}"):
            if is_conversation(row):
                training_conversation(row)
            elif not isinstance(row.get("text"), str):
                raise ValueError(
                    f'"text", or the fields of a conversation, are missing (this line has: {", ".join(row)})'
                )
        rows[f"{path.name}:{number}"] = row
    return rows


def _distinct(rows: dict[str, dict], known: set[str]) -> tuple[dict[str, dict], dict[str, int]]:
    """The rows whose text is neither empty nor in `known` nor repeated, and how many are "empty" or "repeated"."""
    kept, seen, lost = {}, set(known), {"empty": 0, "repeated": 0}
    for name, row in rows.items():
        text = _text(row)
        if not text.strip():
            lost["empty"] += 1
        elif text in seen:
            lost["repeated"] += 1
        else:
            seen.add(text)
            kept[name] = row
    return kept, lost


def _text(row: dict) -> str:
    """The text that identifies a row."""
    if not is_conversation(row):
        return row["text"]
    asked = training_conversation(row)
    return json.dumps([asked.messages, asked.tools])


def whole_example(tokenizer: Tokenizer, row: dict) -> Example:
    """The row as one document: a plain text supervised whole, or a conversation with its mask."""
    if not is_conversation(row):
        return plain_document(tokenizer, row["text"])
    asked = training_conversation(row)
    return supervise(tokenizer, asked.messages, tools=asked.tools)


def replay_examples(
    rows: dict[str, dict], tokenizer: Tokenizer, *, size: int, beside: int, share: float, seed: int
) -> tuple[list[Example], dict[str, int]]:
    """Pieces of other texts, drawn by the seed, to train on next to `beside` supervised tokens of the corpus.

    size   tokens of a piece at most
    share  replayed share of all supervised tokens, to within half a piece
    Returns the examples and {"pieces": how many there were to draw from, "cut", "dropped": conversations that lost
    the end of their answer, or all of it, at `size` tokens}. UserError for a share outside 0 to 1.
    """
    if not 0 < share < 1:
        raise UserError(f"--replay-share {share:g}: give a share of the supervised tokens, above 0 and below 1")

    # every piece that could be drawn: a long text is cut into several, a conversation keeps its beginning
    drawable: dict[str, Example] = {}
    lost = {"cut": 0, "dropped": 0}
    for name, row in rows.items():
        if is_conversation(row):
            with named_line(name):
                whole = whole_example(tokenizer, row)
            parts, here = cut_examples([whole], size)
            lost = {reason: lost[reason] + here[reason] for reason in lost}
        else:
            parts = pieces(plain_document(tokenizer, row["text"]), size)
        drawable |= {f"{name}/{number}": part for number, part in enumerate(parts)}

    # share = w / (beside + w), solved for w; drawing stops when one more piece would overshoot by more than half of it
    wanted, drawn = beside * share / (1 - share), []
    for name in seeded_order(list(drawable), seed):
        if drawn and wanted < drawable[name].supervised / 2:
            break
        drawn.append(drawable[name])
        wanted -= drawable[name].supervised
    return drawn, {"pieces": len(drawable), **lost}
