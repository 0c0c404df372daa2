"""How files enter the corpus or are rejected: listed, examined, compared with each other, sampled, split.

Files are examined one at a time; only the findings, with a signature, stay in memory, some 2 KiB each. Kept files are
reread at the end, so that they need not be in memory together.
"""

from __future__ import annotations

import functools
import importlib.util
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from common.console import UserError, progress
from common.options import option
from common.shuffle import seeded_order
from data.corpus.decontaminate import RUN, read_task_texts
from data.corpus.examine import Finding, Request, Rules, examine_all, read_again
from data.corpus.languages import GRAMMARS, NAMES, grammar_of, language_of, packages_of
from data.corpus.licenses import FolderLicenses
from data.corpus.locate import Located, locate
from data.corpus.split import of_one_module, split_files
from data.likeness.groups import Groups
from data.likeness.near_duplicates import SLACK, Neighbours, jaccard, shingles

DUPLICATE = 0.7  # Jaccard index from which the later of two files is dropped; StarCoder (arXiv:2305.06161)
ALIKE = 0.5  # and from which two files stay on the same side of the split
COMPARED = 512  # texts whose shingles are cached while near-duplicates are confirmed

# groups of options in --help
KEEP = "which files to keep"
SPLIT = "the split"


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of a corpus, on the command line and in corpus.json."""

    max_files: int = option(300, "files to keep at most, drawn by the seed", KEEP)
    test_share: float = option(0.2, "share of the files to test on", SPLIT)
    validation_share: float = option(0.05, "share of the files to validate on", SPLIT)
    seed: int = option(0, "seed of the draw and the split")
    split_by: str = option(
        "file", "module: keep the files of a folder on the same side", SPLIT, choices=("file", "module")
    )
    languages: tuple[str, ...] = option(
        ("python",), f"languages to read, of {', '.join(NAMES)}; all but python need tree-sitter", KEEP,
        choices=tuple(NAMES), metavar="LANGUAGE",
    )  # fmt: skip
    redact: bool = option(
        True, "keep e-mail and IP addresses, keys and passwords (default: replace them by placeholders)", KEEP
    )
    licenses: tuple[str, ...] | None = option(
        None, "keep only files under these licences (default: any)", KEEP, metavar="SPDX"
    )
    decontaminate: tuple[str, ...] = option(
        (), f"MBPP's or HumanEval's own files: reject files that share {RUN} consecutive words with a task", KEEP,
        metavar="FILE",
    )  # fmt: skip

    def __post_init__(self):
        shares = self.test_share, self.validation_share
        if min(shares) < 0 or sum(shares) >= 1 or self.max_files < 1:
            raise UserError("max_files must be at least 1, the shares not negative and below 1 together")
        if self.split_by not in ("file", "module"):
            raise UserError(f"split by {self.split_by!r}: expected file or module")
        if unknown := [language for language in self.languages if language not in NAMES]:
            raise UserError(f"language {unknown[0]!r}: expected {', '.join(NAMES)}")


@dataclass
class Candidate:
    """A file, where it came from, and what became of it."""

    request: Request
    source: Located
    finding: Finding = field(default_factory=Finding)
    split: str | None = None

    @property
    def path(self) -> str:
        """Its name in the corpus."""
        return self.request.path

    @property
    def kept(self) -> bool:
        """Whether it has not been rejected so far."""
        return self.finding.reason is None

    def reject(self, reason: str, detail: str) -> None:
        """Reject it, keeping what is known about it."""
        self.finding = replace(self.finding, reason=reason, detail=detail)

    def row(self) -> dict:
        """Its manifest row, without the outcome."""
        return {
            "source": self.source.source,
            "language": language_of(self.path),
            "sha256": self.finding.sha256,
            "license": self.finding.license,
            "commit": self.source.revision,
            "tokens": self.finding.tokens,
        }


def curate(sources: Sequence[str], options: Options, *, processes: int | None = None) -> list[Candidate]:
    """Every file of these sources that is in one of the languages, kept or rejected, by source and path.

    Raises UserError when there is none, or when none is kept.
    """
    kinds = " or ".join(NAMES[language] for language in options.languages)
    if missing := [name for name in packages_of(options.languages) if importlib.util.find_spec(name) is None]:
        raise UserError(f"reading {kinds} needs extra packages: pip install {' '.join(missing).replace('_', '-')}")
    rules = Rules(options.redact, options.licenses, read_task_texts(options.decontaminate))
    located = _with_distinct_names([locate(source) for source in dict.fromkeys(sources)])

    candidates = []
    for one in located:
        files = _list_files(one, options.languages, len(located) > 1)
        if not files:
            suffixes = ", ".join(suffix for language in options.languages for suffix in GRAMMARS[language])
            raise UserError(f"{one.source}: no {kinds} file in {one.tree}. Give a folder that holds {suffixes} files")
        candidates += files
    findings = examine_all([one.request for one in candidates], rules, processes=processes)
    bar = progress(findings, what="reading source files", total=len(candidates), unit="file")
    for one, finding in zip(candidates, bar, strict=True):
        one.finding = finding

    _reject_equal_paths(_kept(candidates))
    alike = _reject_duplicates(_kept(candidates), options.redact)
    _draw(_kept(candidates), options)
    if not _kept(candidates):
        reasons = Counter(one.finding.reason for one in candidates).most_common()
        counted = ", ".join(f"{count} {reason}" for reason, count in reasons)
        named = ", ".join(one.source for one in located)
        raise UserError(f"{named}: every {kinds} file was filtered ({counted}). Give a source with more code")

    _split(_kept(candidates), alike, options)
    return candidates


def _kept(candidates: list[Candidate]) -> list[Candidate]:
    return [one for one in candidates if one.kept]


def _with_distinct_names(located: list[Located]) -> list[Located]:
    """The sources; those whose name is taken get a number: networkx, networkx-2."""
    seen: Counter[str] = Counter()
    named = []
    for one in located:
        seen[one.name] += 1
        named.append(replace(one, name=f"{one.name}-{seen[one.name]}") if seen[one.name] > 1 else one)
    return named


def _list_files(source: Located, languages: tuple[str, ...], several: bool) -> list[Candidate]:
    """The files of a source by path. With several sources, paths not used by imports start with the source's name."""
    # (what to search, the folder that names are relative to, what they start with, languages)
    searched: list[tuple[Path, Path, str, tuple[str, ...]]] = []
    if "python" in languages:
        searched.append((source.scanned, source.root, "", ("python",)))
    if others := tuple(language for language in languages if language != "python"):
        searched.append((source.tree, source.tree, f"{source.name}/" if several else "", others))

    licenses = FolderLicenses(source.tree, source.license)
    candidates = []
    for top, relative_to, prefix, wanted in searched:
        for file in _walk(top):
            if grammar := grammar_of(file.name, wanted):
                path = prefix + os.fsencode(file.relative_to(relative_to).as_posix()).decode("utf-8", "replace")
                candidates.append(Candidate(Request(str(file), path, grammar, licenses.of(file)), source))
    return sorted(candidates, key=lambda one: one.path)


