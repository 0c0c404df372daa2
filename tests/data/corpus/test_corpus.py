import io
import json
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import data.corpus.build
from common.console import UserError
from data.corpus import build_corpus, import_root, load_corpus, save_corpus
from data.corpus.build import write_corpus
from data.corpus.curate import Options
from data.corpus.languages import packages_of
from data.corpus.locate import locate, untar, unzip
from tests.commands import run


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
    with pytest.raises(UserError, match=r"pkg/beta\.py has changed"):
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
        ("npm:rxjs", "pin the version"),
        ("npm:rxjs@latest", "pin the version"),
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
    with pytest.raises(UserError, match="points outside the archive"):
        unzip(tmp_path / "bad.zip", tmp_path / "out")
    assert not (tmp_path / "evil.py").exists() and not any((tmp_path / "out").iterdir())


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("package/../../evil.js", tarfile.REGTYPE),
        ("/etc/evil.js", tarfile.REGTYPE),
        ("package/link.js", tarfile.SYMTYPE),
        ("package/hard.js", tarfile.LNKTYPE),
        ("package/pipe", tarfile.FIFOTYPE),
    ],
)
def test_a_tarball_may_not_write_outside_its_folder_nor_hold_links(tmp_path, name, kind):
    with tarfile.open(tmp_path / "bad.tgz", "w:gz") as archive:
        for entry, its_kind in (("package/good.js", tarfile.REGTYPE), (name, kind)):
            info = tarfile.TarInfo(entry)
            info.type, info.linkname, info.size = its_kind, "../good.js", 5 if its_kind == tarfile.REGTYPE else 0
            archive.addfile(info, io.BytesIO(b"x = 1"))
    with pytest.raises(UserError, match="is a link or points outside"):
        untar(tmp_path / "bad.tgz", tmp_path / "out")
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] in (
        ["bad.tgz", "good.js"],
        ["good.js", "bad.tgz"],
    )


def test_a_package_of_npm_is_packed_and_unpacked_without_running_anything(tmp_path, monkeypatch):
    monkeypatch.setenv("TRITUNE_CACHE", str(tmp_path / "cache"))
    commands = []

    def pack(command, **options):
        commands.append(command)
        with tarfile.open(tmp_path / "cache" / "packed", "w:gz") as archive:
            for name, text in (("package.json", '{"license": "ISC"}'), ("src/index.ts", "export {};")):
                info = tarfile.TarInfo(f"package/{name}")
                info.size = len(text)
                archive.addfile(info, io.BytesIO(text.encode()))
        (tmp_path / "cache" / "packed").rename(options["cwd"] / "scope-name-1.2.3.tgz")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr("data.corpus.locate.subprocess.run", pack)
    monkeypatch.setattr("data.corpus.locate.shutil.which", lambda name: f"/usr/bin/{name}")
    located = locate("npm:@scope/name@1.2.3")
    assert commands[0][:4] == ["npm", "pack", "@scope/name@1.2.3", "--ignore-scripts"]
    assert (located.name, located.license, located.revision) == ("@scope/name", "ISC", "@scope/name@1.2.3")
    assert sorted(path.name for path in located.tree.rglob("*")) == ["index.ts", "package.json", "src"]
    assert locate("npm:@scope/name@1.2.3") == located and len(commands) == 1  # the second time from the cache


def test_several_sources_are_one_corpus_and_each_file_knows_its_own(folder, tmp_path):
    other = tmp_path / "other" / "code"
    (other / "tools").mkdir(parents=True)
    (other / "tools" / "saw.py").write_text(module("saw"))
    (other / "tools" / "beta.py").write_text(module("beta"))
    (other / "pkg").mkdir()
    (other / "pkg" / "alpha.py").write_text(module("another_alpha"))
    corpus = build_corpus([str(folder), str(other), str(folder)])
    assert corpus.sources == (str(folder), str(other)) and corpus.source == f"{folder}, {other}"
    assert {file.path: file.source for file in corpus.files}["tools/saw.py"] == str(other)
    assert len(corpus.files) == 9
    rejects = {(reject["path"], reject["source"]): reject["reason"] for reject in corpus.rejects}
    assert rejects == {("tools/beta.py", str(other)): "duplicate", ("pkg/alpha.py", str(other)): "same path"}
    save_corpus(corpus, tmp_path / "saved")
    assert load_corpus(tmp_path / "saved") == corpus


