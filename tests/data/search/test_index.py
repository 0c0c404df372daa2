import json
import os
from pathlib import Path

import hnswlib
import numpy as np
import pytest

from common.console import UserError
from data.search import index as data_index
from data.search.index import build_index, open_index, writing
from data.search.nearest import HNSW, Graph, best, exact_search, measured_recall

ENCODER = {
    "model": "tiny",
    "weights_sha256": "a" * 64,
    "pooling": "mean",
    "query_prefix": "query: ",
    "passage_prefix": "passage: ",
    "normalize": True,
    "dimension": 24,
}


def unit_vectors(n, seed=0):
    vectors = np.random.default_rng(seed).normal(size=(n, 24)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def units(n):
    return [{"name": f"f{i}", "code": f"def f{i}(): return word{i % 7}"} for i in range(n)]


def build(folder, vectors, **options):
    return build_index(folder, vectors, units(len(vectors)), manifest=ENCODER, graph=True, **options)


@pytest.fixture
def folder(tmp_path):
    build(tmp_path / "index", unit_vectors(300))
    return tmp_path / "index"


def contents(folder):
    """{relative path: bytes} of an index, but for what only writers read."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_exact_search_is_the_sorted_cosine(folder):
    queries = unit_vectors(20, seed=1)
    ids, scores = open_index(folder).search(queries, 7, made_by=ENCODER, exact=True)
    cosines = queries @ unit_vectors(300).T
    assert np.array_equal(ids, np.argsort(-cosines, axis=1)[:, :7])
    assert np.allclose(scores, np.sort(cosines, axis=1)[:, ::-1][:, :7], atol=1e-6)


def test_the_graph_finds_what_exact_search_finds(folder):
    index, queries = open_index(folder), unit_vectors(50, seed=2)
    exact, exact_scores = index.search(queries, made_by=ENCODER, exact=True)
    found, scores = index.search(queries, made_by=ENCODER)
    overlap = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(exact, found, strict=True)])
    assert overlap > 0.98
    assert np.allclose(scores[:, 0], exact_scores[:, 0], atol=1e-5)
    assert [index.units[i]["name"] for i in found[0]] == [f"f{i}" for i in found[0]]


def test_equal_scores_stand_in_the_order_of_the_units():
    scores = np.array([0.5, 0.9, 0.5, 0.9, 0.1, 0.5])
    for k in range(1, 7):
        assert best(scores, k).tolist() == [1, 3, 0, 2, 5, 4][:k]


def test_a_graph_is_built_above_so_many_vectors_or_if_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(data_index, "EXACT_UP_TO", 40)
    for n, graph, there in ((40, None, False), (41, None, True), (41, False, False), (5, True, True)):
        manifest = build_index(tmp_path / "index", unit_vectors(n), units(n), manifest=ENCODER, graph=graph)
        index = open_index(tmp_path / "index")
        assert ((index.graph is not None), ("graph.hnsw" in manifest["files"])) == (there, there)
        assert (manifest["recall@10"] is not None) == (manifest["hnsw"] is not None) == there
        assert index.search(unit_vectors(3)[:1], 2, made_by=ENCODER)[0][0, 0] == 0


def test_k_above_ef_and_above_the_count_is_answered(folder):
    index = open_index(folder)
    assert index.manifest["hnsw"]["ef"] < 200
    for k in (200, 300, 1000):
        ids, _ = index.search(unit_vectors(3, seed=3), k, made_by=ENCODER)
        assert ids.shape == (3, min(k, 300)) and all(len(set(row)) == len(row) for row in ids)


def test_equal_vectors_do_not_break_the_graph_nor_its_recall(tmp_path):
    vectors = np.repeat(unit_vectors(5), 60, axis=0)
    manifest = build(tmp_path / "index", vectors)
    assert manifest["recall@10"] > 0.99
    ids, _ = open_index(tmp_path / "index").search(vectors[:2], 100, made_by=ENCODER)
    assert ids.shape == (2, 100)


def clustered(spread):
    """400 vectors around one point, 100 elsewhere."""
    around = unit_vectors(1) + spread * np.random.default_rng(0).normal(size=(400, 24)).astype(np.float32)
    return np.concatenate([around / np.linalg.norm(around, axis=1, keepdims=True), unit_vectors(100, seed=1)])


@pytest.mark.parametrize("spread", [0, 1e-7])  # the last bits differ where one text was encoded in two batches
def test_many_equal_vectors_do_not_hide_the_others(tmp_path, spread):
    vectors = clustered(spread)
    assert build(tmp_path / "index", vectors)["recall@10"] == 1
    index = open_index(tmp_path / "index")
    for k in (1, 10, 401, 500, 5000):
        rows, cosines = index.search(vectors[[0, 450]], k, made_by=ENCODER)
        _, exact = index.search(vectors[[0, 450]], k, made_by=ENCODER, exact=True)
        assert rows[1, 0] == 450 and all(len(set(row)) == len(row) for row in rows.tolist())
        assert np.allclose(cosines, exact, atol=1e-5)
    assert {path.name for path in (tmp_path / "index").rglob("*.npy")} == {"vectors.npy", "equals.npy"}


def test_exact_search_answers_the_queries_for_which_a_graph_reaches_too_few():
    """Here the graph also has the equal vectors, from among which the others cannot be reached."""
    vectors = clustered(0)
    links = hnswlib.Index(space="ip", dim=24)
    links.init_index(500, HNSW["ef_construction"], HNSW["M"], random_seed=0)
    links.add_items(vectors, np.arange(500), num_threads=1)
    with pytest.raises(RuntimeError, match="2D array"):
        links.set_ef(500)
        links.knn_query(vectors[:1], k=450)
    for k in (10, 450, 500):
        rows, cosines = Graph(links, np.arange(500)).search(vectors, vectors[:2], k)
        expected, exact = exact_search(vectors, vectors[:2], k)
        assert rows.shape == (2, k) and np.allclose(cosines, exact, atol=1e-6)
        assert k < 450 or np.array_equal(rows, expected)


def test_another_error_of_the_graph_is_not_hidden():
    graph = Graph.build(unit_vectors(3))
    with pytest.raises(RuntimeError, match="1D or 2D"):  # hnswlib's, of a query that is an array of arrays
        graph.search(unit_vectors(3), unit_vectors(3)[None, None], 1)


def test_recall_is_measured_not_assumed(folder):
    index = open_index(folder)
    assert index.manifest["recall@10"] > 0.98
    # Against other vectors than the graph's own, what it finds is not near the best.
    assert measured_recall(unit_vectors(300, seed=9), index.graph) < 0.9


def test_the_same_vectors_give_the_same_files(folder, tmp_path):
    build(tmp_path / "again", unit_vectors(300))
    assert contents(tmp_path / "again") == contents(folder)


def test_the_manifest_says_what_made_the_vectors(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    assert ENCODER.items() <= manifest.items()
    assert manifest["metric"] == "cosine" and manifest["count"] == 300 and manifest["hnsw"] == HNSW
    assert set(manifest["files"]) == {path.name for path in (folder / manifest["generation"]).iterdir()}


def test_a_model_in_a_folder_is_found_from_other_folders(tmp_path, monkeypatch):
    (tmp_path / "runs/model").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    for name, written in (("runs/model", str(tmp_path / "runs/model")), ("org/model", "org/model")):
        build_index("index", unit_vectors(2), units(2), manifest=ENCODER | {"model": name})
        assert open_index("index").manifest["model"] == written


@pytest.mark.parametrize("key", ["weights_sha256", "pooling", "query_prefix", "passage_prefix", "normalize"])
def test_a_query_of_another_kind_is_refused(folder, key):
    with pytest.raises(UserError, match=key):
        open_index(folder).search(unit_vectors(1), made_by=ENCODER | {key: "other"})


def test_the_same_weights_under_another_name_are_the_same_model(folder):
    open_index(folder).search(unit_vectors(1), made_by=ENCODER | {"model": "/some/copy"})


@pytest.mark.parametrize("name", ["vectors.npy", "graph.hnsw", "equals.npy", "units.jsonl", "words.npz", "files.jsonl"])
@pytest.mark.parametrize("damage", ["cut", "flipped", "gone"])
def test_a_damaged_file_is_found_and_the_way_out_told(tmp_path, name, damage):
    def write():
        files = [{"path": "a.py", "sha256": "0", "reason": None}]
        with writing(tmp_path / "index"):
            data_index.write_index(
                tmp_path / "index", unit_vectors(30), units(30), manifest=ENCODER, graph=True, files=files
            )

    write()
    (path,) = (tmp_path / "index").rglob(name)
    content = path.read_bytes()
    places = (0, len(content) // 2, len(content) - 1)
    flipped = [bytes([*content[:place], content[place] ^ 1, *content[place + 1 :]]) for place in places]
    bad = {"cut": [content[:-10]], "gone": [None], "flipped": flipped}[damage]
    for one in bad:
        path.unlink() if one is None else path.write_bytes(one)
        with pytest.raises(UserError, match=rf"{name}: (damaged|missing).*build it again: python search.py index"):
            open_index(tmp_path / "index")
    write()
    assert len(open_index(tmp_path / "index").units) == 30


def test_a_byte_of_the_manifest_that_changed_is_found(folder):
    content = (folder / "manifest.json").read_bytes()
    for place in range(0, len(content), 7):
        flipped = bytearray(content)
        flipped[place] ^= 1
        (folder / "manifest.json").write_bytes(flipped)
        with pytest.raises(UserError, match="build it again"):
            open_index(folder)


@pytest.mark.parametrize("text", ["", "{", '{"format": "other"}', '{"format": "tritune index 2", "count": 3}'])
def test_a_damaged_manifest_is_found(folder, text):
    (folder / "manifest.json").write_text(text)
    with pytest.raises(UserError, match="build it again"):
        open_index(folder)
    (folder / "manifest.json").unlink()
    with pytest.raises(
        UserError, match=r"manifest.json is missing.*its first run was stopped; resume: python search.py"
    ):
        open_index(folder)
    build(folder, unit_vectors(20))
    assert len(open_index(folder).units) == 20 and len(list(folder.iterdir())) == 3


class Stopped(BaseException):
    """As a kill: nothing handles it."""


def test_a_writer_that_is_stopped_at_any_step_leaves_the_old_index_or_the_new_one(tmp_path, monkeypatch):
    """Stopped before each change of the disk in turn, until it gets to its end."""
    steps, last = 0, None

    def stopping(function):
        def step(*arguments, **keywords):
            nonlocal steps
            steps += 1
            if steps == last:
                raise Stopped
            return function(*arguments, **keywords)

        return step

    folder, old, new = tmp_path / "index", unit_vectors(20), unit_vectors(30)
    build(folder, old)
    before = contents(folder)
    build(tmp_path / "new", new)
    after = contents(tmp_path / "new")
    for module, name in (
        (os, "replace"), (os, "fsync"), (np, "save"), (data_index.shutil, "rmtree"), (Path, "unlink"), (Path, "mkdir"),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, stopping(getattr(module, name)))
    seen, last = set(), 0
    while True:
        steps, last = 0, last + 1
        try:
            build(folder, new)
        except Stopped:
            count = len(open_index(folder).units)
            seen.add(count)
            assert count in (20, 30)
            if count == 30:  # back to the old one
                steps, last, place = 0, -1, last
                build(folder, old)
                last = place
                assert contents(folder) == before
        else:
            break
    assert seen == {20, 30} and last > 12
    monkeypatch.undo()
    (folder / ".manifest.json.x7").write_text("{")  # what a real kill leaves there
    build(folder, new)
    assert contents(folder) == after


def test_a_second_writer_is_refused_and_disturbs_nothing(folder):
    before = contents(folder)
    with writing(folder):
        with pytest.raises(UserError, match="another process is writing this index"):
            build(folder, unit_vectors(5))
        assert contents(folder) == before
    build(folder, unit_vectors(5))
    assert len(open_index(folder).units) == 5


def test_who_opens_an_index_while_it_is_replaced_gets_the_new_one(folder, monkeypatch):
    read = data_index._read_manifest

    def replaced_after_reading(place):
        manifest = read(place)
        monkeypatch.setattr(data_index, "_read_manifest", read)
        build(folder, unit_vectors(5))
        return manifest

    monkeypatch.setattr(data_index, "_read_manifest", replaced_after_reading)
    assert len(open_index(folder).units) == 5


def test_an_index_that_is_open_answers_on_after_it_was_replaced(folder):
    index = open_index(folder)
    build(folder, unit_vectors(5))
    query = unit_vectors(300)[200:201]
    assert index.search(query, 1, made_by=ENCODER, exact=True)[0].tolist() == [[200]]


def test_a_failure_leaves_the_old_index(folder):
    before = contents(folder)
    with pytest.raises(TypeError):
        build_index(folder, unit_vectors(2), [{"code": ""}, {"code": "", "a": object()}], manifest=ENCODER)
    assert open_index(folder) and contents(folder).items() >= before.items()
    build(folder, unit_vectors(300))
    assert contents(folder) == before


def test_a_folder_that_is_no_index_is_never_replaced(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match="is not an index"):
        build_index(tmp_path, unit_vectors(1), [{}], manifest=ENCODER)
    assert (tmp_path / "thesis.txt").exists()


def test_vectors_that_are_not_cosine_ready_are_refused(tmp_path):
    for bad in (2 * unit_vectors(3), np.full((3, 24), np.nan)):
        with pytest.raises(ValueError, match="unit length"):
            build(tmp_path / "index", bad)
    with pytest.raises(ValueError, match=r"\[N, 24\]"):
        build_index(tmp_path / "index", unit_vectors(3)[:, :8], [{}] * 3, manifest=ENCODER)
    with pytest.raises(ValueError, match="3 vectors for 2 units"):
        build_index(tmp_path / "index", unit_vectors(3), [{}] * 2, manifest=ENCODER)
