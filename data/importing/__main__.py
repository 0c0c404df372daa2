"""Import rows made elsewhere: a public data set as text rows, or instruction rows whose answers are code.

    python -m data.importing trec/ --out DIR                                 # a folder, its splits by name
    python -m data.importing hub:nyu-mll/glue/sst2 --out DIR
    python -m data.importing hub:sahil2801/CodeAlpaca-20k --out DIR
    python -m data.importing code_alpaca_20k.json --out DIR --explain MODEL
    python -m data.importing code_alpaca_20k.json --out DIR --language typescript javascript

Text rows: train, validation and test.jsonl, rejects.jsonl, about.json and a data card. Instruction rows: code/ answers
with the code alone, explained/ with the code and its explanation. With --explain both have exactly the same rows.
"""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import dataclass, fields
from pathlib import Path

from common.console import UserError, need, run_command
from common.files import write_json, write_jsonl
from common.options import as_settings, option, parse
from data.card.build import write_card_files
from data.card.material import read_material
from data.corpus import SPLITS
from data.corpus.languages import GRAMMARS, NAMES, packages_of
from data.importing import explain_with, import_rows, import_text_rows, split_rows
from data.importing.places import HUB, Place, open_place
from data.importing.public_sets import SETS
from data.importing.records import read_records
from data.instruct.teacher_options import TEACHER, TeacherOptions, teacher_of
from data.rows import is_conversation
from data.text_rows import task_of

SHOWN = 8  # labels in the table


@dataclass(frozen=True, kw_only=True)
class Options(TeacherOptions):
    """Options of this command."""

    GROUPS = ("options", TEACHER)

    place: str = option(
        help=f"file or folder, or {HUB}OWNER/NAME[/PATH] of a data set on the hub", positional=True, metavar="FILE"
    )
    out: Path = option(help="folder to write", metavar="DIR")
    kind: str | None = option(
        None, "the public data set that it is (default: recognised by its fields)", flag="--as",
        choices=tuple(dict.fromkeys(one.name for one in SETS)),
    )  # fmt: skip
    license: str | None = option(None, "licence of the rows, recorded with each (default: unknown)", metavar="SPDX")
    test_share: float = option(0.1, "share of the rows to test on, where no test split is published")
    validation_share: float = option(0.1, "share of the rows to validate on, likewise")
    train_rows: int | None = option(None, "text rows to train on at most, drawn by the seed (default: all)", least=1)
    test_rows: int | None = option(None, "text rows to test on, and to validate on, at most (default: all)", least=1)
    language: tuple[str, ...] = option(
        ("python",), "instruction rows: languages of the answers, in order of preference", choices=tuple(GRAMMARS)
    )
    teacher: str | None = option(
        None, "instruction rows: let a model explain the code that comes without words: folder, .gguf file, hub id, "
        "embedded default or a server's address; rows that then have no explanation are left out of both variants",
        TEACHER, flag="--explain", metavar="MODEL",
    )  # fmt: skip
    seed: int = option(0, "seed of the split")

    def __post_init__(self) -> None:
        """UserError for shares that leave nothing to train on, and for a file where a folder is to be written."""
        if min(self.test_share, self.validation_share) < 0 or self.test_share + self.validation_share >= 1:
            raise UserError("--test-share and --validation-share must not be negative and stay below 1 together")
        if self.out.exists() and not self.out.is_dir():
            raise UserError(f"--out {self.out}: is a file; give a folder")


def main() -> None:
    """Find out what it is, and import it."""
    options = parse(Options, description=__doc__)
    place = open_place(options.place)
    first = next((records[0] for paths in place.files.values() if (records := read_records(paths[0])[0])), {})
    if options.kind is None and is_conversation(first) and not task_of(first):
        import_instructions(options, place)
    else:
        import_text(options, place)


