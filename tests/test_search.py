"""search.py: its two commands, in a terminal, with a pipe, and killed."""

import fcntl
import json
import os
import random
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import search
from common.console import run_command
from data.search import results
from data.search.bm25 import BM25
from data.search.contents import read_contents
from data.search.index import LOCK, build_index, open_index, writing
from tests import test_chat
from tests.commands import Child
from tests.data.search.test_index import contents
from tests.test_chat import terminal  # noqa: F401 (a fixture)
from tests.word_encoder import WordEncoder

ROOT = Path(__file__).resolve().parents[1]

CODE = '''"""A module."""

import functools


@functools.cache
def open_file(path):
    """Open the file at path and read it."""
    handle = open(path)
    return handle.read()


class Tree:
    """A tree."""

    def depth(self, node):
        """How deep the node is."""
        below = [self.depth(child) for child in node]
        return 1 + max(below, default=0)


def shortest_path(graph, start, goal):
    """The path with the fewest edges."""
    queue = [start]
    while queue and queue[0] != goal:
        queue.extend(graph[queue.pop(0)])
    return queue
'''


@pytest.fixture
def repository(tmp_path, monkeypatch):
    (tmp_path / "repository").mkdir()
    (tmp_path / "repository/library.py").write_text(CODE)
    (tmp_path / "repository/broken.py").write_text("def x(:\n" * 20)
    load_with(monkeypatch, loads("0"))
    return tmp_path


def loads(weights):
    """A load_encoder that returns the encoder of hashed words."""
    return lambda name, *, query_prefix=None, **settings: WordEncoder(weights, query_prefix)


def load_with(monkeypatch, load):
    """Indexes are made, and queries too, with what `load` returns."""
    monkeypatch.setattr(results, "load_encoder", load)


def command(monkeypatch, *arguments):
    monkeypatch.setattr("sys.argv", ["search.py", *map(str, arguments)])
    return run_command(search.main)


def lines_found(capsys):
    return capsys.readouterr().out.splitlines()


def test_a_repository_is_indexed_and_searched(repository, monkeypatch, capsys):
    index = repository / "index"
    assert command(monkeypatch, "index", repository / "repository", "--out", index) == 0
    said = capsys.readouterr().out
    assert "5 units: 3 functions, 1 classes, 1 files\n" in said and f"{index}: 5 newly encoded by " in said
    assert "skipped: 1 files (does not parse)" in said and "are truncated at 12 tokens" in said
    assert command(monkeypatch, "query", index, "shortest path", "--k", 2) == 0
    first, *held, second = (line for line in lines_found(capsys) if not line.startswith(" "))
    line = CODE.split("\n").index("def shortest_path(graph, start, goal):") + 1
    assert first.startswith(f"library.py:{line} ") and first.endswith("def shortest_path(graph, start, goal):")
    assert not held and float(first.split()[1]) > float(second.split()[1])


def test_the_line_below_a_result_holds_most_of_the_query(repository, monkeypatch, capsys):
    command(monkeypatch, "index", repository / "repository", "--out", repository / "index")
    capsys.readouterr()
    command(monkeypatch, "query", repository / "index", "queue extend of the graph", "--k", 1)
    assert lines_found(capsys)[1] == "    queue.extend(graph[queue.pop(0)])"  # no mark: this is no terminal


@pytest.mark.parametrize("more", [[], ["--exact"], ["--by", "meaning"]])
def test_json_lines_hold_the_whole_code_and_more_than_there_is_may_be_asked_for(repository, monkeypatch, capsys, more):
    command(monkeypatch, "index", repository / "repository", "--out", repository / "index", "--graph")
    assert "recall@10 of the graph against exact search: 1.000" in capsys.readouterr().out
    assert command(monkeypatch, "query", repository / "index", "open the file", "--json", "--k", 50, *more) == 0
    found = [json.loads(line) for line in lines_found(capsys)]
    assert len(found) == 5 and [one["rank"] for one in found] == [1, 2, 3, 4, 5]
    assert [one["score"] for one in found] == sorted((one["score"] for one in found), reverse=True)
    first = found[0]
    assert (first["path"], first["line"], first["kind"], first["query"]) == (
        "library.py",
        6,
        "function",
        "open the file",
    )
    assert first["file"] == str(repository / "repository/library.py")
    assert first["source"]["qualname"] == "open_file" and first["source"]["lines"] == [6, 10]
    assert first["code"].startswith("@functools.cache\ndef open_file(path):")


