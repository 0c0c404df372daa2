"""What a data card describes: the corpus and the pairs in a folder, and the files that contain them."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path

from common.console import UserError
from common.files import parse_json, read_json, read_jsonl
from data.corpus import SPLITS, Corpus, load_corpus
from data.corpus.languages import GRAMMARS, NAMES
from data.instruct import InstructionPairs
from data.pairs import TextCodePairs, load_text_code_pairs
from data.rows import conversation_of, named_line, read_rows, training_conversation
from data.text_rows import common_task, task_of

CONFIGS = {"instruction pairs": "instruct", "text–code pairs": "pairs", "text rows": "text"}
LANGUAGES = {suffix: name for language, name in NAMES.items() for suffix in GRAMMARS[language]}


@dataclass(frozen=True)
class DataFile:
    """A JSON Lines file of the data."""

    path: Path
    config: str  # its set: instruct, pairs, candidates, renamed, ...
    split: str  # train, validation or test
    rows: list[dict]

    def sha256(self) -> str:
        """SHA-256 of its bytes."""
        return hashlib.sha256(self.path.read_bytes()).hexdigest()


@dataclass(frozen=True)
class TextRows:
    """Text rows of one task by split, and how they were imported: about.json, {} if they were not."""

    task: str
    rows: dict[str, list[dict]]
    about: dict

    def all_rows(self) -> list[dict]:
        """The rows of every split."""
        return [row for split in SPLITS for row in self.rows[split]]

    @property
    def repeated(self) -> int:
        """How many rows ask what an earlier row of the same split asks."""
        asked = [[conversation_of(row).messages[0]["content"] for row in self.rows[split]] for split in SPLITS]
        return sum(len(of_split) - len(set(of_split)) for of_split in asked)


@dataclass(frozen=True)
class Material:
    """Everything that a card describes; None for what is not there."""

    folder: Path
    corpus: Corpus | None = None
    instruct: InstructionPairs | None = None
    pairs: TextCodePairs | None = None
    text: TextRows | None = None
    about: dict = field(default_factory=dict)  # about.json of the instruction pairs
    corpus_folder: Path | None = None
    files: tuple[DataFile, ...] = ()

    @property
    def name(self) -> str:
        """The name of the corpus, even if only its pairs are left."""
        if self.corpus:
            return self.corpus.name
        abouts = (self.about, self.pairs.about if self.pairs else {})
        names = [about.get("corpus", {}).get("name") for about in abouts]
        names.append(self.text.about.get("set") if self.text else None)
        return next(filter(None, names), self.folder.resolve().name)

    def sources(self) -> list[dict]:
        """Origins of the data, {"path", "commit", "license"}: the corpus's files, or else the pairs' sources."""
        if self.corpus:
            return [vars(file) for file in self.corpus.files]
        by_path = {}
        for file in self.files:
            for row in file.rows:
                source = row.get("source")
                if isinstance(source, dict) and source.get("path"):
                    by_path.setdefault(source["path"], source)
        return [by_path[path] for path in sorted(by_path)]


def all_pairs(instruct: InstructionPairs) -> list[dict]:
    """The instruction pairs of every split."""
    return [pair for split in SPLITS for pair in instruct.split(split)]


def check_of(pair: dict) -> dict:
    """An instruction pair's check; of kind "none" where it has none."""
    return pair.get("check") or {"kind": "none"}


