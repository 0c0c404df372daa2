"""Other texts than the corpus: some to replay, so that what they teach is not forgotten, some to probe forgetting with.

A small share of replayed text among the new keeps most of what was known, at little cost to what is learnt (Ibrahim et
al., arXiv:2403.08763: 5 % where the new text is not far from the old, more where it is). There the new text gives way;
here, where it is one repository, the replayed text comes on top. A text is learnt whole, or it is a conversation, of
which the answers are: so a chat model keeps its chat.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from common.console import UserError
from common.files import read_jsonl, read_text
from common.shuffle import seeded_order
from data.masking import Example, cut_examples, plain_document, supervise
from data.packing import pieces
from data.rows import is_conversation, named_line, training_conversation
from model.tokenizer import Tokenizer

SUFFIXES = frozenset({".py", ".md", ".rst", ".txt"})
HELD_BACK = 5  # where no probe is given, one of so many texts is kept from the replay for it
MOST_HELD_BACK = 50


@dataclass(frozen=True)
class OtherTexts:
    """Rows by name, {"text": …} or a conversation in any form of data/rows.py; no text is in both, nor twice."""

    replay: dict[str, dict]
    probe: dict[str, dict]
    lost: dict[str, int]  # texts left out: "empty", "repeated" (in these files, or in the corpus)

    def sha256(self) -> str:
        """One hash over every text, its name and its side."""
        return hashlib.sha256(json.dumps([self.replay, self.probe]).encode()).hexdigest()


def read_other_texts(replay: str | None, probe: str | None, *, corpus_texts: set[str], seed: int) -> OtherTexts:
    """The texts of `replay` and `probe`: a JSON Lines file, or a folder of .py, .md, .rst and .txt files, or nothing.

    Without a probe, one in five of the replayed texts (at most 50, drawn by the seed) is kept from replay to be one.
    Raises UserError for a line that cannot be used, and where nothing is left to replay or to probe with.
    """
    lost = {"empty": 0, "repeated": 0}
    seen = set(corpus_texts)
    to_probe = _without(_read(probe), seen, lost) if probe else {}
    to_replay = _without(_read(replay), seen, lost) if replay else {}
    if replay and not probe:
        count = min(MOST_HELD_BACK, -(-len(to_replay) // HELD_BACK))
        to_probe = {name: to_replay.pop(name) for name in seeded_order(list(to_replay), seed)[:count]}
    for place, texts, purpose in ((replay, to_replay, "replay"), (probe or replay, to_probe, "probe forgetting with")):
        if place and not texts:
            raise UserError(
                f"{place}: no text is left to {purpose}, beside empty ones and those of the corpus; give more"
            )
    return OtherTexts(to_replay, to_probe, lost)


def describe(other: OtherTexts) -> str:
    """How many texts there are of each kind, and how many were left out, in a line."""
    return (
        f"other    {len(other.replay)} texts to replay from, {len(other.probe)} to probe forgetting with · left out: "
        f"{other.lost['empty']} empty, {other.lost['repeated']} repeated"
    )


def _read(place: str) -> dict[str, dict]:
    path = Path(place)
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.suffix in SUFFIXES and file.is_file())
        return {file.relative_to(path).as_posix(): {"text": read_text(file)} for file in files}
    rows = {}
    for number, row in enumerate(read_jsonl(path), 1):
        with named_line(f"{place}:{number}"):
            if is_conversation(row):
                training_conversation(row)
            elif not isinstance(row.get("text"), str):
                raise ValueError(
                    f'"text", or the fields of a conversation, are missing (this line has: {", ".join(row)})'
                )
        rows[f"{path.name}:{number}"] = row
    return rows


def _without(rows: dict[str, dict], seen: set[str], lost: dict[str, int]) -> dict[str, dict]:
    """The rows that hold a text which is not in `seen`; adds it there, and the others to `lost`."""
    kept = {}
    for name, row in rows.items():
        if is_conversation(row):
            asked = training_conversation(row)
            text = json.dumps([asked.messages, asked.tools])
        else:
            text = row["text"]
        if not text.strip():
            lost["empty"] += 1
        elif text in seen:
            lost["repeated"] += 1
        else:
            seen.add(text)
            kept[name] = row
    return kept


def whole_example(tokenizer: Tokenizer, row: dict) -> Example:
    """The row as one document: a plain text learnt whole, or a conversation with its mask."""
    if not is_conversation(row):
        return plain_document(tokenizer, row["text"])
    asked = training_conversation(row)
    return supervise(tokenizer, asked.messages, tools=asked.tools)


def replay_examples(
    rows: dict[str, dict], tokenizer: Tokenizer, *, size: int, beside: int, share: float, seed: int
) -> tuple[list[Example], dict[str, int]]:
    """Pieces of other texts, drawn by the seed, to be learnt beside so many learnt tokens of the corpus.

    size   tokens of a piece at most
    share  of the learnt tokens of both together, to within half a piece; of a conversation the answers count
    Returns the examples and {"pieces": how many there were to draw from, "cut", "dropped": conversations that lost
    the end of their answer, or all of it, at `size` tokens}. UserError for a share outside 0 to 1.
    """
    if not 0 < share < 1:
        raise UserError(f"--replay-share {share:g}: give a share of the learnt tokens, above 0 and below 1")
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
    wanted, drawn = beside * share / (1 - share), []
    for name in seeded_order(list(drawable), seed):
        if drawn and wanted < drawable[name].supervised / 2:
            break
        drawn.append(drawable[name])
        wanted -= drawable[name].supervised
    return drawn, {"pieces": len(drawable), **lost}