def test_by_words_no_model_is_loaded(repository, monkeypatch, capsys):
    command(monkeypatch, "index", repository / "repository", "--out", repository / "index")
    load_with(monkeypatch, None)
    capsys.readouterr()
    assert command(monkeypatch, "query", repository / "index", "fewest edges", "--by", "words") == 0
    assert "def shortest_path" in lines_found(capsys)[0]
    assert command(monkeypatch, "query", repository / "index", "unheard", "--by", "words") == 0
    assert lines_found(capsys) == ["nothing found: no unit contains a word of the query"]


def test_an_index_is_updated_with_its_own_settings(repository, monkeypatch, capsys):
    loaded = []
    load_with(monkeypatch, lambda name, **made: loaded.append((name, made)) or loads("0")(name, **made))
    arguments = ["index", repository / "repository", "--out", repository / "index"]
    command(monkeypatch, *arguments, "--model", "mine", "--query-prefix", "q: ")
    command(monkeypatch, *arguments)
    assert ": 0 newly encoded by words" in capsys.readouterr().out
    (name, made), again = loaded
    assert (name, made["query_prefix"], made["pooling"]) == ("mine", "q: ", None)
    assert again[0] == "words" and again[1]["query_prefix"] == "q: " and again[1]["pooling"] == "mean"
    assert again[1]["max_length"] == 12


def test_fast_is_the_table_of_the_model_alone_or_before_it(repository, monkeypatch, capsys):
    monkeypatch.setattr(search, "cached_table", lambda name: f"table of {name}")
    loaded = []
    load_with(monkeypatch, lambda name, **made: loaded.append(name) or loads(name[0])(name))
    arguments = ["index", repository / "repository", "--out", repository / "index"]
    assert command(monkeypatch, *arguments, "--fast") == 0 and loaded == ["table of all-minilm-l6-v2"]
    assert command(monkeypatch, *arguments, "--model", "mine", "--fast", "first") == 0
    assert loaded[1:] == ["table of mine", "mine"]
    assert json.loads((repository / "index/manifest.json").read_text())["weights_sha256"] == "m" * 64
    said = capsys.readouterr().out
    assert said.count("5 newly encoded by mine") == 1 and said.count(" newly encoded by table of") == 2
    load_with(monkeypatch, loads("m"))
    assert command(monkeypatch, "query", repository / "index", "open") == 0


def test_results_of_a_file_stand_together(capsys):
    def result(rank, path):
        return {
            "query": "x",
            "rank": rank,
            "score": 1 / rank,
            "path": path,
            "line": rank,
            "code": f"def f{rank}",
            "id": path,
        }

    index = SimpleNamespace(words=BM25(["x"]))
    ranks = [result(1, "a.py"), result(2, "b.py"), result(3, None), result(4, "a.py")]
    search.show(SimpleNamespace(index=index), ranks, numbered=True)
    assert [line.split()[:2] for line in lines_found(capsys)] == [
        ["1", "a.py:1"], ["4", "a.py:4"], ["2", "b.py:2"], ["3", "None:3"],
    ]  # fmt: skip


def test_a_damaged_index_is_one_line_and_is_rebuilt(repository, monkeypatch, capsys):
    arguments = ["index", repository / "repository", "--out", repository / "index"]
    command(monkeypatch, *arguments)
    (path,) = (repository / "index").rglob("units.jsonl")
    path.write_bytes(path.read_bytes()[:-20])
    capsys.readouterr()
    assert command(monkeypatch, "query", repository / "index", "open") == 2
    error = capsys.readouterr().err
    assert "units.jsonl: damaged" in error and "python search.py index REPO" in error and error.count("\n") == 1
    assert command(monkeypatch, *arguments) == 0
    assert (
        "units.jsonl: damaged (not the file that the manifest describes); rebuilding from scratch"
        in capsys.readouterr().out
    )
    assert command(monkeypatch, "query", repository / "index", "open") == 0


def test_a_query_by_another_model_is_refused_in_one_line(repository, monkeypatch, capsys):
    command(monkeypatch, "index", repository / "repository", "--out", repository / "index")
    load_with(monkeypatch, loads("1"))
    capsys.readouterr()
    assert command(monkeypatch, "query", repository / "index", "open") == 2
    said = capsys.readouterr()
    assert "weights_sha256" in said.err and said.err.count("\n") == 1 and said.out == ""


