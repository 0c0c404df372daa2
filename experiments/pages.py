"""The pages of the experiments, every figure in them read from results.json.

    python -m experiments.pages

A page is the template page.md.j2 of its experiment, filled with results.json. The command writes the pages anew.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import jinja2

from common.console import run_command
from common.files import read_json, write_text
from common.markdown import fenced
from common.options import parse
from data.card.pair_sections import teacher_table
from eval.change_table import number, verdict, verdict_phrase

HERE = Path(__file__).resolve().parent
PAGES = {  # experiment -> its page
    "anchors": HERE / "anchors" / "README.md",
    "code_search": HERE / "code_search" / "README.md",
    "codealpaca": HERE / "codealpaca" / "README.md",
    "quickstart_choices": HERE.parent / "docs" / "quickstart_choices.md",
    "track_b_executed": HERE / "track_b_executed" / "README.md",
    "typescript": HERE / "typescript" / "README.md",
    "verl_sft": HERE / "verl_sft" / "README.md",
    "what_pays": HERE / "what_pays" / "README.md",
    "study": HERE / "study" / "README.md",
}


@dataclass(frozen=True, kw_only=True)
class Options:
    """This command has none."""


def main() -> None:
    """Write each page whose results.json exists."""
    parse(Options, description=__doc__)
    for name, page in PAGES.items():
        if (HERE / name / "results.json").is_file():
            write_text(page, rendered(name))


def rendered(name: str) -> str:
    """The page of an experiment. Raises jinja2.UndefinedError for a figure that results.json does not have."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE / name), undefined=jinja2.StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    environment.filters |= {
        "number": number, "change": change_phrase, "interval": interval_phrase, "cell": cell, "pairs": pairs_of,
        "teacher_table": teacher_table, "as_code": as_code, "fenced": fenced,
    }  # fmt: skip
    environment.globals["verdict"] = verdict
    return environment.get_template("page.md.j2").render(read_json(HERE / name / "results.json"))


def change_phrase(change: dict, metric: str) -> str:
    """+0.085 [−0.001, +0.165], n = 71, not distinguishable at this n (about 122 needed)."""
    low, high = change["interval"]
    value = number(change["value"], sign=True)
    sides = f"[{number(low, sign=True)}, {number(high, sign=True)}]"
    return f"{value} {sides}, n = {change['n']}, {verdict_phrase(metric, change)}"


def pairs_of(rows: list[dict]) -> list[tuple[str, str]]:
    """The models and tasks that rows are about, in their order."""
    return list(dict.fromkeys((row["model"], row["task"]) for row in rows))


def interval_phrase(row: dict, metric: str) -> str:
    """0.113 [0.042, 0.197]."""
    low, high = row["intervals"][metric]
    return f"{number(row['metrics'][metric])} [{number(low)}, {number(high)}]"


def cell(text: str, most: int = 80) -> str:
    """A text for a cell of a table: one line, shortened, without a character that would end the cell."""
    line = " ".join(text.split())
    return (line if len(line) <= most else line[: most - 1] + "…").replace("|", "\\|").replace("<", "&lt;")


def as_code(text: str) -> str:
    """A text as code within a cell: quoted, so that white space is seen."""
    return f"`{json.dumps(text, ensure_ascii=False)}`".replace("|", "\\|")


if __name__ == "__main__":
    sys.exit(run_command(main))
