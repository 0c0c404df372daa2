"""Static tables against the package model2vec and sentence-transformers, in both directions."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from common.console import UserError
from common.files import read_json
from model import distil as module
from model import load_encoder
from model.distil import distil, frequency_weights, principal_components
from model.encoder_files import save_encoder
from model.static import StaticEncoder
from tests.commands import run

TEXTS = ["a b c", "def x return", "c b a a", "x " * 700, "\N{SNOWMAN}"]


@pytest.fixture(scope="module")
def table(reference_encoder, tmp_path_factory):
    """A tiny encoder's static table, and its folder."""
    encoder = distil(load_encoder(str(reference_encoder[1])), dimension=24)
    folder = tmp_path_factory.mktemp("static") / "table"
    save_encoder(encoder, folder)
    return encoder, folder


def test_a_saved_table_is_model2vecs_and_sentence_transformers(table):
    encoder, folder = table
    ours = encoder.encode(TEXTS).numpy()
    assert ours.shape == (5, 24) and np.allclose(np.linalg.norm(ours[:4], axis=1), 1)
    theirs = pytest.importorskip("model2vec").StaticModel.from_pretrained(folder)
    assert theirs.encode(TEXTS) == pytest.approx(ours, abs=1e-6)
    short = [text for text in TEXTS if len(text) < 100]  # sentence-transformers does not cut
    peer = pytest.importorskip("sentence_transformers").SentenceTransformer(str(folder), device="cpu")
    assert peer.encode(short)[:3] == pytest.approx(encoder.encode(short).numpy()[:3], abs=1e-6)
    again = load_encoder(str(folder))
    assert isinstance(again, StaticEncoder) and torch.equal(again.encode(TEXTS), encoder.encode(TEXTS))
    assert again.identity()["dimension"] == 24 and len(again.weights_sha256) == 64


def test_the_table_is_that_of_the_recipe_with_the_reference_implementations(reference_encoder):
    # transformers' vector of each token alone ([CLS] pooling), scikit-learn's components, model2vec's weights
    network, folder = reference_encoder
    rows = torch.tensor([[2, token, 3] for token in range(56)])
    with torch.no_grad():
        vectors = network(rows).last_hidden_state[:, 0].numpy()
    components = pytest.importorskip("sklearn.decomposition").PCA(n_components=24, svd_solver="full")
    theirs = components.fit_transform(vectors) * frequency_weights(56)[:, None]
    ours = distil(load_encoder(str(folder)), dimension=24).embeddings.detach().numpy()
    theirs[:4] = 0  # [PAD], [UNK], [CLS], [SEP]
    assert np.abs(ours) == pytest.approx(np.abs(theirs), abs=1e-5)  # a direction may point either way
    assert ours @ ours.T == pytest.approx(theirs @ theirs.T, abs=1e-5)


def test_their_folder_with_weights_and_a_smaller_vocabulary_is_read(table, tmp_path):
    model2vec = pytest.importorskip("model2vec")
    _, folder = table
    theirs = model2vec.StaticModel.from_pretrained(folder)
    count = len(theirs.embedding)
    theirs.weights = np.linspace(0.5, 2, count).astype(np.float32)
    theirs.token_mapping = np.arange(count)[::-1].copy()
    theirs.save_pretrained(tmp_path / "theirs")
    ours = load_encoder(str(tmp_path / "theirs"))
    assert ours.encode(TEXTS[:4]).numpy() == pytest.approx(theirs.encode(TEXTS[:4]), abs=1e-6)


def test_the_formulas():
    # a / (a + p), p by Zipf's law
    p = 1 / np.arange(2, 7)
    assert frequency_weights(5) == pytest.approx(1e-4 / (1e-4 + p / p.sum()), rel=1e-5)
    assert np.all(np.diff(frequency_weights(100)) > 0)  # the frequent ones first

    # the directions of largest variance: as many of them as there are keep all distances
    vectors = np.random.default_rng(0).normal(size=(50, 6)) * [5, 1, 3, 0.1, 2, 0.5] + 7
    whole, two = principal_components(vectors, 6), principal_components(vectors, 2)
    assert np.abs(two) == pytest.approx(np.abs(whole[:, :2]), abs=1e-4)
    centred = vectors - vectors.mean(0)
    assert whole @ whole.T == pytest.approx(centred @ centred.T, abs=1e-3)
    assert whole.var(0) == pytest.approx(np.sort(np.linalg.eigvalsh(np.cov(centred.T, bias=True)))[::-1], rel=1e-3)


def test_text_outside_the_vocabulary_has_no_say(table):
    encoder, _ = table
    assert not encoder.encode(["\N{SNOWMAN}"]).any()
    assert torch.equal(encoder.encode(["a \N{SNOWMAN} b"]), encoder.encode(["a b"]))
    assert not encoder.embeddings[:4].any()  # [PAD], [UNK], [CLS], [SEP]


def test_the_table_of_an_encoder_is_made_once(reference_encoder, monkeypatch, tmp_path):
    monkeypatch.setenv("TRITUNE_CACHE", str(tmp_path))
    monkeypatch.setattr(module, "distil", lambda encoder: distil(encoder, dimension=16))
    name = str(reference_encoder[1])
    folder = module.cached_table(name)
    monkeypatch.setattr(module, "distil", None)
    assert module.cached_table(name) == folder and folder.is_relative_to(tmp_path)
    encoder = load_encoder(str(folder), query_prefix="query ")
    assert torch.equal(encoder.encode(["a"], kind="query"), load_encoder(str(folder)).encode(["query a"]))


def test_the_command(reference_encoder, tmp_path):
    arguments = ("-m", "model.distil", reference_encoder[1], "--out", tmp_path / "table", "--dimension", 8)
    done = run(*arguments)
    assert done.returncode == 0 and "56 tokens × 8 in " in done.stdout
    assert load_encoder(str(tmp_path / "table")).encode(["a"]).shape == (1, 8)
    again = run(*arguments)
    assert again.returncode == 2 and again.stderr.endswith("exists; give another --out\n")


def test_what_is_no_table_is_refused(table, tmp_path):
    encoder, folder = table
    with pytest.raises(UserError, match="takes the mean of its tokens, not --pooling cls"):
        load_encoder(str(folder), pooling="cls")
    with pytest.raises(UserError, match="its vectors have 24 components, not 25"):
        distil(encoder, dimension=25)
    raw = read_json(folder / "config.json")
    assert raw["model_type"] == "model2vec" and raw["hidden_dim"] == 24
