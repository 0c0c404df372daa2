"""Rows of a Parquet file, as data sets are published on a hub; read by pyarrow, an optional package."""

from __future__ import annotations

import io
import math
from datetime import date, datetime, time

from common.console import UserError, need

MAGIC = b"PAR1"  # the first bytes of such a file


def rows_of_parquet(data: bytes, where: str) -> list[dict]:
    """The rows, with the values that JSON has: a date becomes its ISO text, NaN (a missing value in tables) null.

    UserError for a damaged file, and for a column of anything else (bytes, decimals), by name.
    """
    need("pyarrow", why=f"{where}: reading Parquet")
    import pyarrow
    from pyarrow import parquet

    try:
        table = parquet.read_table(io.BytesIO(data))
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"{where}: not readable as Parquet ({str(error).splitlines()[0]})") from None
    columns = {}
    for name in table.column_names:
        try:
            columns[name] = [_as_json(value) for value in table.column(name).to_pylist()]
        except TypeError as error:
            raise UserError(f"{where}: the column {name!r} holds {error}, which no row can hold; remove it") from None
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _as_json(value):
    """TypeError names a type without a counterpart in JSON."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, list):
        return [_as_json(one) for one in value]
    if isinstance(value, dict):
        return {key: _as_json(one) for key, one in value.items()}
    raise TypeError(type(value).__name__)
