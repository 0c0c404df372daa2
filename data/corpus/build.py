"""A curated set of source files with one split: the training and test material of all three tracks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path

from common.console import UserError
from common.files import new_folder, read_json, read_jsonl, write_json, write_jsonl
from data.corpus.curate import Candidate, Options, curate
from data.corpus.examine import read_again, sha256

SCHEMA = 2
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class SourceFile:
    """One kept file. `path` is POSIX, relative to the import root (Python) or to the source (other languages)."""

    path: str
    text: str
    sha256: str  # of the text in UTF-8
    license: str | None
    commit: str | None  # of a repository; NAME==VERSION or NAME@VERSION of a package
    split: str
    source: str = ""  # the SOURCE it came from
    language: str = "python"
    tokens: int = 0  # words and punctuation marks; a model has more tokens
    redacted: dict[str, int] = field(default_factory=dict, hash=False)  # number of placeholders in the text, by type


@dataclass(frozen=True)
class Corpus:
    """Kept files in the order of their sources and paths, and what was rejected.

    A reject is {"path", "reason", "detail"} with the "source", "language", "sha256", "license", "commit" and "tokens"
    of the file; null where not determined.
    """

    source: str  # the SOURCE; several are joined by commas
    name: str
    files: tuple[SourceFile, ...]
    rejects: tuple[dict, ...]
    options: dict  # those of build_corpus
    sources: tuple[str, ...] = ()  # each SOURCE

    def split(self, name: str) -> list[SourceFile]:
        """The files of "train", "validation" or "test"."""
        if name not in SPLITS:
            raise ValueError(f"split {name!r}: expected one of {SPLITS}")
        return [file for file in self.files if file.split == name]

    def sha256(self) -> str:
        """One hash over every kept file and its split."""
        return sha256("".join(f"{file.split} {file.sha256} {file.path}\n" for file in self.files))


def build_corpus(
    source: str | Sequence[str],
    *,
    max_files: int = 300,
    test_share: float = 0.2,
    validation_share: float = 0.05,
    seed: int = 0,
    split_by: str = "file",
    languages: Sequence[str] = ("python",),
    redact: bool = True,
    licenses: Sequence[str] | None = None,
    decontaminate: Sequence[str] = (),
    processes: int | None = None,
) -> Corpus:
    """Curate the files of one source or of several.

    source            folder, package:NAME, pypi:NAME==VERSION, npm:NAME@VERSION or git URL, or a list of them
    max_files         files kept at most, by a seeded draw
    *_share           shares of the files, between 0 and 1, below 1 together
    split_by          "file", or "module": the files of a folder all go to one side
    languages         of "python", "javascript", "typescript"
    redact            put placeholders in place of secrets and personal data
    licenses          allowed licences by SPDX name; None: any, or none at all
    decontaminate     files of MBPP or HumanEval; a source file that contains a piece of a task is rejected
    processes         that examine files; the result does not depend on it
    The same sources and options give the same corpus. Raises UserError when nothing is left.
    """  # fmt: skip
    options = Options(
        max_files=max_files, test_share=test_share, validation_share=validation_share, seed=seed, split_by=split_by,
        languages=tuple(languages), redact=redact, licenses=None if licenses is None else tuple(licenses),
        decontaminate=tuple(decontaminate),
    )  # fmt: skip
    candidates = curate([source] if isinstance(source, str) else source, options, processes=processes)
    return replace(_corpus(candidates, options), files=tuple(_files(candidates, redact)))


def write_corpus(
    sources: Sequence[str], folder: Path | str, options: Options, *, processes: int | None = None
) -> Corpus:
    """Curate sources into a folder, one text at a time. Returns the corpus with empty texts."""
    candidates = curate(sources, options, processes=processes)
    corpus = _corpus(candidates, options)
    _save(corpus, _files(candidates, options.redact), folder)
    return corpus


def _corpus(candidates: list[Candidate], options: Options) -> Corpus:
    """The corpus without the texts of its files."""
    located = {one.source.source: one.source for one in candidates}
    rejects = tuple(
        {"path": one.path, "reason": one.finding.reason, "detail": one.finding.detail, **one.row()}
        for one in candidates
        if not one.kept
    )
    values = {one.name: getattr(options, one.name) for one in fields(Options)}  # not those of a subclass
    return Corpus(
        source=", ".join(located),
        name=" + ".join(one.name for one in located.values()),
        files=tuple(_file(one, "") for one in candidates if one.kept),
        rejects=rejects,
        options={name: list(value) if isinstance(value, tuple) else value for name, value in values.items()},
        sources=tuple(located),
    )


def _files(candidates: list[Candidate], redact: bool) -> Iterator[SourceFile]:
    """The kept files, reread one at a time. UserError when one has changed since it was examined."""
    for one in candidates:
        if one.kept:
            text = read_again(one.request, redact)
            if sha256(text) != one.finding.sha256:
                raise UserError(f"{one.request.file} changed while the corpus was being built. Rerun")
            yield _file(one, text)


def _file(one: Candidate, text: str) -> SourceFile:
    return SourceFile(path=one.path, text=text, split=one.split, redacted=one.finding.redacted, **one.row())


def save_corpus(corpus: Corpus, folder: Path | str) -> None:
    """Write corpus.json, manifest.jsonl (kept and rejected files, with reasons) and files/, all or nothing."""
    _save(corpus, corpus.files, folder)


def _save(corpus: Corpus, files: Iterable[SourceFile], folder: Path | str) -> None:
    with new_folder(folder) as temporary:
        kept = []
        for file in files:
            target = temporary / "files" / file.path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(file.text, encoding="utf-8", newline="\n")
            kept.append({key: value for key, value in asdict(file).items() if key != "text"})
        write_jsonl(temporary / "manifest.jsonl", [*kept, *corpus.rejects])
        about = {"schema": SCHEMA, "source": corpus.source, "name": corpus.name, "options": corpus.options}
        write_json(temporary / "corpus.json", {**about, "sources": corpus.sources})


def load_corpus(folder: Path | str) -> Corpus:
    """Read a folder that save_corpus wrote. UserError names a file that is missing or has changed."""
    folder = Path(folder)
    if not (folder / "corpus.json").is_file():
        raise UserError(f"{folder}: no corpus here. Build one: python -m data.corpus SOURCE --out {folder}")
    about = read_json(folder / "corpus.json")
    if about.get("schema") != SCHEMA:
        raise UserError(f"{folder}: schema {about.get('schema')}, this version reads {SCHEMA}. Rebuild the corpus")
    files, rejects = [], []
    for row in read_jsonl(folder / "manifest.jsonl"):
        if "reason" in row:
            rejects.append(row)
            continue
        try:
            text = (folder / "files" / row["path"]).read_bytes().decode()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{folder}: {row['path']} is not readable ({error}). Rebuild the corpus") from None
        if sha256(text) != row["sha256"]:
            raise UserError(f"{folder}: {row['path']} has changed since it was curated. Rebuild the corpus")
        files.append(SourceFile(text=text, **row))
    return Corpus(
        about["source"], about["name"], files=tuple(files), rejects=tuple(rejects), options=about["options"],
        sources=tuple(about["sources"]),
    )  # fmt: skip


def open_corpus(place: str, *, seed: int = 0) -> Corpus:
    """The corpus saved in folder `place`, or else the source `place`, curated now."""
    return load_corpus(place) if (Path(place) / "corpus.json").is_file() else build_corpus(place, seed=seed)


def corpus_summary(corpus: Corpus) -> str:
    """Kept and rejected files, and placeholders, in a few lines."""
    sides = ", ".join(f"{len(corpus.split(side))} {side}" for side in SPLITS)
    tokens = sum(file.tokens for file in corpus.files)
    lines = [f"kept     {len(corpus.files)} files of {corpus.name}: {sides} · {tokens:,} words and signs"]
    if corpus.rejects:
        reasons = Counter(reject["reason"] for reject in corpus.rejects).most_common()
        counted = ", ".join(f"{count} {reason}" for reason, count in reasons)
        lines.append(f"rejected {len(corpus.rejects)}: {counted}")
    redacted = sum((Counter(file.redacted) for file in corpus.files), Counter())
    if redacted:
        counted = ", ".join(f"{count} <{kind}>" for kind, count in sorted(redacted.items()))
        lines.append(f"replaced {counted} in {sum(bool(file.redacted) for file in corpus.files)} files")
    return "\n".join(lines)
