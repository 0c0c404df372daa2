from __future__ import annotations

import os

import pytest

from model.console import UserError
from model.files import (
    append_jsonl,
    new_file,
    new_folder,
    read_json,
    read_json_list,
    read_jsonl,
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
        (b'{"a": NaN}', "NaN is no JSON number"),
        (b'{"a": [Infinity]}', "Infinity is no JSON number"),
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
