"""A curated set of source files with one split by file: what all three tracks learn from and are measured on."""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import sys
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

from data.dedup import near_duplicates
from data.filters import decode, reject_path, reject_text
from data.source import Located, import_root, locate
from data.split import seeded_order, split_files
from model.console import UserError, progress, run_command
from model.files import new_folder, read_json, read_jsonl, write_json, write_jsonl

__all__ = ["Corpus", "SourceFile", "build_corpus", "import_root", "load_corpus", "open_corpus", "save_corpus"]

SCHEMA = 1
SPLITS = ("train", "validation", "test")
DUPLICATE = 0.7  # Jaccard index from which on the later of two files is dropped
ALIKE = 0.5  # and from which on two files stay on the same side of the split
SPDX = re.compile(r"SPDX-License-Identifier:\s*([\w.+-]+(?: (?:AND|OR|WITH) [\w.+-]+)*)")


@dataclass(frozen=True)
class SourceFile:
    """One kept file. `path` is POSIX and relative to the import root; `commit` may be NAME==VERSION of a package."""

    path: str
    text: str
    sha256: str  # of the text in UTF-8
    license: str | None
    commit: str | None
    split: str


@dataclass(frozen=True)
class Corpus:
    """Kept files in the order of their paths, and what was rejected: {"path", "reason", "detail"}."""

    source: str
    name: str
    files: tuple[SourceFile, ...]
    rejects: tuple[dict, ...]
    options: dict  # max_files, test_share, validation_share, seed

    def split(self, name: str) -> list[SourceFile]:
        """The files of "train", "validation" or "test"."""
        if name not in SPLITS:
            raise ValueError(f"split {name!r}: expected one of {SPLITS}")
        return [file for file in self.files if file.split == name]

    def sha256(self) -> str:
        """One hash over every kept file and its side of the split."""
        return _sha256("".join(f"{file.split} {file.sha256} {file.path}\n" for file in self.files))


def build_corpus(
    source: str, *, max_files: int = 300, test_share: float = 0.2, validation_share: float = 0.05, seed: int = 0
) -> Corpus:
    """Curate the Python files of a source.

    source            folder, package:NAME, pypi:NAME==VERSION or git URL
    max_files         more than these are dropped by a seeded draw
    *_share           shares of the files, between 0 and 1, below 1 together
    Same source and options give the same corpus. Raises UserError when nothing is left.
    """
    if min(test_share, validation_share) < 0 or test_share + validation_share >= 1 or max_files < 1:
        raise UserError("max_files must be at least 1, the shares not negative and below 1 together")
    located = locate(source)
    texts, rejects = _read_texts(located)
    if not texts and not rejects:
        raise UserError(f"{source}: no Python file in {located.scanned}. Give a folder that holds .py files")
    texts, alike = _without_duplicates(texts, rejects)
    for path in seeded_order(list(texts), seed)[max_files:]:
        rejects.append({"path": path, "reason": "over max_files", "detail": f"more than {max_files} files"})
        del texts[path]
    if not texts:
        reasons = ", ".join(f"{count} {reason}" for reason, count in _reasons(rejects))
        raise UserError(f"{source}: every Python file was filtered ({reasons}). Give a source with more code")
    split = split_files(list(texts), alike, test_share=test_share, validation_share=validation_share, seed=seed)
    options = {
        "max_files": max_files, "test_share": test_share, "validation_share": validation_share, "seed": seed
    }  # fmt: skip
    files = tuple(
        SourceFile(path, texts[path], _sha256(texts[path]), _file_license(texts[path]) or located.license,
                   located.revision, split[path])
        for path in sorted(texts)
    )  # fmt: skip
    return Corpus(located.source, located.name, files, tuple(sorted(rejects, key=lambda r: r["path"])), options)


def _read_texts(located: Located) -> tuple[dict[str, str], list[dict]]:
    """Texts by path of the files that pass every filter, and the rejects."""
    found = [located.scanned] if located.scanned.is_file() else []
    for folder, _, names in os.walk(located.scanned):  # does not follow linked folders
        found += [Path(folder, name) for name in names if name.endswith(".py")]
    texts, rejects = {}, []
    for file in progress(sorted(found), what="reading source files", unit="file"):
        path = file.relative_to(located.root).as_posix()
        why = ("link", "a symbolic link") if file.is_symlink() else reject_path(path)
        if why is None:
            text = decode(file.read_bytes())
            why = ("not UTF-8", "") if text is None else reject_text(text)
        if why is None:
            texts[path] = text
        else:
            rejects.append({"path": path, "reason": why[0], "detail": why[1]})
    return texts, rejects


