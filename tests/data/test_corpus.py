import json
import subprocess
import sys
import zipfile

import pytest

from data.corpus import build_corpus, import_root, load_corpus, save_corpus
from data.source import unzip
from model.console import UserError


def module(name, lines=12):
    return f'"""The module {name}."""\n' + "\n".join(f"{name}_{i} = {name}_{i - 1} + {i}" for i in range(1, lines + 1))


@pytest.fixture
def folder(tmp_path):
    for name in ("alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta"):
        (tmp_path / "code" / "pkg").mkdir(parents=True, exist_ok=True)
        (tmp_path / "code" / "pkg" / f"{name}.py").write_text(module(name))
    return tmp_path / "code"


def test_every_file_is_kept_or_rejected_with_its_reason(folder):
    (folder / "pkg" / "copy_of_beta.py").write_text(module("beta"))
    (folder / "pkg" / "broken.py").write_text("def f(:\n")
    (folder / "pkg" / "latin.py").write_bytes(b"x = '\xe9'\n")
    (folder / "tests").mkdir()
    (folder / "tests" / "helper.py").write_text(module("helper"))
    (folder / "pkg" / "linked.py").symlink_to(folder / "pkg" / "alpha.py")
    corpus = build_corpus(str(folder))
    reasons = {reject["path"]: reject["reason"] for reject in corpus.rejects}
    assert reasons == {
        "pkg/copy_of_beta.py": "duplicate",
        "pkg/broken.py": "does not parse",
        "pkg/latin.py": "not UTF-8",
        "tests/helper.py": "test file",
        "pkg/linked.py": "link",
    }
    assert len(corpus.files) == 8


def test_files_alike_but_no_duplicates_are_kept_on_one_side(folder):
    beta = module("beta", 40)
    (folder / "pkg" / "beta.py").write_text(beta)
    (folder / "pkg" / "half.py").write_text(beta.rsplit("\n", 8)[0] + "\n" + module("half", 12))
    for seed in range(8):
        corpus = build_corpus(str(folder), seed=seed)
        split = {file.path: file.split for file in corpus.files}
        assert corpus.rejects == () and split["pkg/beta.py"] == split["pkg/half.py"]


def test_the_split_is_of_files_and_repeats_with_its_seed(folder):
    first, again = build_corpus(str(folder), seed=3), build_corpus(str(folder), seed=3)
    assert first == again
    assert [len(first.split(side)) for side in ("train", "validation", "test")] == [5, 1, 2]
    sides = {tuple(file.split for file in build_corpus(str(folder), seed=seed).files) for seed in range(5)}
    assert len(sides) > 1


def test_files_over_the_limit_are_drawn_by_seed_and_counted(folder):
    corpus = build_corpus(str(folder), max_files=5)
    assert len(corpus.files) == 5
    assert [reject["reason"] for reject in corpus.rejects] == ["over max_files"] * 3


def test_a_saved_corpus_is_read_back_and_a_changed_file_is_named(folder, tmp_path):
    corpus = build_corpus(str(folder))
    save_corpus(corpus, tmp_path / "saved")
    assert load_corpus(tmp_path / "saved") == corpus
    (tmp_path / "saved" / "files" / "pkg" / "beta.py").write_text("changed = 1\n")
    with pytest.raises(UserError, match=r"pkg/beta\.py was changed"):
        load_corpus(tmp_path / "saved")


def test_the_manifest_lists_kept_and_rejected_files(folder, tmp_path):
    (folder / "conftest.py").write_text(module("conftest"))
    save_corpus(build_corpus(str(folder)), tmp_path / "saved")
    rows = [json.loads(line) for line in (tmp_path / "saved" / "manifest.jsonl").read_text().splitlines()]
    assert len(rows) == 9
    assert [row["path"] for row in rows if "reason" in row] == ["conftest.py"]
    assert all(len(row["sha256"]) == 64 for row in rows if "reason" not in row)


def test_a_licence_comes_from_the_file_before_the_project(folder):
    (folder / "pyproject.toml").write_text('[project]\nname = "x"\nlicense = "MIT"\n')
    (folder / "pkg" / "own.py").write_text("# SPDX-License-Identifier: Apache-2.0\n" + module("own"))
    licenses = {file.path: file.license for file in build_corpus(str(folder)).files}
    assert licenses["pkg/own.py"] == "Apache-2.0"
    assert licenses["pkg/beta.py"] == "MIT"


def test_the_import_root_is_where_modules_are_imported_from(tmp_path):
    (tmp_path / "project" / "src" / "pkg").mkdir(parents=True)
    (tmp_path / "project" / "src" / "pkg" / "__init__.py").write_text("")
    assert import_root(str(tmp_path / "project")) == tmp_path / "project" / "src"
    assert import_root(str(tmp_path / "project" / "src" / "pkg")) == tmp_path / "project" / "src"
    assert (import_root("package:networkx") / "networkx" / "__init__.py").is_file()


def test_a_repository_is_cloned_and_its_commit_recorded(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("TRITUNE_CACHE", str(tmp_path / "cache"))
    git = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@b.c"]
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "x"]):
        subprocess.run([*git, *command], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    corpus = build_corpus(f"file://{folder}")
    assert len(corpus.files) == 8
    assert {file.commit for file in corpus.files} == {head}
    with pytest.raises(UserError, match="not cloned"):
        build_corpus(f"file://{tmp_path}/nowhere")
    assert [path.name.split("-")[0] for path in (tmp_path / "cache" / "git").iterdir()] == ["code"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("no/such/folder", "no such folder"),
        ("package:surely_not_installed", "no installed Python package"),
        ("pypi:networkx", "pin the version"),
        ("{empty}", "no Python file"),
        ("{short}", "every Python file was filtered"),
    ],
)
def test_a_bad_source_is_one_clear_line(tmp_path, source, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "short").mkdir()
    (tmp_path / "short" / "a.py").write_text("x = 1\n")
    with pytest.raises(UserError, match=message):
        build_corpus(source.format(empty=tmp_path / "empty", short=tmp_path / "short"))


def test_a_missing_git_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("TRITUNE_CACHE", str(tmp_path))
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(UserError, match="git is not installed"):
        build_corpus("https://example.org/a/b.git")


def test_an_archive_may_not_write_outside_its_folder(tmp_path):
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
        archive.writestr("good.py", "x = 1")
        archive.writestr("../evil.py", "x = 1")
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match="points out of the archive"):
        unzip(tmp_path / "bad.zip", tmp_path / "out")
    assert not (tmp_path / "evil.py").exists() and not any((tmp_path / "out").iterdir())


def test_the_command_leaves_nothing_behind_when_it_fails(tmp_path):
    result = subprocess.run(
        [sys.executable, "-m", "data.corpus", str(tmp_path / "none"), "--out", str(tmp_path / "out")],
        capture_output=True, text=True,
    )  # fmt: skip
    assert result.returncode == 2
    assert result.stderr.startswith("tritune: ") and result.stderr.count("\n") == 1
    assert not any(tmp_path.iterdir())