def test_a_query_is_made_as_the_index_says_that_its_vectors_were(repository, monkeypatch, capsys):
    command(monkeypatch, "index", repository / "repository", "--out", repository / "index", "--query-prefix", "query: ")
    assert json.loads((repository / "index/manifest.json").read_text())["query_prefix"] == "query: "
    assert command(monkeypatch, "query", repository / "index", "open") == 0


def test_the_index_of_a_run_can_be_searched(repository, monkeypatch, capsys):
    codes = [
        {"id": "a", "code": "def open_file(path):", "source": {"path": "io.py", "lines": [3, 9]}},
        {"id": "mine", "code": "x = 1"},
    ]
    encoder = WordEncoder()
    vectors = encoder.encode([row["code"] for row in codes], kind="passage").numpy()
    build_index(repository / "index", vectors, codes, manifest=encoder.identity())
    assert command(monkeypatch, "query", repository / "index", "open file") == 0
    assert [line.split()[0] for line in lines_found(capsys)] == ["io.py:3", "mine"]
    assert command(monkeypatch, "query", repository / "index", "open file", "--open") == 2


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["query", "{}/nowhere", "text"], "no index here"),
        (["query", "{}/nowhere", " "], "the query is empty"),
        (["query", "{}/nowhere", "text", "--k", "0"], "must be at least 1"),
        (["query", "{}/nowhere", "text", "--open", "11"], "--open N needs a TEXT"),
        (["index", "{}/empty", "--out", "{}/index"], "nothing to search in it: no source file"),
        (["index", "{}/repository", "--out", "{}"], "is not an index"),
    ],
)
def test_bad_input_gets_one_line_and_leaves_nothing(repository, monkeypatch, capsys, arguments, says):
    (repository / "empty").mkdir()
    assert command(monkeypatch, *[argument.format(repository) for argument in arguments]) == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1
    assert not (repository / "index").exists() and (repository / "repository").exists()


EDITOR = """#!/bin/sh
printf '%s\\n' "$@" > "{}"
"""


@pytest.fixture
def editor(tmp_path, monkeypatch):
    """A command that records its arguments; its own path contains a space."""
    (tmp_path / "my tools").mkdir()
    script, said = tmp_path / "my tools/edit", tmp_path / "said.txt"
    script.write_text(EDITOR.format(said))
    script.chmod(0o755)
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.setenv("EDITOR", f"'{script}' --wait")
    return said


def test_a_result_is_opened_in_the_editor_at_its_line(repository, monkeypatch, capsys, editor):
    place = repository / "repository/ünï code/a b.py"
    place.parent.mkdir()
    place.write_text("\n\ndef unique_words():\n    return 'gargoyle'\n", encoding="utf-8")
    command(monkeypatch, "index", repository / "repository", "--out", repository / "index")
    assert command(monkeypatch, "query", repository / "index", "gargoyle", "--by", "words", "--open") == 0
    assert editor.read_text(encoding="utf-8").splitlines() == ["--wait", "+3", str(place)]
    assert "ünï code/a b.py:3 " in capsys.readouterr().out
    code = editor.parent / "my tools/code"  # VS Code's name
    (editor.parent / "my tools/edit").rename(code)
    monkeypatch.setenv("VISUAL", f"'{code}'")
    command(monkeypatch, "query", repository / "index", "unique words", "--by", "words", "--open", 2)
    assert editor.read_text(encoding="utf-8").splitlines() == ["--goto", f"{place}:1"]
    place.unlink()
    for variable, value, says in (
        ("VISUAL", f"'{code}'", "no longer exists"),
        ("VISUAL", "", "no longer exists"),  # EDITOR, then
        ("EDITOR", "", "no editor is configured"),
    ):
        monkeypatch.setenv(variable, value)
        assert command(monkeypatch, "query", repository / "index", "gargoyle", "--by", "words", "--open") == 2
        assert says in capsys.readouterr().err
    place.write_text("")
    for broken in ("'half a quote", "/no/such/editor"):
        monkeypatch.setenv("EDITOR", broken)
        assert command(monkeypatch, "query", repository / "index", "gargoyle", "--by", "words", "--open") == 2
        assert "does not start" in capsys.readouterr().err


