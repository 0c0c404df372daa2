"""Code found for a question, within a budget of tokens."""

from __future__ import annotations

import pytest

from data.search.context import HEADING, Passage, passages_for, with_passages
from data.search.index import build_index, open_index
from data.search.results import Search
from tests.word_encoder import WordEncoder

UNITS = [
    ("io.py:3", "function", 3, "def open_file(path):\n    return open(path)"),
    ("io.py:9", "function", 9, "def open_file_slowly(path):\n" + "    wait()\n" * 30 + "    return open(path)"),
    ("tree.py:1", "class", 1, "class Tree:\n    def depth(self): ..."),
    ("io.py", "file", 1, "# io.py\ndef open_file(path)"),
]


@pytest.fixture
def search(tmp_path):
    units = [
        {"id": name, "kind": kind, "code": code, "source": {"path": name.split(":")[0], "lines": [line, line + 1]}}
        for name, kind, line, code in UNITS
    ]
    units.append({"id": "mine", "code": "open_file = 1"})  # a candidate code of a training run: it has no place
    encoder = WordEncoder()
    vectors = encoder.encode([unit["code"] for unit in units], kind="passage").numpy()
    build_index(tmp_path, vectors, units, manifest=encoder.identity())
    return Search(open_index(tmp_path), encoder)


def words(text):
    return len(text.split())


def test_the_best_that_fit_are_taken_and_longer_ones_skipped(search):
    everything = passages_for(search, "open file", most_tokens=10_000, count_tokens=words)
    assert [passage.place for passage in everything[:2]] == ["io.py:3", "io.py:9"]
    assert "tree.py:1" in [passage.place for passage in everything] and "io.py" not in str(everything[2:])
    few = passages_for(search, "open file", most_tokens=20, count_tokens=words)
    assert [passage.place for passage in few] == ["io.py:3", "tree.py:1"]  # the second, too long, hides no other
    assert sum(words(f"{passage}\n\n") for passage in few) <= 20
    assert passages_for(search, "open file", most_tokens=2, count_tokens=words) == []


def test_what_is_not_allowed_is_not_shown(search):
    found = passages_for(
        search, "open file", most_tokens=10_000, count_tokens=words, allowed=lambda result: result["path"] != "io.py"
    )
    assert [passage.path for passage in found] == ["tree.py"]


def test_the_question_comes_last_and_is_alone_without_passages():
    passages = [Passage("a.py", 3, "x = '```'"), Passage("b.ts", 1, "let y")]
    assert with_passages("Why?", passages) == (
        f"{HEADING}\n\na.py:3\n````python\nx = '```'\n````\n\nb.ts:1\n```typescript\nlet y\n```\n\nWhy?"
    )
    assert with_passages("Why?", []) == "Why?"
    assert str(Passage("a.unknown", 1, "x")) == "a.unknown:1\n```\nx\n```"
