from collections import Counter
from dataclasses import replace

import pytest

from common.console import UserError
from data.corpus import build_corpus
from data.corpus.languages import packages_of
from data.pairs import FILE_SHARE, build_text_code_pairs, load_text_code_pairs
from data.pairs.build import save_text_code_pairs


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
    assert reasons["docstring that says its name alone"] == reasons["docstring of too few words"] == 1
    assert reasons["code equal to another"] == 1
    assert reasons["query equal to another"] == 2 and "collapse the edges of a tree" not in queries
    assert not any("``" in query or ":func:" in query for query in queries)


def test_the_voice_of_a_query_is_drawn_by_seed(small_corpus, pairs):
    assert build_text_code_pairs(small_corpus) == pairs
    queries = [{pair["query"] for pair in build_text_code_pairs(small_corpus, seed=seed).train} for seed in (0, 1)]
    assert queries[0] != queries[1]
    words = " ".join(queries[0] | queries[1])
    assert "function that computes the sum" in words and "compute the sum" in words


ALL = ("docstring", "call", "name", "file")


def test_functions_without_docstrings_are_asked_for_by_name_or_call(tmp_path):
    caller = "def route_length(x):\n    bridge = second_thing(x)\n    return bridge\n"
    functions = [caller, *(f"def {name}_thing(x):\n    y = {name!r}\n    return y\n" for name in ("first", "second"))]
    (tmp_path / "things.py").write_text(module(functions))
    corpus = build_corpus(str(tmp_path))
    with pytest.raises(UserError, match="no function of the train files makes a query"):
        build_text_code_pairs(corpus, origins=("docstring",))
    pairs = build_text_code_pairs(corpus, origins=ALL)
    origins = {pair["source"]["qualname"]: pair["origin"] for pair in pairs.train}
    assert origins["second_thing"] == "call" and origins["first_thing"] == "name"
    assert "bridge" in next(pair["query"] for pair in pairs.train if pair["origin"] == "call")


def test_every_code_is_in_a_pair_or_among_the_rejects(small_corpus):
    pairs = build_text_code_pairs(small_corpus, keep_top=1, count=6, test_count=2, origins=ALL)
    told = {pair["code_id"] for pair in [*pairs.train, *pairs.test]} | {one.get("id") for one in pairs.rejects}
    assert {one["id"] for one in pairs.candidates} <= told
    assert {"over the count", "in a validation file"} <= {one["reason"] for one in pairs.rejects}


def with_file(corpus, functions, path="pkg/more.py", split="train"):
    """The corpus with one file more."""
    text = "".join(f"def {name}(x):\n    {body}\n    y = x\n    return y\n\n" for name, body in functions.items())
    return replace(corpus, files=(*corpus.files, replace(corpus.files[0], path=path, text=text, split=split)))


def test_names_are_asked_for_where_nothing_better_is_left(small_corpus):
    corpus = with_file(small_corpus, {"climb_the_hill": "z = 1", "swim_the_lake": "z = 2"})
    few = build_text_code_pairs(corpus, origins=ALL, count=8)
    assert "name" not in {pair["origin"] for pair in few.train} and len(few.train) == 8
    many = build_text_code_pairs(corpus, origins=ALL)
    assert {pair["source"]["qualname"] for pair in many.train if pair["origin"] == "name"} == {
        "climb_the_hill",
        "swim_the_lake",
    }


def test_several_queries_a_code_are_of_the_training_side_and_differ(small_corpus):
    pairs = build_text_code_pairs(small_corpus, queries_per_code=3, origins=ALL)
    counts = Counter(pair["code_id"] for pair in pairs.train if pair["kind"] == "function")
    assert set(counts.values()) == {3} and max(Counter(pair["code_id"] for pair in pairs.test).values()) == 1
    ids = [pair["id"] for pair in pairs.train]
    assert len(set(ids)) == len(ids) and len({pair["query"].lower() for pair in pairs.train}) == len(ids)


def test_a_name_is_asked_for_after_everything_else_that_a_code_says(small_corpus):
    corpus = with_file(small_corpus, {"climb_the_hill": '"""Find the top of a hill."""'})
    for most, origins in ((3, ["docstring"] * 3), (4, ["docstring"] * 3 + ["name"])):
        pairs = build_text_code_pairs(corpus, queries_per_code=most, origins=ALL)
        found = sorted((pair["id"], pair["origin"]) for pair in pairs.train if pair["code_id"] == "pkg/more.py:1")
        assert [origin for _, origin in found] == origins


def test_the_queries_of_a_code_are_drawn_together(small_corpus):
    pairs = build_text_code_pairs(small_corpus, queries_per_code=3, origins=("docstring",), count=6)
    assert sorted(Counter(pair["code_id"] for pair in pairs.train).values()) == [3, 3]


