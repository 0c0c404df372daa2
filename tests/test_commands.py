"""Bad input gets one line and status 2, and leaves nothing behind. All but two run in this process: see commands.py."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

from common.console import run_command
from tests.commands import ROOT, Child, run

SCRIPTS = ["train_cpt.py", "train_sft.py", "train_embed.py", "chat.py", "search.py", "quickstart.py", "self_improve.py"]
MODULES = [
    "data.corpus",
    "data.instruct",
    "data.pairs",
    "data.importing",
    "data.rejection_sampling",
    "data.show_rows",
    "data.card",
    "eval.perplexity",
    "eval.instruct",
    "eval.retrieval",
    "eval.code",
    "eval.compare",
    "eval.contamination",
    "eval.next_token",
    "eval.rate",
    "eval.text",
    "eval.what_pays",
    "eval.report",
    "sandbox",
    "eval.report.schema",
    "lora.merge",
    "lora.check",
    "model.distil",
    "model.export",
    "training.similarity",
    "bench.context",
    "bench.decode",
    "bench.embed",
    "bench.generate",
    "bench.gpu",
    "bench.memory",
    "bench.sandbox",
    "bench.search",
    "bench.train",
    "experiments.anchors.readings",
    "experiments.anchors.run",
    "experiments.code_search.run",
    "experiments.codealpaca.run",
    "experiments.pages",
    "experiments.quickstart_choices.run",
    "experiments.study",
    "experiments.track_b_executed.run",
    "experiments.typescript.join",
    "experiments.typescript.run",
    "experiments.verl_sft.run",
    "experiments.what_pays.run",
    "notebooks.build",
    "paper.generate",
    "paper.compile",
    "paper.submission",
]
FOLDERS = [path.parent for path in ROOT.glob("*/__init__.py")]  # not runs/, where a corpus may hold anything
SOURCES = [*ROOT.glob("*.py"), *(path for folder in FOLDERS for path in folder.rglob("*.py"))]


def assert_one_line(done, *words):
    assert done.returncode == 2, done.stderr
    # A PyTorch built for CUDA on a machine without a GPU says a line more.
    lines = [line for line in done.stderr.splitlines() if "using the CPU" not in line]
    assert len(lines) == 1 and lines[0].startswith("tritune: "), done.stderr
    for word in words:
        assert word in done.stderr


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    file = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    file.write_text(json.dumps({"instruction": "x", "output": "y"}) + "\n")
    return file


@pytest.mark.parametrize("command", [[name] for name in SCRIPTS] + [["-m", name] for name in MODULES])
def test_help_explains_every_option(command):
    done = run(*command, "--help")
    assert done.returncode == 0 and "usage:" in done.stdout
    options = re.findall(r"^  -\S.*\n(?: {4}.*\n)*", done.stdout, re.MULTILINE)
    assert options and all(re.search(r"\S(?: {2,}|\n +)\S", option) for option in options), options


def test_the_list_of_commands_is_complete():
    sources = {path.relative_to(ROOT).as_posix(): path.read_text() for path in SOURCES}
    found = {name for name, text in sources.items() if "sys.exit(run_command(main" in text}
    listed = {f"{name.replace('.', '/')}{end}" for name in MODULES for end in (".py", "/__main__.py")}
    assert {name for name in found if not name.startswith("tests/")} <= listed | set(SCRIPTS)


def test_command_lines_are_read_in_one_place():
    """Options are the fields of a dataclass: common/options.py makes the parser, --help and the recipe from them."""
    readers = {path.relative_to(ROOT).as_posix() for path in SOURCES if re.search(r"\bargparse\b", path.read_text())}
    assert readers == {"common/options.py"}


def test_an_error_in_the_options_is_one_line():
    assert_one_line(run("train_cpt.py", "--model", "m"), "--out, --corpus must be given")
    assert_one_line(
        run("-m", "eval.code", "--tasks", "mbpp", "--out", "x", "--lr", "1"), "unrecognized arguments: --lr"
    )
    both = ("--model", "m", "--answers", "a")
    assert_one_line(run("-m", "eval.text", "--task", "qa", "--data", "d", "--out", "x", *both), "--model, --answers")


def test_a_missing_folder(tmp_path):
    done = run("train_cpt.py", "--model", "smollm2-135m", "--corpus", tmp_path / "none", "--out", tmp_path / "run")
    assert_one_line(done, str(tmp_path / "none"))
    assert not (tmp_path / "run").exists()


def test_an_empty_corpus(tmp_path, tiny_folder):
    (tmp_path / "source").mkdir()
    done = run("train_cpt.py", "--model", tiny_folder, "--corpus", tmp_path / "source", "--out", tmp_path / "run")
    assert_one_line(done, "no Python file")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{broken", "not JSON"),
        ('["a"]', "expected one JSON object a line"),
        ('{"id": 1, "instruction": "x", "response": "y"}', '"output" is missing'),
    ],
)
def test_an_unusable_line_is_named(tmp_path, tiny_folder, pairs, line, reason):
    data = tmp_path / "data.jsonl"
    data.write_text(pairs.read_text() + line + "\n")
    done = run("train_sft.py", "--model", tiny_folder, "--data", data, "--out", tmp_path / "run")
    assert_one_line(done, f"{data}:2:", reason)
    assert not (tmp_path / "run").exists()


def test_a_data_command_names_what_it_cannot_read(tmp_path, tiny_folder, pairs):
    data = tmp_path / "data.jsonl"
    data.write_text(pairs.read_text() + "{broken\n")
    out = tmp_path / "out"
    assert_one_line(run("-m", "data.importing", data, "--out", out), f"{data}:2:", "not JSON")
    assert_one_line(run("-m", "data.show_rows", "--model", tiny_folder, "--data", data), f"{data}:2:", "not JSON")
    assert_one_line(run("-m", "data.card", out), str(out), "no such folder")
    assert not out.exists()


def test_a_wrong_architecture(tmp_path, pairs):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    done = run("chat.py", "--model", tmp_path / "model", "--prompt", "x")
    assert_one_line(done, "tokenizer.json")
    done = run(
        "-m", "eval.perplexity", "--model", tmp_path / "model", "--data", ROOT / "model", "--out", tmp_path / "x.json"
    )
    assert_one_line(done, "'gpt2' is not supported")
    assert not (tmp_path / "x.json").exists()


def test_a_hub_out_of_reach(tmp_path, pairs):
    """In a process that has not imported the hub's client yet, which reads its settings at that moment."""
    nowhere = {"HF_HOME": str(tmp_path / "hub"), "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "0"}
    child = Child("train_sft.py", "--model", "org/none", "--data", pairs, "--out", tmp_path / "run", **nowhere)
    out, err = child.communicate()
    done = subprocess.CompletedProcess([], child.returncode, out, err)
    assert_one_line(done, "org/none", "could not be fetched from the hub", "smollm2-135m")
    assert not (tmp_path / "run").exists()


def test_rows_longer_than_the_models_positions(tmp_path, tiny_folder, pairs):
    done = run("train_sft.py", "--model", tiny_folder, "--data", pairs, "--max-length", 4096, "--out", tmp_path / "run")
    assert_one_line(done, "256 positions")
    assert not (tmp_path / "run").exists()


def test_a_run_folder_in_use(tmp_path, tiny_folder, pairs):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    done = run("train_sft.py", "--model", tiny_folder, "--data", pairs, "--out", tmp_path / "run")
    assert_one_line(done, "not empty")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["notes.txt"]


def test_a_missing_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "gguf", None)  # as if it were not installed
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    done = run("chat.py", "--model", tmp_path / "model.gguf", "--prompt", "x")
    assert_one_line(done, "needs the extra package 'gguf': pip install gguf")


def test_a_status_for_each_way_to_end(capsys):
    def interrupted():
        raise KeyboardInterrupt

    assert run_command(interrupted) == 130 and "Ctrl-C" in capsys.readouterr().err
    assert run_command(lambda: None) == 0 and capsys.readouterr().err == ""
    with pytest.raises(ZeroDivisionError):  # a fault of ours keeps its traceback
        run_command(lambda: 1 / 0)


def test_the_status_is_that_of_the_process(tmp_path):
    command = [sys.executable, "-m", "eval.compare", str(tmp_path / "none"), str(tmp_path / "none")]
    assert_one_line(subprocess.run(command, cwd=ROOT, capture_output=True, text=True), "none")
