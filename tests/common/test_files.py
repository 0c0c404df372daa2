from __future__ import annotations

import gzip
import json
import os
import sys
from datetime import datetime

import pyarrow
import pyarrow.parquet
import pytest

from common.console import UserError
from common.files import (
    append_jsonl,
    new_file,
    new_folder,
    read_json,
    read_json_list,
    read_jsonl,
    read_objects,
    resume_jsonl,
    write_json,
    write_jsonl,
    write_text,
)


def test_a_failure_while_writing_leaves_the_old_file_and_nothing_else(tmp_path):
    write_text(tmp_path / "a.txt", "old")
    with pytest.raises(RuntimeError), new_file(tmp_path / "a.txt") as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert (tmp_path / "a.txt").read_text() == "old" and len(list(tmp_path.iterdir())) == 1


def test_a_failure_while_filling_a_folder_leaves_the_old_one_and_nothing_else(tmp_path):
    for text in ("old", "new"):
        with new_folder(tmp_path / "d") as temporary:
            (temporary / f"{text}.txt").write_text(text)
    assert [path.name for path in (tmp_path / "d").iterdir()] == ["new.txt"]
    with pytest.raises(RuntimeError), new_folder(tmp_path / "d") as temporary:
        (temporary / "half.txt").write_text("half")
        raise RuntimeError
    assert [path.name for path in (tmp_path / "d").iterdir()] == ["new.txt"] and len(list(tmp_path.iterdir())) == 1


def test_a_folder_stopped_between_its_two_renames_is_the_old_one(tmp_path, monkeypatch):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "old.txt").write_text("old")
    rename, done = os.replace, []

    def stop_at_the_second(source, target):
        done.append(source)
        if len(done) == 2:
            raise KeyboardInterrupt
        rename(source, target)

    monkeypatch.setattr(os, "replace", stop_at_the_second)
    with pytest.raises(KeyboardInterrupt), new_folder(tmp_path / "d") as temporary:
        (temporary / "new.txt").write_text("new")
    assert [path.name for path in tmp_path.rglob("*")] == ["d", "old.txt"]


def test_rows_survive_a_round_trip(tmp_path):
    rows = [{"a": "ü\u2028\n", "b": [1, 2.5, None]}, {"c": {}}]
    write_jsonl(tmp_path / "x.jsonl", rows)
    assert read_jsonl(tmp_path / "x.jsonl") == rows


# What str.splitlines takes for the end of a line and JSON does not: each may stand in a string as it is.
NO_LINE_ENDS = ["\x85", "\u2028", "\u2029"]
ROWS = [{"a": f"one{character}row"} for character in NO_LINE_ENDS]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode()


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
@pytest.mark.parametrize(
    "data",
    [
        LINES,
        LINES.replace(b"\n", b"\r\n"),
        LINES[:-1],
        LINES + b"\n \r\n",
        b"\xef\xbb\xbf" + LINES,
    ],
    ids=["lines", "CRLF", "no last line end", "blank lines at the end", "byte-order mark"],
)
def test_a_row_ends_at_a_line_feed_and_nowhere_else(tmp_path, data, pack):
    for name in ("x.jsonl", "x.jsonl.gz"):  # what a file is stands in its first bytes, whatever it is called
        (tmp_path / name).write_bytes(pack(data))
        assert read_jsonl(tmp_path / name) == ROWS == read_objects(tmp_path / name)


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_a_json_list_is_known_by_how_it_begins(tmp_path, mark, pack):
    (tmp_path / "x.json").write_bytes(pack(mark + b"\n" + json.dumps(ROWS, indent=1, ensure_ascii=False).encode()))
    assert read_json_list(tmp_path / "x.json") == ROWS == read_objects(tmp_path / "x.json")


def test_a_parquet_file_holds_rows_as_a_json_list_does(tmp_path):
    """As a hub serves data sets; what JSON lacks becomes text or null, or is refused by its column."""
    rows = [
        {"a": "é\u2028", "n": [1, 2], "answers": {"text": ["x"], "start": [3]}},
        {"a": None, "n": [], "answers": None},
    ]
    write_parquet(tmp_path / "x.parquet", rows)
    assert read_objects(tmp_path / "x.parquet") == rows
    dated = [{"day": datetime(2024, 5, 1, 9), "score": float("nan"), "kind": 0.5}]
    write_parquet(tmp_path / "y.parquet", dated)
    assert read_objects(tmp_path / "y.parquet") == [{"day": "2024-05-01T09:00:00", "score": None, "kind": 0.5}]
    write_parquet(tmp_path / "z.parquet", [{"label": 1, "image": b"\x89PNG"}])
    with pytest.raises(UserError, match=r"z\.parquet: the column 'image' holds bytes"):
        read_objects(tmp_path / "z.parquet")
    (tmp_path / "x.parquet").write_bytes((tmp_path / "x.parquet").read_bytes()[:-9])
    with pytest.raises(UserError, match=r"x\.parquet: not readable as Parquet"):
        read_objects(tmp_path / "x.parquet")


