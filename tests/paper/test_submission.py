"""The archive has what is asked for, and what it has works by itself."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from common.console import UserError
from paper import submission
from paper.submission import ROOT, moved_links, packed, tracked_files, write_archive
from tests.test_structure import imported

needs_git = pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a checkout of git")


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    folder = tmp_path_factory.mktemp("submission")
    write_archive(packed(ROOT), folder / "submission.zip")
    shutil.unpack_archive(folder / "submission.zip", folder)
    return folder


@needs_git
def test_it_has_sources_pdf_code_readme_and_requirements(unpacked):
    paper = unpacked / "tritune" / "paper"
    assert (unpacked / "paper.pdf").read_bytes() == (paper / "paper.pdf").read_bytes()
    assert (unpacked / "requirements.txt").read_text() == "-e ./tritune[extras]\n"
    assert (unpacked / "tritune" / "pyproject.toml").is_file() and (unpacked / "tritune" / "LICENSE").is_file()
    for name in tracked_files(ROOT):
        assert (unpacked / "tritune" / name).read_bytes() == (ROOT / name).read_bytes()


@needs_git
def test_every_source_of_the_paper_is_there(unpacked):
    paper = unpacked / "tritune" / "paper"
    sources = [paper / "paper.tex", *(paper / "sections").glob("*.tex"), *(paper / "generated").glob("*.tex")]
    text = "".join(path.read_text(encoding="utf-8") for path in sources)
    included = re.findall(r"\\(?:input|includegraphics(?:\[[^]]*\])?)\{([\w/.]+)\}", text)
    included += [f"generated/table_{name}" for name in re.findall(r"\\fitted\{(\w+)\}", text)]
    assert len(included) > 15
    assert all((paper / name).is_file() or (paper / f"{name}.tex").is_file() for name in included)
    assert (paper / "references.bib").is_file()


@needs_git
def test_the_links_of_its_readme_lead_somewhere(unpacked):
    links = re.findall(r"\]\(([^)#]+)\)", (unpacked / "README.md").read_text(encoding="utf-8"))
    assert len(links) > 8 and all("://" in link or (unpacked / link).exists() for link in links)


@needs_git
def test_scripts_stay_executable_and_every_archive_is_the_same(tmp_path):
    contents = {"run.sh": b"#!/bin/sh\n", "a.py": b"x = 1\n"}
    for name in ("one.zip", "two.zip"):
        write_archive(contents, tmp_path / name)
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "one.zip") as archive:
        assert [oct(entry.external_attr >> 16) for entry in archive.infolist()] == ["0o755", "0o644"]
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def quick_tests(folder):
    """What the Makefile of an unpacked archive gives to pytest in `make quick`."""
    makefile = (folder / "Makefile").read_text(encoding="utf-8").replace("\\\n", " ")
    return re.search(r"^QUICK := (.*)$", makefile, re.MULTILINE)[1].split()


@needs_git
def test_its_quick_tests_and_all_that_they_import_are_there(unpacked):
    folder = unpacked / "tritune"
    named = [folder / name for name in quick_tests(folder) if name.startswith("tests/")]
    assert len(named) > 4 and all(path.exists() for path in named)
    left = {file for path in named for file in ([path] if path.is_file() else path.rglob("*.py"))}
    seen: set[Path] = set()
    while left - seen:
        seen.add(path := (left - seen).pop())
        left |= {file for name in imported(ast.parse(path.read_text(encoding="utf-8"))) for file in ours(folder, name)}
    assert folder / "model" / "decoder.py" in seen and len(seen) > 100


def ours(folder, module):
    """The file of a module, if its first part is one of ours in this checkout: it must be in the archive."""
    parts = module.split(".")
    if not any((ROOT / name).exists() for name in (parts[0], f"{parts[0]}.py")):
        return []
    place = folder.joinpath(*parts)
    found = [path for path in (place.with_suffix(".py"), place / "__init__.py") if path.is_file()]
    assert found or place.is_dir(), f"{module} is not in the archive"
    return found


@pytest.mark.slow
@needs_git
def test_its_quick_tests_pass(unpacked):
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *quick_tests(unpacked / "tritune")],
        cwd=unpacked / "tritune", capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]


def test_links_are_moved_two_folders_up_and_addresses_are_not():
    page = "[a](paper.pdf) [b](../docs/x.md) [c](https://x.org/y) [d](#part)"
    moved = "[a](tritune/paper/paper.pdf) [b](tritune/docs/x.md) [c](https://x.org/y) [d](#part)"
    assert moved_links(page) == moved


def test_a_stale_pdf_is_refused(monkeypatch):
    monkeypatch.setattr(submission, "pdf_is_current", lambda folder: False)
    with pytest.raises(UserError, match="run `make paper`"):
        packed(ROOT)


def test_without_git_it_says_why(tmp_path):
    with pytest.raises(UserError, match="not a checkout of git"):
        tracked_files(Path(tmp_path))