def _walk(top: Path) -> list[Path]:
    """Every file below a folder, or the file itself; symlinked folders and .git are not entered."""
    if top.is_file():
        return [top]
    found = []
    for folder, below, names in os.walk(top):
        below[:] = [name for name in below if name != ".git"]
        found += [Path(folder, name) for name in names]
    return found


def _reject_equal_paths(candidates: list[Candidate]) -> None:
    """Two modules of the same name cannot both be imported: the first source's stays."""
    first: dict[str, Candidate] = {}
    for one in candidates:
        other = first.setdefault(one.path, one)
        if other is not one:
            one.reject("same path", f"also in {other.source.source}")


def _reject_duplicates(candidates: list[Candidate], redacted: bool) -> list[tuple[str, str]]:
    """Reject the later of two near-duplicates. Returns the pairs that are alike without being duplicates."""
    first: dict[str, Candidate] = {}
    for one in candidates:
        other = first.setdefault(one.finding.sha256, one)
        if other is not one:
            one.reject("duplicate", f"equal to {other.path}")
    files = list(first.values())
    if not files:
        return []
    neighbours = Neighbours(np.stack([np.frombuffer(one.finding.signature, np.uint32) for one in files]))

    @functools.lru_cache(COMPARED)
    def shingles_of(i: int) -> np.ndarray:
        return shingles(read_again(files[i].request, redacted))

    groups, alike = Groups(), []
    for j, one in enumerate(progress(files, what="comparing files", unit="file")):
        for i, estimate in sorted(neighbours.near(j, ALIKE - SLACK), key=lambda near: -near[1]):
            if estimate < DUPLICATE - SLACK and groups.first(i) == groups.first(j):
                continue  # neither is a duplicate, and both are on one side already
            similarity = jaccard(shingles_of(i), shingles_of(j))
            if similarity >= DUPLICATE:
                one.reject("near-duplicate", f"{similarity:.2f} alike {files[i].path}")
                break
            if similarity >= ALIKE:
                groups.join(i, j)
                alike.append((files[i].path, one.path))
        else:
            neighbours.add(j)
    return alike


def _draw(candidates: list[Candidate], options: Options) -> None:
    by_path = {one.path: one for one in candidates}
    for path in seeded_order(list(by_path), options.seed)[options.max_files :]:
        by_path[path].reject("over max_files", f"more than {options.max_files} files")


def _split(candidates: list[Candidate], alike: list[tuple[str, str]], options: Options) -> None:
    paths = [one.path for one in candidates]
    if options.split_by == "module":
        alike = [*alike, *of_one_module(paths)]
    split = split_files(
        paths, alike, test_share=options.test_share, validation_share=options.validation_share, seed=options.seed
    )
    if options.split_by == "module" and options.test_share and "test" not in split.values():
        raise UserError(
            f"no folder is small enough to be {options.test_share:.0%} of {len(paths)} files. Split by file, or raise "
            "the test share"
        )
    for one in candidates:
        one.split = split[one.path]