def test_a_source_without_files_is_named_among_several(folder, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"empty: no Python file"):
        build_corpus([str(folder), str(tmp_path / "empty")])


SCRIPT = (
    "/** Adds. */\nexport function {name}(a: number, b: number): number {{\n" + "  a += b;\n" * 9 + "  return a;\n}}\n"
)


def test_typescript_is_read_beside_python_and_named_from_the_source(folder, tmp_path):
    languages = ["python", "javascript", "typescript"]
    for package in packages_of(languages):
        pytest.importorskip(package, reason=f"reading JavaScript and TypeScript needs {package}")
    (folder / "web" / "src").mkdir(parents=True)
    (folder / "src").mkdir()  # where Python is imported from
    (folder / "pkg").rename(folder / "src" / "pkg")
    (folder / "web" / "src" / "add.ts").write_text(SCRIPT.format(name="add"))
    (folder / "web" / "src" / "broken.ts").write_text("export function {\n")
    (folder / "web" / "src" / "add.test.ts").write_text(SCRIPT.format(name="test"))
    (folder / "web" / "src" / "built.js").write_text("exports.x = 1;\n" * 20 + "//# sourceMappingURL=built.js.map\n")
    (folder / "package.json").write_text('{"license": "ISC"}')
    corpus = build_corpus(str(folder), languages=languages)
    found = {file.path: (file.language, file.license) for file in corpus.files}
    assert found.pop("web/src/add.ts") == ("typescript", "ISC")
    assert set(found) == {f"pkg/{path.name}" for path in (folder / "src" / "pkg").iterdir()}
    reasons = {reject["path"].split("/")[-1]: reject["reason"] for reject in corpus.rejects}
    assert reasons == {"broken.ts": "does not parse", "add.test.ts": "test file", "built.js": "generated"}
    save_corpus(corpus, tmp_path / "saved")
    assert load_corpus(tmp_path / "saved") == corpus
    several = build_corpus([str(folder / "src"), str(folder)], languages=languages)
    assert {"code/web/src/add.ts", "pkg/alpha.py"} <= {file.path for file in several.files}


def test_a_missing_grammar_is_named_with_what_to_install(folder, monkeypatch):
    monkeypatch.setattr("data.corpus.curate.importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        UserError, match="TypeScript needs extra packages: pip install tree-sitter tree-sitter-typescript"
    ):
        build_corpus(str(folder), languages=["typescript"])


def test_a_split_by_module_keeps_each_folder_on_one_side(tmp_path):
    for number in range(12):
        (tmp_path / f"part{number}").mkdir()
        for name in ("first", "second"):
            (tmp_path / f"part{number}" / f"{name}.py").write_text(module(f"{name}_{number}"))
    corpus = build_corpus(str(tmp_path), split_by="module")
    sides = {}
    for file in corpus.files:
        sides.setdefault(file.path.split("/")[0], set()).add(file.split)
    assert all(len(side) == 1 for side in sides.values()) and len(corpus.split("test")) == 4
    parted = build_corpus(str(tmp_path), split_by="file")
    assert len({(file.path.split("/")[0], file.split) for file in parted.files}) > 12


def test_a_split_by_module_that_leaves_no_test_file_is_refused(folder):
    with pytest.raises(UserError, match="no folder is small enough"):
        build_corpus(str(folder), split_by="module")


def test_two_runs_write_the_same_bytes_whatever_the_processes(folder, tmp_path):
    (folder / "pkg" / "mail.py").write_text(module("mail") + "\n# jane@uni.museum\n")
    for name, processes in (("one", 1), ("two", 2)):
        write_corpus([str(folder)], tmp_path / name, Options(seed=5), processes=processes)
    one, two = (
        {path.relative_to(tmp_path / run): path.read_bytes() for path in (tmp_path / run).rglob("*") if path.is_file()}
        for run in ("one", "two")
    )
    assert one == two and len(one) == 11
    assert load_corpus(tmp_path / "one") == build_corpus(str(folder), seed=5)


def test_placeholders_are_counted_by_file(folder, tmp_path):
    (folder / "pkg" / "mail.py").write_text(module("mail") + "\n# jane@uni.museum\n")
    write_corpus([str(folder)], tmp_path / "saved", Options())
    (mail,) = [file for file in load_corpus(tmp_path / "saved").files if file.redacted]
    assert mail.redacted == {"EMAIL": 1} and mail.text.endswith("# <EMAIL>\n")
    (kept,) = [file for file in build_corpus(str(folder), redact=False).files if file.path == "pkg/mail.py"]
    assert kept.redacted == {} and kept.text.endswith("# jane@uni.museum\n")


