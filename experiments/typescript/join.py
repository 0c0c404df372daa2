"""Several sets of pairs as one: train and validation of each, and a package that only the test set has.

    python -m experiments.typescript.join SET [SET ...] --held-out SET --out DIR

A set is a folder with train.jsonl, and validation.jsonl or test.jsonl if it has them.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from common.console import UserError, run_command
from common.files import read_jsonl, write_json, write_jsonl
from common.options import option, parse
from common.shuffle import seeded_order


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of this command."""

    sets: tuple[Path, ...] = option(help="folders of pairs to train on", positional=True, metavar="SET")
    held_out: Path = option(help="folder whose pairs are all to test on", metavar="SET")
    out: Path = option(help="folder to write", metavar="DIR")


def main() -> None:
    """Write train.jsonl and validation.jsonl, shuffled, and test.jsonl; about.json counts the pairs by set."""
    options = parse(Options, description=__doc__)
    counts = {}
    for split in ("train", "validation"):
        of_set = {folder.name: read(folder, split) for folder in options.sets}
        rows = {f"{name}/{row['id']}": row for name, found in of_set.items() for row in found}
        write_jsonl(options.out / f"{split}.jsonl", [rows[i] | {"id": i} for i in seeded_order(list(rows), 0)])
        counts[split] = {name: len(found) for name, found in of_set.items()}
    held_out = [row for split in ("train", "validation", "test") for row in read(options.held_out, split)]
    if not held_out or not sum(counts["train"].values()):
        raise UserError(f"{options.held_out if not held_out else 'the sets'}: no pair to use")
    write_jsonl(options.out / "test.jsonl", held_out)
    counts["test"] = {options.held_out.name: len(held_out)}
    write_json(options.out / "about.json", {"schema": 1, "kind": "joined instruction pairs", "counts": counts})
    print(
        "\n".join(f"{split:<11}" + ", ".join(f"{n} {name}" for name, n in of.items()) for split, of in counts.items())
    )


def read(folder: Path, split: str) -> list[dict]:
    """The pairs of a split, none where the set has no such file."""
    path = folder / f"{split}.jsonl"
    return read_jsonl(path) if path.is_file() else []


if __name__ == "__main__":
    sys.exit(run_command(main))