def _without_duplicates(texts: dict[str, str], rejects: list[dict]) -> tuple[dict[str, str], list[tuple[str, str]]]:
    """The texts without near-duplicates (the alphabetically first of two is kept), and all pairs that are alike."""
    paths = sorted(texts)
    kept = dict(texts)
    alike = []
    for i, j, similarity in near_duplicates([texts[path] for path in paths], ALIKE):
        alike.append((paths[i], paths[j]))
        if similarity >= DUPLICATE and paths[i] in kept and paths[j] in kept:
            del kept[paths[j]]
            reason = "duplicate" if texts[paths[i]] == texts[paths[j]] else "near-duplicate"
            rejects.append({"path": paths[j], "reason": reason, "detail": f"{similarity:.2f} alike {paths[i]}"})
    return kept, alike


def _file_license(text: str) -> str | None:
    declared = SPDX.search("\n".join(text.split("\n", 20)[:20]))
    return declared.group(1) if declared else None


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _reasons(rejects) -> list[tuple[str, int]]:
    return Counter(reject["reason"] for reject in rejects).most_common()


def save_corpus(corpus: Corpus, folder: Path | str) -> None:
    """Write corpus.json, manifest.jsonl (kept and rejected files, with why) and files/ as one whole folder."""
    with new_folder(folder) as temporary:
        for file in corpus.files:
            target = temporary / "files" / file.path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(file.text, encoding="utf-8", newline="\n")
        kept = [{key: value for key, value in asdict(file).items() if key != "text"} for file in corpus.files]
        write_jsonl(temporary / "manifest.jsonl", [*kept, *corpus.rejects])
        write_json(
            temporary / "corpus.json",
            {"schema": SCHEMA, "source": corpus.source, "name": corpus.name, "options": corpus.options},
        )


def load_corpus(folder: Path | str) -> Corpus:
    """Read a folder that save_corpus wrote. UserError names a file that is missing or no longer what was curated."""
    folder = Path(folder)
    if not (folder / "corpus.json").is_file():
        raise UserError(f"{folder}: no corpus here. Make one: python -m data.corpus SOURCE --out {folder}")
    about = read_json(folder / "corpus.json")
    if about.get("schema") != SCHEMA:
        raise UserError(f"{folder}: corpus of schema {about.get('schema')}, this version reads {SCHEMA}. Make it again")
    files, rejects = [], []
    for row in read_jsonl(folder / "manifest.jsonl"):
        if "reason" in row:
            rejects.append(row)
            continue
        try:
            text = (folder / "files" / row["path"]).read_bytes().decode()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{folder}: {row['path']} is not readable ({error}). Make the corpus again") from None
        if _sha256(text) != row["sha256"]:
            raise UserError(f"{folder}: {row['path']} was changed since it was curated. Make the corpus again")
        files.append(SourceFile(text=text, **row))
    return Corpus(about["source"], about["name"], tuple(files), tuple(rejects), about["options"])


def open_corpus(place: str, *, seed: int = 0) -> Corpus:
    """A corpus that was saved in folder `place`, or else the source `place` curated now."""
    return load_corpus(place) if (Path(place) / "corpus.json").is_file() else build_corpus(place, seed=seed)


def describe(corpus: Corpus) -> str:
    """Kept and rejected files in a few lines."""
    sides = ", ".join(f"{len(corpus.split(side))} {side}" for side in SPLITS)
    lines = [f"kept     {len(corpus.files)} files of {corpus.name}: {sides}"]
    if corpus.rejects:
        reasons = ", ".join(f"{count} {reason}" for reason, count in _reasons(corpus.rejects))
        lines.append(f"rejected {len(corpus.rejects)}: {reasons}")
    return "\n".join(lines)


def main() -> None:
    """Curate a source into a folder."""
    parser = argparse.ArgumentParser(prog="python -m data.corpus", description=main.__doc__)
    parser.add_argument("source", help="a folder, package:NAME, pypi:NAME==VERSION, or a git URL")
    parser.add_argument("--out", required=True, help="folder to write (replaced if it exists)")
    parser.add_argument("--max-files", type=int, default=300, help="files kept at most (default 300)")
    parser.add_argument("--test-share", type=float, default=0.2, help="share of files to test on (default 0.2)")
    parser.add_argument("--validation-share", type=float, default=0.05, help="share to validate on (default 0.05)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the draw and the split (default 0)")
    options = parser.parse_args()
    corpus = build_corpus(
        options.source, max_files=options.max_files, test_share=options.test_share,
        validation_share=options.validation_share, seed=options.seed,
    )  # fmt: skip
    save_corpus(corpus, options.out)
    print(describe(corpus))


if __name__ == "__main__":
    sys.exit(run_command(main))
