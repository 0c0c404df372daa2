"""Reads a file of a public data set as records, one object each, whatever its format.

JSON Lines, JSON list, Parquet   an object
.csv, .tsv                       {column: cell}; without a header {"cells": […]}
any other text                   {"line": "…"}
SQuAD's and PubMedQA's JSON      as the hub has them: a question an object
"""

from __future__ import annotations

import codecs
import csv
import io
import json
from pathlib import Path

from common.console import UserError, need
from common.files import parse_json, read_bytes, read_objects
from common.parquet import MAGIC

JSON = (".json", ".jsonl")


def read_records(path: Path) -> tuple[list[dict], list[str]]:
    """The records of a file, and notes for people: an encoding that had to be guessed. UserError as `read_objects`."""
    data, suffix = read_bytes(path), Path(path.name.removesuffix(".gz")).suffix
    if data.startswith(MAGIC):
        names = _class_names(data)
        return [_with_names(record, names) for record in read_objects(path)], []
    if suffix in JSON:
        return _of_json(data, path), []

    # a text file: UTF-8, UTF-16 by its mark, else Latin-1, in which every byte is a character
    try:
        marked = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        text, notes = data.decode("utf-16" if marked else "utf-8"), []
    except UnicodeDecodeError:
        text, notes = data.decode("latin-1"), [f"{path.name}: not UTF-8, read as Latin-1"]
    if suffix in (".csv", ".tsv"):
        return _of_cells(text, path, is_tsv=suffix == ".tsv"), notes
    return [{"line": line.removesuffix("\r")} for line in text.rstrip("\r\n").split("\n")], notes


def _of_json(data: bytes, path: Path) -> list[dict]:
    try:
        whole = parse_json(data.decode("utf-8"))
    except ValueError:  # several lines, or not JSON: the reader of rows says which
        return read_objects(path)
    if isinstance(whole, dict) and isinstance(whole.get("data"), list):
        return _flat_squad(whole, path)
    if isinstance(whole, dict) and any(isinstance(one, dict) and "QUESTION" in one for one in whole.values()):
        return [_flat_pubmedqa(name, one, path) for name, one in whole.items()]
    return read_objects(path)


def _flat_squad(whole: dict, path: Path) -> list[dict]:
    """SQuAD's articles as the hub's rows: {"id", "title", "context", "question", "answers": {"text": […]}}."""
    try:
        return [
            {
                "id": asked["id"],
                "title": article.get("title"),
                "context": paragraph["context"],
                "question": asked["question"],
                "answers": {"text": [answer["text"] for answer in asked["answers"]]},
            }
            for article in whole["data"]
            for paragraph in article["paragraphs"]
            for asked in paragraph["qas"]
        ]
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: not SQuAD's form: data, paragraphs, qas, answers ({error!r})") from None


def _flat_pubmedqa(name: str, one: object, path: Path) -> dict:
    if not isinstance(one, dict):
        raise UserError(f"{path}: {name}: expected an object with QUESTION, CONTEXTS and final_decision")
    contexts = {"contexts": one.get("CONTEXTS")}
    return {"pubid": name, "question": one.get("QUESTION"), "context": contexts, **_of(one, "final_decision")}


def _of(one: dict, *keys: str) -> dict:
    return {key: one[key] for key in keys if key in one}


def _of_cells(text: str, path: Path, *, is_tsv: bool) -> list[dict]:
    """Rows of a table. A first row that begins with a whole number is data, any other has the names of the columns.

    In a .tsv quotes are ordinary characters, as in GLUE's files.
    """
    csv.field_size_limit(2**31 - 1)  # by default no cell over 128 KiB
    settings = {"delimiter": "\t", "quoting": csv.QUOTE_NONE} if is_tsv else {"strict": True}
    try:
        rows = [row for row in csv.reader(io.StringIO(text, newline=""), **settings) if row]
    except csv.Error as error:
        raise UserError(f"{path}: not readable as a table ({error})") from None
    if not rows or rows[0][0].strip().isdecimal():
        return [{"cells": row} for row in rows]
    head = [name.strip() for name in rows[0]]
    for number, row in enumerate(rows[1:], 2):
        if len(row) != len(head):
            raise UserError(f"{path}: row {number} has {len(row)} cells, the header {len(head)} ({', '.join(head)})")
    return [dict(zip(head, row, strict=True)) for row in rows[1:]]


def _class_names(data: bytes) -> dict[str, list[str]]:
    """Column -> names of its numbers, which the `datasets` library keeps in a Parquet file's metadata."""
    need("pyarrow", why="reading Parquet")
    from pyarrow import parquet

    try:
        metadata = parquet.read_schema(io.BytesIO(data)).metadata or {}
        features = json.loads(metadata.get(b"huggingface", b"{}")).get("info", {}).get("features", {})
    except (ValueError, OSError):  # damaged: reading the rows says so
        return {}
    return {column: one["names"] for column, one in features.items() if isinstance(one, dict) and "names" in one}


def _with_names(record: dict, names: dict[str, list[str]]) -> dict:
    """The record with names for the numbers that have one; -1 stays, the mark of a label that is kept secret."""
    named = {
        column: of_column[record[column]]
        for column, of_column in names.items()
        if isinstance(record.get(column), int) and 0 <= record[column] < len(of_column)
    }
    return record | named
