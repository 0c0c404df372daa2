"""A public data set as text rows in three splits, with everything that was left out on the way."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from common.console import UserError
from common.files import SURROGATE, read_json
from data.importing.places import TEST_IDS, Place
from data.importing.public_sets import LeftOutError, PublicSet, recognise, text_row, unknown_set
from data.importing.records import read_records
from data.importing.text_splits import TextSplits, sample_rows, split_text_rows
from data.text_rows import PROMPTS, common_task, labels_of, with_labels


@dataclass(frozen=True)
class TextImport:
    """What was read: the set and its task, its rows by split, rejects {"id", "reason"}, and notes for people."""

    name: str
    task: str
    splits: TextSplits
    rejects: list[dict]
    notes: list[str]

    @property
    def labels(self) -> list[str] | None:
        """The labels of the rows, None if their answers are free."""
        return labels_of(row for rows in self.splits.rows.values() for row in rows)

    def about(self) -> dict:
        """How the rows were made, as about.json keeps it."""
        return {
            "schema": 1,
            "kind": "imported text rows",
            "set": self.name,
            "task": self.task,
            "prompt": PROMPTS[self.task],
            "labels": self.labels,
            "drawn": self.splits.drawn,
            "duplicates": self.splits.duplicates,
            "left_out": self.splits.left_out,
            "rejected": dict(Counter(reject["reason"] for reject in self.rejects).most_common()),
            "notes": self.notes,
        }


@dataclass(frozen=True)
class _Read:
    """The rows of a place by split (None: a set in one file), before the splits are completed."""

    public: PublicSet
    rows: dict[str | None, list[dict]]
    rejects: list[dict]
    notes: list[str]


def import_text_rows(
    place: Place,
    *,
    name: str | None = None,
    source: dict | None = None,
    shares: tuple[float, float] = (0.1, 0.1),
    most: tuple[int | None, int | None] = (None, None),
    seed: int = 0,
) -> TextImport:
    """The rows of a public data set.

    name    of the set (default: recognised by its first record)
    source  {"path", "license", …}, recorded with every row
    shares  of the test and of the validation rows, where the set has no such split
    most    training rows, and rows of each other split, at most: drawn by the seed (default: all)
    UserError names the file and the record that is not as expected, and a set without a usable row.
    """
    # one task, and for all splits the same labels
    read = _read(place, name, source or {})
    everything = [row for of_split in read.rows.values() for row in of_split]
    task = common_task(everything)
    if task is None:
        reasons = ", ".join({reject["reason"] for reject in read.rejects}) or "rows of several tasks"
        raise UserError(f"{place.name}: no set of rows to import ({reasons})")
    everything = with_labels(everything, where=place.name)

    # the published splits: by file, or by a list of ids
    given = [split for split, of_split in read.rows.items() for _ in of_split]
    everything = _with_unique_ids(everything, given, place.name)
    test_ids = _test_ids(place)
    by_split: dict[str, list[dict]] = {}
    for split, row in zip(given, everything, strict=True):
        by_split.setdefault(split or ("test" if row["id"] in test_ids else "train"), []).append(row)
    if missing := test_ids - {row["id"] for row in by_split.get("test", [])}:
        raise UserError(f"{TEST_IDS}: {len(missing)} of its ids are not in the data, such as {min(missing)}")

    # completed, and as many rows as were asked for
    splits = split_text_rows(by_split, test_share=shares[0], validation_share=shares[1], seed=seed)
    splits = sample_rows(splits, {"train": most[0], "validation": most[1], "test": most[1]}, seed=seed)
    return TextImport(read.public.name, task, splits, read.rejects, read.notes)


def _read(place: Place, name: str | None, source: dict) -> _Read:
    """Every record of every file as a row, or among the rejects. Ids are SPLIT/record, where the set has none."""
    public: PublicSet | None = None
    rows: dict[str | None, list[dict]] = {split: [] for split in place.files}
    rejects: list[dict] = []
    notes: list[str] = []
    for split, paths in place.files.items():
        # the records of all shards, each with its place for errors
        records: list[tuple[Path, int, dict]] = []
        for path in paths:
            of_file, remarks = read_records(path)
            records += [(path, number, record) for number, record in enumerate(of_file, 1)]
            notes += remarks
        for count, (path, number, record) in enumerate(records, 1):
            public = public or _set_of(record, name, path)
            id_ = f"{split or place.name}/{count}"
            try:
                row = {"id": id_} | text_row(public, record, f"{path}:{number}")
                if SURROGATE.search("".join(text for text in row.values() if isinstance(text, str))):
                    raise LeftOutError("a lone surrogate, which no text file can hold")
            except LeftOutError as reason:
                rejects.append({"id": id_, "reason": str(reason)})
            else:
                rows[split].append(row | ({"source": source} if source else {}))
    if public is None:
        raise UserError(f"{place.name}: no record in it")
    return _Read(public, rows, rejects, notes + ([f"ignored: {', '.join(place.ignored)}"] if place.ignored else []))


def _set_of(record: dict, name: str | None, path: Path) -> PublicSet:
    public = recognise(record, name, str(path))
    if public is None:
        raise unknown_set(record, str(path))
    return public


def _test_ids(place: Place) -> set[str]:
    """The ids of PubMedQA's published test set, from the file beside its rows."""
    paths = [path.parent / TEST_IDS for path in place.files.get(None, [])]
    return {id_ for path in paths if path.is_file() for id_ in read_json(path)}


def _with_unique_ids(rows: list[dict], splits: list[str | None], name: str) -> list[dict]:
    """The rows with their ids as text; as SPLIT/id if the splits number theirs alike. UserError for equal ones."""
    ids = [str(row["id"]) for row in rows]
    if len(set(ids)) < len(ids):
        ids = [f"{split}/{id_}" for split, id_ in zip(splits, ids, strict=True)]
    if twice := [id_ for id_, count in Counter(ids).items() if count > 1]:
        raise UserError(f"{name}: {len(twice)} ids are used twice, such as {twice[0]!r}; ids must be unique")
    return [row | {"id": id_} for row, id_ in zip(rows, ids, strict=True)]
