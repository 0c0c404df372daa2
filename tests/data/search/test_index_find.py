"""What answers a query: by meaning, by words, by both; and what is shown of it."""

import numpy as np
import pytest

from data.search import find as find_module
from data.search.bm25 import BM25
from data.search.find import candidates, find
from data.search.index import build_index, open_index
from data.search.ranking import order
from data.search.snippet import distinctive_words, head, marked, matching_line, printable
from tests.data.search.test_index import ENCODER, unit_vectors

CODES = ["def tree(): walk", "def walk(): tree tree", "class Graph: edges", "def edges(): graph"]


@pytest.fixture(params=[False, True], ids=["exact", "graph"])
def index(tmp_path, request):
    units = [{"code": code, "source": {"path": f"p{i}.py", "qualname": f"q{i}"}} for i, code in enumerate(CODES)]
    build_index(tmp_path / "index", unit_vectors(4), units, manifest=ENCODER, graph=request.param)
    return open_index(tmp_path / "index")


def test_the_three_orders(index):
    vector = unit_vectors(4)[2]
    asked = {"vector": vector, "made_by": ENCODER}
    rows, cosines = find(index, "tree", 4, by="meaning", **asked)
    assert rows[0] == 2 and cosines == pytest.approx(np.sort(unit_vectors(4) @ vector)[::-1], abs=1e-6)
    rows, scores = find(index, "tree", 4, by="words")
    assert rows.tolist() == [1, 0] and scores == pytest.approx(sorted(index.words.scores("tree"))[:1:-1])
    rows, scores = find(index, "tree", 4, **asked)
    expected = order("tree", index.places, np.arange(4), unit_vectors(4) @ vector, index.words.scores("tree"), 4)
    assert rows.tolist() == expected[0].tolist() and scores == pytest.approx(expected[1], abs=1e-6)
    assert find(index, "nothing of it", 4, by="words")[0].tolist() == []


def test_what_is_ordered_is_near_or_has_the_words_or_the_name(index, monkeypatch):
    monkeypatch.setattr(find_module, "DEPTH", 1)
    vector = unit_vectors(4)[2]
    words = index.words.scores("edges")  # of 2 and 3: as many of the best as are near
    assert candidates("edges", index.places, np.array([0]), words).tolist() == [0, int(words.argmax())]
    assert candidates("q1", index.places, np.array([0]), index.words.scores("no")).tolist() == [0, 1]
    rows, _ = find(index, "tree", 1, by="both", vector=vector, made_by=ENCODER)
    assert len(rows) == 1 and rows[0] in (1, 2)


def test_words_are_found_in_path_and_qualified_name_too(index):
    assert find(index, "p2", 1, by="words")[0].tolist() != []
    assert index.words.scores("q 3").argmax() == 3


def test_bm25_comes_back_from_its_file_as_it_was(tmp_path):
    for documents in (CODES, ["", "!"]):
        bm25 = BM25(documents)
        bm25.save(tmp_path / "words.npz")
        loaded = BM25.load(tmp_path / "words.npz")
        for query in ("tree of edges", "graph graph", "", "unknown"):
            assert np.array_equal(loaded.scores(query), bm25.scores(query))
        assert loaded.rarity("tree") == bm25.rarity("tree") and loaded.size == len(documents)
    first = (tmp_path / "words.npz").read_bytes()
    BM25(["", "!"]).save(tmp_path / "words.npz")
    assert (tmp_path / "words.npz").read_bytes() == first


def test_the_matching_line_holds_the_rare_words():
    bm25 = BM25(["the tree", "the graph", "the edge the", "tree depth"])
    distinctive = distinctive_words("the depth of treeEdge", bm25)
    assert distinctive.keys() == {"depth", "edg"}  # every second unit, or more, holds the others; or none does
    code = "def walk(tree):\n    the = of\n    edge = 1\n    return depth(edge)"
    assert matching_line(code, distinctive) == "return depth(edge)"
    assert matching_line("def walk(tree): ...", distinctive) == ""
    assert marked("treeDepth = depths + DEPTH + deep", {"depth"}) == (
        "tree\033[1;31mDepth\033[0m = \033[1;31mdepths\033[0m + \033[1;31mDEPTH\033[0m + deep"
    )


def test_the_head_is_the_line_that_names_the_unit():
    for code, expected in (
        ("@cache\n@wraps(\n    f)\nasync def run(self):\n    def inner(): ...", "async def run(self):"),
        ("/** function of\n * class */\nexport default class Box {", "export default class Box {"),
        ("/** Doc. */\nput(item) {\n}", "put(item) {"),
        ("/** Doc. */ put(item) {\n}", "put(item) {"),
        ("// Says.\n// More.\n[Serializable]\npublic class Cart\n{", "public class Cart"),
        ("/// A point.\n#[derive(Debug)]\npub struct Point {", "pub struct Point {"),
        ("# Says.\ndef depth(node)\nend", "def depth(node)"),
        ("template <typename T>\ndouble area() {", "double area() {"),
        ("-- Says.\nlocal function depth(node)", "local function depth(node)"),
        ("-- | Says.\ndepth :: Node -> Int\ndepth (Node x) = 1", "depth (Node x) = 1"),
        ('@doc """\nSays.\n"""\n@spec depth(x)\ndef depth(node), do: 1', "def depth(node), do: 1"),
        ("x = 1", "x = 1"),
        ("# only a comment", "# only a comment"),
    ):
        assert head({"kind": "function", "code": code}) == head({"code": code}) == expected
    assert head({"kind": "file", "code": "# a/b.py\nclass Box: put"}) == "# a/b.py"


def test_what_is_shown_cannot_steer_the_terminal():
    assert printable("a\tb\033[2Jü\r") == "a   b\N{REPLACEMENT CHARACTER}[2Jü\N{REPLACEMENT CHARACTER}"
