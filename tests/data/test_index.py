import json

import numpy as np
import pytest

from data.index import HNSW, build_index, measured_recall, open_index
from model.console import UserError

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


@pytest.fixture
def folder(tmp_path):
    build_index(tmp_path / "index", unit_vectors(300), [{"name": f"f{i}"} for i in range(300)], manifest=ENCODER)
    return tmp_path / "index"


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


def test_k_above_ef_and_above_the_count_is_answered(folder):
    index = open_index(folder)
    assert index.manifest["hnsw"]["ef"] < 200
    for k in (200, 300, 1000):
        ids, _ = index.search(unit_vectors(3, seed=3), k, made_by=ENCODER)
        assert ids.shape == (3, min(k, 300)) and all(len(set(row)) == len(row) for row in ids)


def test_equal_vectors_do_not_break_the_graph_nor_its_recall(tmp_path):
    vectors = np.repeat(unit_vectors(5), 60, axis=0)
    manifest = build_index(tmp_path / "index", vectors, [{"i": i} for i in range(300)], manifest=ENCODER)
    assert manifest["recall@10"] > 0.99
    ids, _ = open_index(tmp_path / "index").search(vectors[:2], 100, made_by=ENCODER)
    assert ids.shape == (2, 100)


def test_recall_is_measured_not_assumed(folder):
    index = open_index(folder)
    assert index.manifest["recall@10"] > 0.98
    # Against other vectors than the graph's own, what it finds is not near the best.
    assert measured_recall(unit_vectors(300, seed=9), index.graph) < 0.9


def test_the_same_vectors_give_the_same_files(folder, tmp_path):
    build_index(tmp_path / "again", unit_vectors(300), [{"name": f"f{i}"} for i in range(300)], manifest=ENCODER)
    assert (tmp_path / "again/manifest.json").read_bytes() == (folder / "manifest.json").read_bytes()


def test_the_manifest_says_what_made_the_vectors(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    assert ENCODER.items() <= manifest.items()
    assert manifest["metric"] == "cosine" and manifest["count"] == 300 and manifest["hnsw"] == HNSW
    assert set(manifest["files"]) == {"vectors.npy", "graph.hnsw", "units.jsonl"}


@pytest.mark.parametrize("key", ["weights_sha256", "pooling", "query_prefix", "passage_prefix", "normalize"])
def test_a_query_of_another_kind_is_refused(folder, key):
    with pytest.raises(UserError, match=key):
        open_index(folder).search(unit_vectors(1), made_by=ENCODER | {key: "other"})


def test_the_same_weights_under_another_name_are_the_same_model(folder):
    open_index(folder).search(unit_vectors(1), made_by=ENCODER | {"model": "/some/copy"})


@pytest.mark.parametrize("name", ["vectors.npy", "graph.hnsw", "units.jsonl"])
@pytest.mark.parametrize("damage", ["cut", "flipped", "gone"])
def test_a_damaged_file_is_found_and_the_way_out_told(folder, name, damage):
    content = bytearray((folder / name).read_bytes())
    if damage == "gone":
        (folder / name).unlink()
    else:
        content[len(content) // 2] ^= 1
        (folder / name).write_bytes(content if damage == "flipped" else content[:-10])
    with pytest.raises(UserError, match=rf"{name}: (damaged|missing).*build it again: python search.py index"):
        open_index(folder)


@pytest.mark.parametrize("text", ["", "{", '{"format": "other"}', '{"format": "tritune index 1", "count": 3}'])
def test_a_damaged_manifest_is_found(folder, text):
    (folder / "manifest.json").write_text(text)
    with pytest.raises(UserError, match="build it again"):
        open_index(folder)
    (folder / "manifest.json").unlink()
    with pytest.raises(UserError, match=r"manifest.json is missing.*build it again"):
        open_index(folder)


def test_a_failure_leaves_the_old_index(folder):
    before = (folder / "manifest.json").read_bytes()
    with pytest.raises(TypeError):
        build_index(folder, unit_vectors(2), [{"a": 1}, {"a": object()}], manifest=ENCODER)
    assert (folder / "manifest.json").read_bytes() == before and open_index(folder)
    assert [path.name for path in folder.parent.iterdir()] == ["index"]


def test_a_folder_that_is_no_index_is_never_replaced(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match="is not an index"):
        build_index(tmp_path, unit_vectors(1), [{}], manifest=ENCODER)
    assert (tmp_path / "thesis.txt").exists()


def test_vectors_that_are_not_cosine_ready_are_refused(tmp_path):
    for bad in (2 * unit_vectors(3), np.full((3, 24), np.nan)):
        with pytest.raises(ValueError, match="unit length"):
            build_index(tmp_path / "index", bad, [{}] * 3, manifest=ENCODER)
    with pytest.raises(ValueError, match=r"\[N, 24\]"):
        build_index(tmp_path / "index", unit_vectors(3)[:, :8], [{}] * 3, manifest=ENCODER)
    with pytest.raises(ValueError, match="3 vectors for 2 units"):
        build_index(tmp_path / "index", unit_vectors(3), [{}] * 2, manifest=ENCODER)
