from __future__ import annotations

import pytest

from common.console import UserError
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