def read_material(folder: Path | str) -> Material:
    """The contents of a folder and its subfolders: at most one corpus, one set of instruction pairs, one of text–code
    pairs and one of text rows, as the commands write them.

    UserError when there is nothing, when there are two sets of a kind, and for a file that cannot be read.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    places: dict[str, Path] = {}
    for place in _places(folder):
        if (kind := _kind(place)) is None:
            continue
        if kind in places:
            raise UserError(f"{folder}: two sets of {kind}, in {places[kind]} and {place}; give the folder of one")
        places[kind] = place
    if not places:
        raise UserError(
            f"{folder}: no corpus and no pairs here, nor in its subfolders; build some: python -m data.corpus"
        )
    corpus = load_corpus(places["corpus"]) if "corpus" in places else None
    pairs = load_text_code_pairs(places["text–code pairs"]) if "text–code pairs" in places else None
    if pairs and not (pairs.train or pairs.test):
        raise UserError(f"{places['text–code pairs']}: no pair in it")
    instruct, about = _instruction_pairs(places.get("instruction pairs"))
    text = _text_rows(places["text rows"]) if "text rows" in places else None
    return Material(
        folder, corpus, instruct, pairs, text, about=about, corpus_folder=places.get("corpus"), files=data_files(folder)
    )


def _places(folder: Path) -> list[Path]:
    """The folder and its subfolders, except variants of its own pairs."""
    below = sorted(one for one in folder.iterdir() if one.is_dir())
    return [folder, *(one for one in below if _kind(folder) != "text–code pairs" or one.name != "renamed")]


def _kind(place: Path) -> str | None:
    if (place / "corpus.json").is_file():
        return "corpus"
    if (place / "candidates.jsonl").is_file() and (place / "train.jsonl").is_file():
        return "text–code pairs"
    if not (place / "train.jsonl").is_file():
        return None
    is_text = any(_begins_with_text_row(place / f"{split}.jsonl") for split in SPLITS)
    return "text rows" if is_text else "instruction pairs"


def _begins_with_text_row(path: Path) -> bool:
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        line = file.readline()
    try:
        row = parse_json(line.decode("utf-8-sig"))
    except ValueError:  # reading the file says what is wrong with it
        return False
    return isinstance(row, dict) and task_of(row) is not None


def _text_rows(place: Path) -> TextRows:
    about = read_json(place / "about.json") if (place / "about.json").is_file() else {}
    rows: dict[str, list[dict]] = {}
    for split in SPLITS:
        path = place / f"{split}.jsonl"
        of_split = read_rows(path, trained=rows.get("train", [])) if path.is_file() else []
        rows[split] = [{"id": f"{split}/{number}"} | row for number, row in enumerate(of_split, 1)]
    task = common_task([row for of_split in rows.values() for row in of_split])
    if task is None:
        raise UserError(f"{place}: text rows of several tasks, or among other rows; a card describes one task")
    return TextRows(task, rows, about)


def _instruction_pairs(place: Path | None) -> tuple[InstructionPairs | None, dict]:
    if place is None:
        return None, {}
    rejects = place / "rejects.jsonl"
    rows = {split: _instruction_rows(place / f"{split}.jsonl") for split in SPLITS}
    if not any(rows.values()):
        raise UserError(f"{place}: no pair in it")
    about = read_json(place / "about.json") if (place / "about.json").is_file() else {}
    refused = read_jsonl(rejects) if rejects.is_file() else []
    return InstructionPairs(**rows, rejects=refused, lost=about.get("lost", {})), about


def _instruction_rows(path: Path) -> list[dict]:
    """The rows of a file that may be missing; rows of other formats get "instruction" and "output"."""
    rows = []
    for number, row in enumerate(read_jsonl(path) if path.is_file() else [], 1):
        with named_line(f"{path}:{number}"):
            *before, answer = training_conversation(row).messages
        added = {"id": f"{path.stem}/{number}"}
        if "instruction" not in row:
            added |= {"instruction": before[-1]["content"] if before else "", "output": answer["content"]}
        rows.append(added | row)
    return rows


def data_files(folder: Path) -> tuple[DataFile, ...]:
    """The files of pairs and candidates in a folder and its subfolders, without rejects and empty files."""
    found = []
    for place in _places(folder):
        kind = _kind(place)
        if config := CONFIGS.get(kind or ""):
            found += _split_files(place, config)
        if kind == "text–code pairs":
            found += _file(place / "candidates.jsonl", "candidates", "train")
            found += _split_files(place / "renamed", "renamed")
            found += _file(place / "renamed" / "candidates.jsonl", "renamed-candidates", "train")
    return tuple(found)


def _split_files(place: Path, config: str) -> list[DataFile]:
    return [one for split in SPLITS for one in _file(place / f"{split}.jsonl", config, split)]


def _file(path: Path, config: str, split: str) -> list[DataFile]:
    rows = read_jsonl(path) if path.is_file() else []
    return [DataFile(path, config, split, rows)] if rows else []


def relative(path: Path, folder: Path) -> str:
    """The path relative to the card's folder, as the card writes it."""
    return Path(os.path.relpath(path, folder)).as_posix()