def test_parquet_without_pyarrow_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "x.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match=r"x\.parquet: reading Parquet needs the extra package 'pyarrow'"):
        read_objects(tmp_path / "x.parquet")


def write_parquet(path, rows):
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)


@pytest.mark.parametrize("damage", [lambda data: data[:-9], lambda data: data[:30] + b"!!" + data[32:]])
def test_a_damaged_gzip_file_is_named(tmp_path, damage):
    (tmp_path / "x.jsonl.gz").write_bytes(damage(gzip.compress(LINES)))
    for read in (read_jsonl, read_objects):
        with pytest.raises(UserError, match=r"x\.jsonl\.gz: a damaged gzip file"):
            read(tmp_path / "x.jsonl.gz")


def test_half_a_surrogate_pair_that_was_read_can_be_written(tmp_path):
    (tmp_path / "x.jsonl").write_text('{"a": "\\ud800 \\ud83d\\ude00"}\n')
    rows = read_jsonl(tmp_path / "x.jsonl")
    write_jsonl(tmp_path / "y.jsonl", rows)
    append_jsonl(tmp_path / "y.jsonl", rows)
    assert read_jsonl(tmp_path / "y.jsonl") == rows * 2 == [{"a": "\ud800 😀"}] * 2


def test_blank_lines_behind_the_last_row_are_passed_over(tmp_path):
    (tmp_path / "x.jsonl").write_text('{"a": 1}\r\n\n \n')
    assert read_jsonl(tmp_path / "x.jsonl") == [{"a": 1}]


def test_a_figure_that_is_no_number_is_not_written(tmp_path):
    with pytest.raises(ValueError):
        write_json(tmp_path / "x.json", {"loss": float("nan")})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b'{"a": 1}\n\xff\n', ":2: not UTF-8"),
        (b'{"a": 1}\n{"a"\n', ":2: not JSON"),
        (b'{"a": 1}\n\n{"a": 2}\n', ":2: a blank line"),  # row and line numbers would part
        (b"3\n", ":1: expected"),
        (b'{"a": 1}\n{"a": "x\x0cy"}\n', ":2: not JSON"),  # a control character must be escaped in a string
        (b'{"a": {"weight": 0, "weight": 1}}\n', ":1: .*'weight' occurs twice"),
        ('{"a": 1}\n'.encode("utf-16"), ":1: not UTF-8"),
    ],
)
def test_a_bad_line_is_named_with_file_line_and_reason(tmp_path, data, reason):
    (tmp_path / "x.jsonl").write_bytes(data)
    with pytest.raises(UserError, match=r"x\.jsonl" + reason):
        read_jsonl(tmp_path / "x.jsonl")


def test_a_file_that_is_no_object_is_named(tmp_path):
    (tmp_path / "x.json").write_text("[1]")
    for name, reason in (("x.json", "expected a JSON object"), ("none.json", "no such file")):
        with pytest.raises(UserError, match=reason):
            read_json(tmp_path / name)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b'{"a": NaN}', "NaN is not a JSON number"),
        (b'{"a": [Infinity]}', "Infinity is not a JSON number"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a": ' + b"9" * 5000 + b"}", "limit"),
        (b"\xff", "not UTF-8"),
    ],
)
def test_what_only_looks_like_json_is_named(tmp_path, text, reason):
    (tmp_path / "x.json").write_bytes(text)
    with pytest.raises(UserError, match=rf"x\.json: .*{reason}"):
        read_json(tmp_path / "x.json")
    (tmp_path / "x.jsonl").write_bytes(b"{}\n" + text)
    with pytest.raises(UserError, match=rf"x\.jsonl:2: .*{reason}"):
        read_jsonl(tmp_path / "x.jsonl")


def test_added_rows_are_read_again_and_half_a_line_is_cut_off(tmp_path):
    path = tmp_path / "deep" / "rows.jsonl"
    assert resume_jsonl(path) == []
    append_jsonl(path, [{"a": 1}])
    append_jsonl(path, [{"a": "ß"}])
    with path.open("ab") as file:
        file.write(b'{"a": ')
    assert resume_jsonl(path) == [{"a": 1}, {"a": "ß"}]
    append_jsonl(path, [{"a": 3}])
    assert read_jsonl(path) == [{"a": 1}, {"a": "ß"}, {"a": 3}]


@pytest.mark.parametrize(("text", "says"), [("{", "not readable as JSON"), ('{"a": 1}', "list"), ("[1]", "list")])
def test_a_json_list_holds_objects(tmp_path, text, says):
    path = tmp_path / "rows.json"
    path.write_text('[{"a": 1}]')
    assert read_json_list(path) == [{"a": 1}]
    path.write_text(text)
    with pytest.raises(UserError, match=says):
        read_json_list(path)
