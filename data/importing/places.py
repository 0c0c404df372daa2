"""Where a data set comes from: a file, a folder, or the hub; which of its files hold which split."""

from __future__ import annotations

import glob
import re
from dataclasses import dataclass
from pathlib import Path

from common.console import UserError
from data.corpus import SPLITS
from model.hub import snapshot

HUB = "hub:"
SUFFIXES = (".json", ".jsonl", ".csv", ".tsv", ".txt", ".parquet", ".label", ".all")  # the last two: TREC's files
# words of a file's name that say its split; TREC's own test set is that of the conference's tenth year
WORDS = {"train": "train|training", "validation": "validation|valid|val|dev", "test": "test|trec_10"}
TEST_IDS = "test_ground_truth.json"  # beside PubMedQA's rows: which of them are the test set


@dataclass(frozen=True)
class Place:
    """The files of a data set by split, {None: [file]} for a single file; `commit` on the hub."""

    name: str
    files: dict[str | None, list[Path]]
    ignored: list[str]
    commit: str | None = None

    def only_file(self) -> Path:
        """The file of a data set that has just one. UserError otherwise."""
        paths = [path for of_split in self.files.values() for path in of_split]
        if len(paths) > 1:
            raise UserError(f"{self.name}: {len(paths)} files of instruction rows; give one: {_listed(paths)}")
        return paths[0]


def open_place(place: str) -> Place:
    """A file, a folder, or hub:OWNER/NAME with a path in it or without, downloaded if it is not in the hub's cache.

    A file given by its own name is the whole set. In a folder, names say the splits (train, dev, test); other files
    beside them are ignored. UserError where that leaves several files, or none.
    """
    path, name, commit = _from_hub(place) if place.startswith(HUB) else (Path(place), None, None)
    name = name or re.sub(r"\.gz$", "", path.resolve().name)
    if path.is_file():
        return Place(Path(name).stem, {None: [path]}, [], commit)
    if not path.is_dir():
        raise UserError(f"{place}: no such file or folder")

    # the files in the folder by split, of those that are nearest to its top
    found = [one for one in sorted(path.rglob("*")) if one.is_file() and _is_data(one.relative_to(path))]
    named = [one for one in found if _split_of(one)] or found
    if not named:
        raise UserError(f"{place}: no data file in it ({', '.join(SUFFIXES)}, also .gz)")
    top = min(len(one.parts) for one in named)
    nearest = [one for one in named if len(one.parts) == top]
    if len(folders := {one.parent for one in nearest}) > 1:
        raise UserError(f"{place}: several sets in it; give one of its folders: {_listed(sorted(folders))}")
    if len(nearest) > 1 and not _split_of(nearest[0]):
        raise UserError(f"{place}: no name says train or test; give one of its files: {_listed(nearest)}")

    # shards of a split together, in the order of their names
    files: dict[str | None, list[Path]] = {}
    for one in nearest:
        files.setdefault(_split_of(one), []).append(one)
    ignored = [str(one.relative_to(path)) for one in found if one not in nearest]
    return Place(name, {split: files[split] for split in (*SPLITS, None) if split in files}, ignored, commit)


def _from_hub(place: str) -> tuple[Path, str, str]:
    """The file or folder in the hub's cache, a name for it, and its commit."""
    owner, name, inside = (*place.removeprefix(HUB).rstrip("/").split("/", 2), "", "")[:3]
    if not (owner and name):
        raise UserError(f"{place}: give {HUB}OWNER/NAME, or {HUB}OWNER/NAME/FILE")
    escaped = glob.escape(inside)
    wanted = [escaped, f"{escaped}/*"] if inside else [f"*{suffix}{end}" for suffix in SUFFIXES for end in ("", ".gz")]
    ask = {"repo_type": "dataset", "allow_patterns": wanted}
    folder = snapshot(f"{owner}/{name}", what="data set", instead="a file", **ask)
    if not (folder / inside).exists():
        raise UserError(f"{owner}/{name}: could not be fetched from the hub (no such file as {inside}); give a file")
    return folder / inside, Path(inside).name or name, folder.name


def _is_data(path: Path) -> bool:
    is_hidden = any(part.startswith(".") for part in path.parts)
    return not is_hidden and path.name != TEST_IDS and path.name.removesuffix(".gz").endswith(SUFFIXES)


def _split_of(path: Path) -> str | None:
    name = path.name.lower()
    found = (split for split, words in WORDS.items() if re.search(rf"(?<![a-z])(?:{words})(?![a-z])", name))
    return next(found, None)


def _listed(paths: list[Path]) -> str:
    names = [path.name for path in paths[:5]]
    return ", ".join(names) + (f" and {len(paths) - len(names)} more" if len(paths) > len(names) else "")
