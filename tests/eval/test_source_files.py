from __future__ import annotations

import pytest

from common.console import UserError
from common.files import write_jsonl
from eval.source_files import read_files


def test_files_are_read_from_a_file_a_folder_or_nowhere(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "x.py").write_text("x = 1\n")
    assert read_files(tmp_path) == [("sub/x.py", "x = 1\n")]
    assert read_files(tmp_path / "sub" / "x.py") == [("x.py", "x = 1\n")]
    with pytest.raises(UserError, match="no such file"):
        read_files(tmp_path / "none")


def test_a_file_that_is_not_utf_8_is_refused(tmp_path):
    (tmp_path / "x.py").write_bytes(b"# \xff\n")
    with pytest.raises(UserError, match="not UTF-8"):
        read_files(tmp_path)


def test_the_texts_of_rows_are_named_by_their_ids(tmp_path):
    file = tmp_path / "texts.jsonl"
    write_jsonl(file, [{"id": "english/1", "text": "One."}, {"text": "Two."}])
    assert read_files(file) == [("english/1", "One."), ("line 2", "Two.")]
    write_jsonl(file, [{"text": "One."}, {"label": "x"}])
    with pytest.raises(UserError, match=r'texts.jsonl:2: "text" is missing or no text \(this line has: label\)'):
        read_files(file)
    write_jsonl(file, [{"id": 1, "text": "One."}, {"id": 1, "text": "Two."}])
    with pytest.raises(UserError, match=r"texts\.jsonl:2: the id '1' is used twice"):
        read_files(file)
