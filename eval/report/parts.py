"""What a section of the report is made of: tables, and a comparison with its charts, tables and notes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from common.html import Safe
from eval.change_table import number

NONE = "–"  # a figure that was not measured


def figure(value: float | None) -> str:
    """A figure in a cell."""
    return NONE if value is None else number(value)


@dataclass(frozen=True)
class Table:
    """A table with its heading and notes; the first `texts` columns are text, the others figures."""

    heading: str
    head: tuple[str, ...]
    rows: list[tuple]
    above: str = ""
    below: str = ""
    texts: int = 1
    long: bool = False


@dataclass(frozen=True)
class Comparison:
    """Before and after: charts, tables and notes, None for those that there is nothing to show in."""

    charts: Sequence[Safe | None] = ()
    tables: Sequence[Table | None] = ()
    notes: Sequence[str] = ()
