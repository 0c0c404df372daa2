"""The distributions in a data card: categories, lengths, kinds of bug, modules."""

from __future__ import annotations

from pathlib import PurePosixPath

from data.card.bars import Bars, by_size, most_common
from data.card.material import Material, all_pairs, check_of


def distributions(material: Material) -> list[Bars | None]:
    """Category, length, kind of bug and module, of the pairs or else of the files."""
    found: list[Bars | None] = []
    if material.corpus:
        lines = (file.text.count("\n") for file in material.corpus.files)
        found += [by_size("lines of a file", lines), _modules("files", [vars(file) for file in material.corpus.files])]
    if material.instruct:
        made = all_pairs(material.instruct)
        bugs = (check_of(pair)["bug"] for pair in made if check_of(pair).get("bug"))
        found += [
            most_common("instruction pairs by category", (pair.get("category", "none") for pair in made)),
            by_size("characters of an answer", (len(pair.get("output") or "") for pair in made)),
            most_common("injected bugs by kind", bugs),
            _modules("instruction pairs", [pair.get("source") or {} for pair in made]),
        ]
    if material.pairs:
        rows = [*material.pairs.train, *material.pairs.test]
        found += [
            most_common("text–code pairs by what the query is from", (row.get("origin", row["kind"]) for row in rows)),
            by_size("characters of a code", (len(row["code"]) for row in material.pairs.candidates)),
            _modules("text–code pairs", [row.get("source") or {} for row in rows]),
        ]
    return found


def _modules(what: str, sources: list[dict]) -> Bars | None:
    folders = (str(PurePosixPath(source["path"]).parent) for source in sources if source.get("path"))
    return most_common(f"{what} by folder", folders)