def import_text(options: Options, place: Place) -> None:
    """Write the rows of a public data set, with a data card, and print what became of them."""
    source = {"path": options.place, "commit": place.commit, "license": options.license}
    found = import_text_rows(
        place, name=options.kind, source=source, shares=(options.test_share, options.validation_share),
        most=(options.train_rows, options.test_rows), seed=options.seed,
    )  # fmt: skip

    # the rows, what was left out, how they were made, and the card
    for split in SPLITS:
        write_jsonl(options.out / f"{split}.jsonl", found.splits.rows[split])
    write_jsonl(options.out / "rejects.jsonl", found.rejects)
    settings = as_settings(options, without={spec.name for spec in fields(TeacherOptions)})
    write_json(options.out / "about.json", found.about() | {"commit": place.commit, "options": settings})
    written = write_card_files(read_material(options.out))

    # a line a split, and one for everything that is not a row
    print(f"{found.name} · {found.task}" + (f" · {len(found.labels)} labels" if found.labels else ""))
    for split, rows in found.splits.rows.items():
        origin = "drawn from the training rows" if split in found.splits.drawn else "as published"
        counts = Counter(row.get("label", row.get("answer")) for row in rows).most_common(SHOWN) if found.labels else []
        print(f"{split:<10} {len(rows):>7,} rows, {origin}  " + ", ".join(f"{label} {n:,}" for label, n in counts))
    for pair, count in found.splits.duplicates.items():
        print(f"removed    {count:>7,} duplicates in {pair}")
    for split, count in found.splits.left_out.items():
        print(f"left out   {count:>7,} rows of {split}: more than were asked for")
    for reason, count in Counter(reject["reason"] for reject in found.rejects).most_common():
        print(f"rejected   {count:>7,}  {reason}")
    for note in found.notes:
        print(f"note       {note}")
    print(f"written    {options.out}, with {written[0].name}")


def import_instructions(options: Options, place: Place) -> None:
    """Write both variants of instruction rows: the same rows, if a teacher explains what comes without words."""
    # the rows that answer in the languages
    for package in packages_of(options.language):
        need(package, why="--language", install=package.replace("_", "-"))
    rows, _ = read_records(place.only_file())
    teacher = teacher_of(options, options.out)
    kept, rejects = import_rows(rows, name=place.name, languages=options.language)
    if not kept:
        names = " or ".join(NAMES[language] for language in options.language)
        raise UserError(f"{options.place}: no row answers in {names} ({_most_often(rejects) or 'it is empty'})")
    if teacher:
        kept, unexplained = explain_with(teacher, kept)
        rejects += unexplained
        if not kept:
            raise UserError(f"{options.place}: no row got an explanation ({_most_often(unexplained)})")

    # two variants with the same split
    shares = {"test_share": options.test_share, "validation_share": options.validation_share}
    side = split_rows(kept, **shares, seed=options.seed)
    source = {"path": options.place, "commit": place.commit, "license": options.license}
    for variant, chosen in (("code", kept), ("explained", [row for row in kept if row.words])):
        for split in SPLITS:
            here = [row for row in chosen if side[row.id] == split]
            pairs = [row.as_pair(explained=variant == "explained", source=source) for row in here]
            write_jsonl(options.out / variant / f"{split}.jsonl", pairs)
        counts = Counter(side[row.id] for row in chosen)
        print(f"{variant:<10}{len(chosen):>6} rows: " + ", ".join(f"{counts[split]} {split}" for split in SPLITS))
    if any(not row.words for row in kept):
        print(
            "note      the variants are not of the same rows: --explain MODEL writes the explanations that are missing"
        )

    # what was left out, and how this was made
    write_jsonl(options.out / "rejects.jsonl", rejects)
    refused = Counter(reject["reason"] for reject in rejects).most_common()
    about = {"schema": 1, "kind": "imported instruction rows", "commit": place.commit, "options": as_settings(options)}
    about["rows"] = {split: sum(side[row.id] == split for row in kept) for split in SPLITS}
    about["counts"] = {
        "read": len(rows), "kept": len(kept), "explained": sum(bool(row.words) for row in kept),
        "explained_by_teacher": sum(bool(row.teacher) for row in kept), "rejected": dict(refused),
    }  # fmt: skip
    write_json(options.out / "about.json", about)
    for reason, count in refused:
        print(f"rejected {count:>6}  {reason}")
    if thinking := sum(bool(row.thoughts) for row in kept):
        print(f'{thinking} answers of a reasoning model: its thoughts are kept in "thoughts", apart from the answer')
    if teacher:
        print(f"teacher  {teacher.summary()}")


def _most_often(rejects: list[dict]) -> str:
    """The most frequent reason; "" if there is none."""
    return next((reason for reason, _ in Counter(reject["reason"] for reject in rejects).most_common(1)), "")


if __name__ == "__main__":
    sys.exit(run_command(main))
