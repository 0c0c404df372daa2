"""The sections of a card about the corpus: sources, filters, files by side, contamination."""

from __future__ import annotations

from collections import Counter
from pathlib import PurePosixPath

from data.card.material import LANGUAGES, Material
from data.card.tables import counted, table
from data.corpus import SPLITS, Corpus, filters
from data.corpus.curate import ALIKE, DUPLICATE
from data.corpus.functions import functions_of
from data.likeness.near_duplicates import NEAR


def sources_section(material: Material) -> list[str]:
    """Where the data comes from: sources, licences, revisions, options."""
    corpus, sources = material.corpus, material.sources()
    licenses = Counter(source.get("license") or "not declared" for source in sources)
    revisions = sorted({source.get("commit") or "not under version control" for source in sources})
    abouts = {
        "Instruction pairs": material.about,
        "Text–code pairs": material.pairs.about if material.pairs else {},
        "Text rows": material.text.about if material.text else {},
    }
    recorded = (about["corpus"]["source"] for about in abouts.values() if "corpus" in about)
    source = corpus.source if corpus else next(recorded, material.name)
    parts = [
        f"`{source}`, revision {', '.join(revisions)}.",
        "Licences by file (its SPDX header, else REUSE or the nearest licence file, else the package's metadata): "
        f"{counted(licenses)}.",
    ]
    if corpus:
        parts.append(f"Curated with {_options(corpus.options)}.")
    for kind, about in abouts.items():
        if about.get("options"):
            parts.append(f"{kind} made with {_options(about['options'])}.")
    return parts


def _options(options: dict) -> str:
    """Settings as "name value", without those that are not set, and without a teacher's if there was none."""
    given = {name: value for name, value in options.items() if value is not None and value not in ("", [], (), {})}
    shown = []
    for name, value in given.items():
        if "teacher" in given or not name.startswith("teacher_"):
            shown.append(f"{name} {', '.join(map(str, value)) if isinstance(value, list | tuple) else value}")
    return ", ".join(shown)


def filters_section(corpus: Corpus) -> list[str]:
    """What was kept, what was rejected, and by which rules."""
    reasons = Counter(reject["reason"] for reject in corpus.rejects)
    languages = Counter(LANGUAGES.get(PurePosixPath(file.path).suffix, "other") for file in corpus.files)
    limits = {name: value for name, value in vars(filters).items() if name.isupper() and isinstance(value, int | float)}
    redacted = sum((Counter(file.redacted) for file in corpus.files), Counter())
    return [
        f"Kept {len(corpus.files)} {' and '.join(name for name, _ in languages.most_common())} files, rejected "
        f"{len(corpus.rejects)}.",
        table(["reason", "files"], [[reason, count] for reason, count in reasons.most_common()] or [["none", 0]]),
        "Rules: UTF-8 that parses; no vendored folder, generator's marker or test file; the limits of "
        "data/corpus/filters.py: "
        + ", ".join(f"{name.lower().replace('_', ' ')} {value}" for name, value in limits.items())
        + f"; no near-duplicate (Jaccard index of token 5-grams {DUPLICATE} or more). Files with an index of {ALIKE} "
        f"or more stay on one side of the split; a function with an index of {NEAR} or more to one of the test files "
        "is not trained on.",
        f"Replaced by placeholders: {counted(redacted)}." if redacted else "",
    ]


def files_section(corpus: Corpus) -> list[str]:
    """Files, lines and functions on each side of the split."""
    rows = []
    for split in SPLITS:
        files = corpus.split(split)
        functions = [one for file in files if file.path.endswith(".py") for one in functions_of(file)]
        documented = sum(bool(function.docstring) for function in functions)
        runnable = sum(bool(function.examples) for function in functions)
        lines = sum(file.text.count("\n") for file in files)
        rows.append([split, len(files), f"{lines:,}", len(functions), documented, runnable])
    head = ["split", "files", "lines", "Python functions of 5–60 lines", "documented", "with examples"]
    return [table(head, rows)]


def contamination_section(corpus: Corpus) -> list[str]:
    """The benchmarks that the corpus was checked for, and the files rejected because of them."""
    benchmarks = corpus.options.get("decontaminate") or ()
    if not benchmarks:
        return ["Not checked: the corpus was curated without a benchmark's file to compare it with."]
    found = [reject for reject in corpus.rejects if reject["reason"] == "benchmark task"]
    names = ", ".join(PurePosixPath(str(path)).name for path in benchmarks)
    parts = [f"Compared with the tasks of {names}: {len(found)} files rejected."]
    if found:
        parts.append(table(["file", "why"], [[reject["path"], reject.get("detail", "")] for reject in found]))
    return parts