def test_rejects_say_what_is_known_of_them(folder):
    (folder / "LICENSE").write_text("Apache License Version 2.0")
    (folder / "pkg" / "short.py").write_text("x = 1\n")
    (reject,) = build_corpus(str(folder)).rejects
    assert (reject["license"], reject["tokens"], len(reject["sha256"])) == ("Apache-2.0", 3, 64)
    assert reject["source"] == str(folder) and reject["commit"] is None


def test_a_file_that_changes_meanwhile_is_named(folder, monkeypatch):
    monkeypatch.setattr("data.corpus.build.read_again", lambda request, redacted: "changed = 1\n")
    with pytest.raises(UserError, match=r"alpha\.py changed while"):
        build_corpus(str(folder))


def test_a_file_that_is_gone_meanwhile_is_named(folder, tmp_path, monkeypatch):
    read_again = data.corpus.build.read_again

    def removed(request, redacted):
        Path(request.file).unlink()
        return read_again(request, redacted)

    monkeypatch.setattr("data.corpus.build.read_again", removed)
    with pytest.raises(UserError, match=r"alpha\.py changed while"):
        write_corpus([str(folder)], tmp_path / "out", Options())
    assert not (tmp_path / "out").exists()


PEAK = """
import sys, tracemalloc
from data.corpus.build import Options, write_corpus
tracemalloc.start()
write_corpus([sys.argv[1]], sys.argv[2], Options(), processes=1)
print(tracemalloc.get_traced_memory()[1])
"""


def test_memory_does_not_grow_with_the_texts_of_a_source(tmp_path):
    def peak(files):  # in a process of its own: what others have left decides when garbage is collected
        source = tmp_path / str(files)
        source.mkdir()
        for i in range(files):  # distinct by strings: the parser keeps a table of names for itself
            (source / f"m{i}.py").write_text(
                "\n".join(f"a = '{i} {line} is {i * line} at most'" for line in range(300))
            )
        command = [sys.executable, "-c", PEAK, str(source), str(tmp_path / f"out{files}")]
        result = subprocess.run(command, capture_output=True, text=True, check=True)
        top = int(result.stdout.splitlines()[-1])
        return top, sum(path.stat().st_size for path in source.iterdir())

    (few, few_bytes), (many, many_bytes) = peak(20), peak(60)
    assert many - few < (many_bytes - few_bytes) / 4


def test_the_command_leaves_nothing_behind_when_it_fails(tmp_path):
    result = run("-m", "data.corpus", tmp_path / "none", "--out", tmp_path / "out")
    assert result.returncode == 2
    assert result.stderr.startswith("tritune: ") and result.stderr.count("\n") == 1
    assert not any(tmp_path.iterdir())


def test_a_wheel_is_fetched_once_and_compiled_but_never_run(tmp_path, monkeypatch):
    monkeypatch.setenv("TRITUNE_CACHE", str(tmp_path / "cache"))
    code = "".join(f"VALUE_{n} = {n}\n" for n in range(30))
    downloads = []

    def download(pinned, folder):
        downloads.append(pinned)
        folder.mkdir()
        with zipfile.ZipFile(folder / "boat.whl", "w") as wheel:
            wheel.writestr("boat/__init__.py", code + f"open({str(tmp_path / 'ran')!r}, 'w')\n")
            wheel.writestr("boat/broken.py", "def f(:\n")
            wheel.writestr("boat-1.0.dist-info/METADATA", "Name: boat\nVersion: 1.0\n")
        return folder / "boat.whl"

    monkeypatch.setattr("data.corpus.locate._download_wheel", download)
    for _ in range(2):
        located = locate("pypi:boat==1.0")
    assert downloads == ["boat==1.0"] and not (tmp_path / "ran").exists()
    assert located.revision == "boat==1.0" and located.metadata["Name"] == "boat"
    (compiled,) = (located.root / "boat" / "__pycache__").iterdir()
    command = [sys.executable, "-v", "-c", "import boat"]
    done = subprocess.run(command, cwd=located.root, capture_output=True, text=True)
    assert f"{compiled} matches {located.root / 'boat' / '__init__.py'}" in done.stderr
    assert (tmp_path / "ran").exists()  # now that it is imported