def test_inconsistent_pairs_are_dropped_from_the_training_side_alone(small_corpus):
    found = {
        "climb": '"""Reach the top of a hill."""',
        "reach_top_of_hill": "hill = top = 1",
        "top_of_hill": "reach = 3",
    }
    for split in ("train", "test"):
        corpus = with_file(small_corpus, found, split=split)
        whole, filtered = (build_text_code_pairs(corpus, keep_top=top) for top in (0, 2))
        assert filtered.test == whole.test
        lost = {pair["code_id"] for pair in whole.train} - {pair["code_id"] for pair in filtered.train}
        dropped = {one["id"] for one in filtered.rejects if one["reason"] == "not in the top 2 for its query"}
        assert lost == dropped == ({"pkg/more.py:1"} if split == "train" else set())


def test_negatives_are_codes_of_the_training_files(small_corpus):
    pairs = build_text_code_pairs(small_corpus, negatives=2)
    split = {file.path: file.split for file in small_corpus.files}
    codes = {one["id"]: one for one in pairs.candidates}
    assert any(pair["negatives"] for pair in pairs.train) and not any(pair["negatives"] for pair in pairs.test)
    for pair in pairs.train:
        assert pair["negatives"] == [codes[one]["code"] for one in pair["negative_ids"]]
        assert {split[codes[one]["source"]["path"]] for one in pair["negative_ids"]} <= {"train"}
        assert pair["code_id"] not in pair["negative_ids"]


def test_the_renamed_variant_asks_the_same_of_code_without_its_words(small_corpus):
    pairs = build_text_code_pairs(small_corpus, rename=True, negatives=2)
    renamed = {pair["id"]: pair for pair in pairs.renamed.train}
    both = [(pair, renamed[pair["id"]]) for pair in pairs.train if pair["id"] in renamed]
    assert len(both) >= 8
    for before, after in both:
        assert after["query"] == before["query"] and after["code_id"] == before["code_id"]
        name = before["source"]["qualname"]
        assert f"def {name}(" in before["code"] and name not in after["code"]
    assert {one["kind"] for one in pairs.renamed.candidates} == {"function"}
    assert Counter(one["reason"] for one in pairs.renamed.rejects)["a file's outline is nothing but names"] == 8
    codes = [one["code"] for one in pairs.renamed.candidates]
    assert len(set(codes)) == len(codes)


def test_codes_that_renaming_makes_equal_are_dropped_from_the_variant(small_corpus):
    corpus = with_file(small_corpus, {"climb_the_hill": "hill = 1", "swim_the_lake": "lake = 1"})
    pairs = build_text_code_pairs(corpus, rename=True, origins=ALL, negatives=2)
    dropped = {one["id"] for one in pairs.renamed.rejects if one["reason"] == "code equal to another"}
    assert dropped == {"pkg/more.py:6"} < {pair["code_id"] for pair in pairs.train}
    assert not dropped & {pair["code_id"] for pair in pairs.renamed.train}
    assert not dropped & {one for pair in pairs.renamed.train for one in pair["negative_ids"]}


def test_what_is_written_is_read_again_with_its_options_and_templates(small_corpus, tmp_path):
    pairs = build_text_code_pairs(small_corpus, rename=True, seed=3)
    save_text_code_pairs(pairs, tmp_path)
    again = load_text_code_pairs(tmp_path)
    assert again.train == pairs.train and again.rejects == pairs.rejects and again.renamed.test == pairs.renamed.test
    assert again.about["options"]["seed"] == 3 and again.about["corpus"]["sha256"] == small_corpus.sha256()
    assert "how to {base}" in again.about["templates"]["docstring"]


def test_typescript_functions_make_pairs_and_are_left_out_where_identifiers_are_renamed(tmp_path):
    for package in packages_of(["typescript"]):
        pytest.importorskip(package, reason=f"reading TypeScript needs {package}")
    for i, noun in enumerate(("hills", "lakes", "woods", "roads")):
        text = f"/** Counts the {noun} of a map. */\nexport function count{i}(map: Map) {{\n  return map.{noun};\n}}\n"
        rest = "".join(f"export const {noun}{line} = '{noun} {line * i}';\n" for line in range(12))
        (tmp_path / f"{noun}.ts").write_text(text + rest)
    corpus = build_corpus(str(tmp_path), languages=["typescript"], test_share=0.25, validation_share=0)
    pairs = build_text_code_pairs(corpus, origins=("docstring",), rename=True)
    assert len(pairs.train) == 3 and len(pairs.test) == 1
    for pair in pairs.train:
        assert pair["code"].startswith("export function count") and "/**" not in pair["code"]
        assert pair["source"]["path"].split(".")[0] in pair["query"].split()
    assert pairs.renamed.train == [] == pairs.renamed.candidates
    reasons = Counter(one["reason"] for one in pairs.renamed.rejects)
    assert reasons == {"identifiers are renamed in Python alone": 4, "a file's outline is nothing but names": 4}


def test_a_typescript_file_is_a_candidate_by_its_outline(small_corpus):
    text = "/** Watches files for changes. */\nimport x from 'y';\nexport class Watcher {\n  go() {}\n}\nconst a = 1;\n"
    file = replace(small_corpus.files[0], path="src/watch.ts", text=text, split="train")
    pairs = build_text_code_pairs(replace(small_corpus, files=(*small_corpus.files, file)))
    (unit,) = (one for one in pairs.candidates if one["id"] == "src/watch.ts")
    assert unit["code"] == "# src/watch.ts\nexport class Watcher\nconst a"
