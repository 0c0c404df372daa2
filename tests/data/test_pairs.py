from collections import Counter

import pytest

from data.corpus import build_corpus
from data.pairs import FILE_SHARE, build_text_code_pairs


@pytest.fixture(scope="module")
def pairs(small_corpus):
    return build_text_code_pairs(small_corpus)


def test_every_pair_points_to_its_candidate(pairs):
    candidates = {one["id"]: one for one in pairs.candidates}
    assert len(candidates) == len(pairs.candidates)
    for pair in [*pairs.train, *pairs.test]:
        assert candidates[pair["code_id"]]["code"] == pair["code"]


def test_queries_are_held_out_by_file_and_candidates_are_of_all_files(small_corpus, pairs):
    split = {file.path: file.split for file in small_corpus.files}
    assert {split[pair["source"]["path"]] for pair in pairs.train} == {"train"}
    assert {split[pair["source"]["path"]] for pair in pairs.test} == {"test"}
    assert {one["source"]["path"] for one in pairs.candidates} == set(split)
    assert Counter(one["kind"] for one in pairs.candidates) == {"function": 16, "file": 8}


def test_code_holds_no_docstring(pairs):
    for pair in [*pairs.train, *pairs.test]:
        assert '"""' not in pair["code"] and "always counts" not in pair["code"]


def test_files_are_asked_for_in_their_share_at_most(small_corpus, pairs):
    for rows in (pairs.train, pairs.test):
        assert sum(pair["kind"] == "file" for pair in rows) <= FILE_SHARE * len(rows)
    assert any(pair["kind"] == "file" for pair in pairs.train)
    assert len(build_text_code_pairs(small_corpus, count=4).train) == 4


def module(functions):
    return '"""A module of things."""\n' + "\n".join(functions) + "\n" + "\n".join(f"x{i} = {i}" for i in range(12))


def function(name, docstring, body="return x"):
    return f'def {name}(x):\n    """{docstring}"""\n    y = {name!r}\n    {body}\n'


def test_queries_that_say_nothing_or_are_asked_twice_are_dropped_and_counted(tmp_path):
    functions = [
        function("good", "Find the largest element of x."),
        function("add_new_node", "Add new node."),
        function("brief", "A thing."),
        function("twin", "Collapse the edges of a tree."),
        function("sibling", "Collapse the edges of a tree."),
        function("marked", "Pick :func:`~a.b.best` of ``x`` [1]_."),
        function("same", "One of two equal things.").replace("'same'", "1"),
        "class Box:\n    "
        + function("same", "Another of equal things.").replace("'same'", "1").replace("\n", "\n    "),
    ]
    (tmp_path / "things.py").write_text(module(functions))
    pairs = build_text_code_pairs(build_corpus(str(tmp_path)))
    queries = {pair["query"].lower() for pair in pairs.train if pair["kind"] == "function"}
    assert {"find the largest element of x", "pick best of x"} <= {query.strip("?") for query in queries}
    reasons = Counter(reject["reason"] for reject in pairs.rejects)
    assert reasons["no docstring that makes a query"] == 2
    assert reasons["code equal to another"] == 1
    assert reasons["query equal to another"] == 2 and "collapse the edges of a tree" not in queries
    assert not any("``" in query or ":func:" in query for query in queries)


def test_the_voice_of_a_query_is_drawn_by_seed(small_corpus, pairs):
    assert build_text_code_pairs(small_corpus) == pairs
    queries = [{pair["query"] for pair in build_text_code_pairs(small_corpus, seed=seed).train} for seed in (0, 1)]
    assert queries[0] != queries[1]
    words = " ".join(queries[0] | queries[1])
    assert "function that computes the sum" in words and "compute the sum" in words
