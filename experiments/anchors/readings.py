"""The same answers read as other harnesses read them: without looking for the code, its first block, cut at stop words.

    python -m experiments.anchors.readings RESULT.json --how no-extraction --out answers.jsonl

The answers are then graded by eval.code --answers.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from common.console import run_command
from common.files import read_json, write_jsonl
from common.markdown import blocks, fenced
from common.options import option, parse
from eval.code.ask import STOPS_AFTER_HEAD
from model.generate import before_stop


def as_it_is(completion: str) -> str:
    """The whole text as code: fences and words around the code are a syntax error."""
    return fenced(completion, "python")


def first_block(completion: str) -> str:
    """The first fenced block alone; the whole text if it has none."""
    found = blocks(completion)
    return fenced(found[0].text if found else completion, "python")


def cut_at_stop_words(completion: str) -> str:
    """The text up to the first stop word of base models, among them a fence at the start of a line."""
    return fenced(before_stop(completion, STOPS_AFTER_HEAD), "python")


READINGS = {"no-extraction": as_it_is, "first-block": first_block, "stop-words": cut_at_stop_words}


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of this command."""

    result: Path = option(help="result of eval.code", positional=True)
    how: str = option(help="how the answers are read", choices=tuple(READINGS))
    out: Path = option(help="answers, JSON Lines", metavar="FILE")


def main() -> None:
    """Write the answers of a result as another harness would read them."""
    options = parse(Options, description=__doc__)
    read = READINGS[options.how]
    rows = [row | {"completion": read(row["completion"])} for row in read_json(options.result)["results"]]
    kept = ("task_id", "sample", "completion", "stopped")
    write_jsonl(options.out, [{key: row[key] for key in kept} for row in rows])


if __name__ == "__main__":
    sys.exit(run_command(main))