@pytest.fixture
def real(tmp_path, reference_encoder):
    """(the arguments of a real `search.py index`, its repository, its index) with a tiny random encoder."""
    folder = tmp_path / "real"
    folder.mkdir()
    for i in range(20):
        (folder / f"m{i:02}.py").write_text(f"def walk{chr(97 + i)}(tree):\n    return tree, {i}\n" * 2)
    (folder / "esc.py").write_text("def escape():\n    return '\x1b[2J gargoyle'\n")
    out = tmp_path / "real index"
    made = ["--model", reference_encoder[1], "--query-prefix", "", "--passage-prefix", ""]
    return ["search.py", "index", str(folder), "--out", str(out), *map(str, made)], folder, out


def test_a_conversation_in_a_terminal_and_queries_from_a_pipe(real, terminal, editor, monkeypatch):  # noqa: F811
    assert command(monkeypatch, *real[0][1:]) == 0
    for name in ("EDITOR", "VISUAL"):
        monkeypatch.setitem(test_chat.ENVIRONMENT, name, os.environ.get(name, ""))
    query = ["search.py", "query", str(real[2]), "--k", "3"]
    there = terminal([*query, "--by", "words"], columns=60)
    assert "62 units. Type a query, or the number of a result" in there.until("\n> ")
    shown = there.say("a gargoyle").splitlines()
    assert shown[0].startswith(" 1  esc.py:1") and shown[0].endswith("def escape():")
    assert "return '\N{REPLACEMENT CHARACTER}[2J \033[1;31mgargoyle\033[0m'" in shown[1]
    assert all(len(line.replace("\033[1;31m", "").replace("\033[0m", "")) <= 60 for line in shown)
    there.say("1")
    assert editor.read_text().splitlines() == ["--wait", "+1", str(real[1] / "esc.py")]
    assert there.say("") == "" and "m00.py" in there.say("9 walka")
    there.type("\x04")
    assert there.process.wait() == 0
    piped, _ = Child(*query, "--json", stdin="gargoyle\n\nwalkb\n").communicate()
    rows = [json.loads(line) for line in piped.splitlines()]
    assert [(row["query"], row["rank"]) for row in rows] == [(q, r) for q in ("gargoyle", "walkb") for r in (1, 2, 3)]


def test_two_writers_at_once(real, monkeypatch, capsys):
    """Both end: one with the index, the other too or refused in a line."""
    writers = [Child(*real[0]) for _ in range(2)]
    said = [writer.communicate()[1] for writer in writers]
    assert 0 in [writer.returncode for writer in writers]
    for writer, error in zip(writers, said, strict=True):
        assert writer.returncode == 0 or ("another process is writing" in error and error.count("\n") == 1)
    assert len(open_index(real[2]).units) == 62
    with writing(real[2]):
        assert command(monkeypatch, *real[0][1:]) == 2
    assert "another process is writing this index" in capsys.readouterr().err


@pytest.mark.slow
def test_ten_kills_of_an_update_lose_nothing(real, tmp_path):
    command, repository, index = real
    draw = random.Random(0)

    def change(files):
        for i in files:
            (repository / f"more{i}.py").write_text(f"def more{i}(tree):\n    return {draw.random()}, tree\n")

    def update():
        """One that holds the lock now; another one where ours of the moment, to see whether it does, refused it."""
        while True:
            process = Child(*command)
            while process.returncode is None:
                if is_held(index / LOCK):
                    return process

    change(range(400))
    assert Child(*command).wait() == 0
    change(range(400))
    process, start = update(), time.monotonic()
    while is_held(index / LOCK):
        pass
    seconds = time.monotonic() - start
    assert process.wait() == 0
    kills = was_old = 0
    while kills < 10:
        before = open_index(index)
        change(draw.sample(range(400), 300))
        process = update()
        time.sleep(draw.uniform(0, seconds))
        if not is_held(index / LOCK):  # too late: all is written
            seconds *= 0.8
            process.wait()
            continue
        process.send_signal(signal.SIGKILL)
        process.wait()
        after = open_index(index)
        assert after.units in (before.units, read_contents(str(repository)).units)
        was_old += after.units == before.units
        kills += 1
    assert was_old > 0
    assert Child(*command).wait() == 0
    assert Child(*command[:4], tmp_path / "fresh", *command[5:]).wait() == 0
    updated, fresh = open_index(index), open_index(tmp_path / "fresh")
    assert np.abs(updated.vectors - fresh.vectors).max() < 1e-6
    one, other = contents(index), contents(tmp_path / "fresh")
    assert len(one) == len(other) == 6  # nothing is left of those that were killed
    if np.array_equal(updated.vectors, fresh.vectors):  # batches of other texts may round otherwise
        assert one == other


def is_held(lock):
    time.sleep(0.002)
    with open(lock, "ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
