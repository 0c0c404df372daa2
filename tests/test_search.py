import hashlib
import json
from types import SimpleNamespace

import pytest
import torch

import search
from data.index import build_index
from model.console import run_command

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


class WordEncoder:
    """Bag of hashed words: texts that share words are near."""

    embedding = SimpleNamespace(max_length=12)

    def __init__(self, weights="0", query_prefix=None):
        self.weights, self.prefix = weights, query_prefix or ""

    def reach_the_limit(self, texts, kind):
        return sum(len(text.replace("_", " ").replace("(", " ").split()) >= 12 for text in texts)

    def encode(self, texts, kind):
        vectors = torch.full((len(texts), 64), 1e-3)
        for i, text in enumerate(texts):
            for word in text.replace("_", " ").replace("(", " ").split():
                vectors[i, int(hashlib.sha256(word.encode()).hexdigest(), 16) % 64] += 1
        return torch.nn.functional.normalize(vectors, dim=-1)

    def describe(self):
        return {
            "model": "words",
            "weights_sha256": self.weights * 64,
            "pooling": "mean",
            "query_prefix": self.prefix,
            "passage_prefix": "",
            "normalize": True,
            "dimension": 64,
        }


@pytest.fixture
def repository(tmp_path, monkeypatch):
    (tmp_path / "repository").mkdir()
    (tmp_path / "repository/library.py").write_text(CODE)
    (tmp_path / "repository/broken.py").write_text("def x(:\n" * 20)
    monkeypatch.setattr(search, "load_encoder", loads("0"))
    return tmp_path


def loads(weights):
    """A load_encoder that gives the words' encoder."""
    return lambda name, *, query_prefix=None, **settings: WordEncoder(weights, query_prefix)


def command(monkeypatch, *arguments):
    monkeypatch.setattr("sys.argv", ["search.py", *map(str, arguments)])
    return run_command(search.main)


def test_a_repository_is_indexed_and_searched(repository, monkeypatch, capsys):
    index = repository / "index"
    assert command(monkeypatch, "index", repository / "repository", "--out", index) == 0
    said = capsys.readouterr().out
    assert "3 functions of 1 files" in said and "left out: 1 files" in said
    assert "reach the model's 12 tokens" in said
    assert command(monkeypatch, "query", index, "shortest path", "--k", 2) == 0
    first, second = capsys.readouterr().out.splitlines()
    line = CODE.split("\n").index("def shortest_path(graph, start, goal):") + 1
    assert first.startswith(f"library.py:{line} ") and first.endswith("def shortest_path(graph, start, goal):")
    assert float(first.split()[1]) > float(second.split()[1])


@pytest.mark.parametrize("exact", [[], ["--exact"]])
def test_json_holds_the_whole_code_and_more_than_there_is_may_be_asked_for(repository, monkeypatch, capsys, exact):
    command(monkeypatch, "index", repository / "repository", "--out", repository / "index")
    capsys.readouterr()
    assert command(monkeypatch, "query", repository / "index", "open the file", "--json", "--k", 50, *exact) == 0
    found = json.loads(capsys.readouterr().out)
    assert found[0]["qualname"] == "open_file" and len(found) == 3
    assert found[0]["code"].startswith("@functools.cache\ndef open_file(path):")
    assert found[0]["lines"] == [6, 10]


def test_a_query_by_another_model_is_refused_in_one_line(repository, monkeypatch, capsys):
    command(monkeypatch, "index", repository / "repository", "--out", repository / "index")
    monkeypatch.setattr(search, "load_encoder", loads("1"))
    capsys.readouterr()
    assert command(monkeypatch, "query", repository / "index", "open") == 2
    said = capsys.readouterr()
    assert "weights_sha256" in said.err and said.err.count("\n") == 1 and said.out == ""


def test_a_query_is_made_as_the_index_says_that_its_vectors_were(repository, monkeypatch, capsys):
    command(monkeypatch, "index", repository / "repository", "--out", repository / "index", "--query-prefix", "query: ")
    assert json.loads((repository / "index/manifest.json").read_text())["query_prefix"] == "query: "
    assert command(monkeypatch, "query", repository / "index", "open") == 0


def test_the_index_that_a_run_leaves_is_searched_too(repository, monkeypatch, capsys):
    codes = [
        {"id": "a", "code": "def open_file(path):", "source": {"path": "io.py", "lines": [3, 9]}},
        {"id": "mine", "code": "x = 1"},
    ]
    encoder = WordEncoder()
    vectors = encoder.encode([row["code"] for row in codes], kind="passage").numpy()
    build_index(repository / "index", vectors, codes, manifest=encoder.describe())
    assert command(monkeypatch, "query", repository / "index", "open file") == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("io.py:3 ") and second.startswith("mine ")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["query", "{}/nowhere", "text"], "no index here"),
        (["query", "{}/nowhere", " "], "the query is empty"),
        (["query", "{}/nowhere", "text", "--k", "0"], "at least one result"),
        (["index", "{}/empty", "--out", "{}/index"], "no function"),
        (["index", "{}/repository", "--out", "{}"], "is not an index"),
    ],
)
def test_bad_input_gets_one_line_and_leaves_nothing(repository, monkeypatch, capsys, arguments, says):
    (repository / "empty").mkdir()
    (repository / "empty/constants.py").write_text("".join(f"NAME_{i} = {i * i}\n" for i in range(30)))
    assert command(monkeypatch, *[argument.format(repository) for argument in arguments]) == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1
    assert not (repository / "index").exists() and (repository / "repository").exists()
