"""An index brought up to date: what is encoded, what is kept, and what a stopped run leaves."""

import hashlib

import numpy as np
import pytest

from common.console import UserError
from data.search import update
from data.search.contents import read_contents
from data.search.index import open_index, writing
from data.search.update import earlier_index, update_index
from tests.data.search.test_index import ENCODER, Stopped, contents


class Encoder:
    """A vector out of a text's hash; counts what it is asked for, and may stop."""

    def __init__(self, stop_after=None):
        self.texts, self.left = [], stop_after

    def __call__(self, texts):
        self.texts += texts
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise Stopped
        seeds = [int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) for text in texts]
        vectors = np.stack([np.random.default_rng(seed).normal(size=24) for seed in seeds]).astype(np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def bring_up_to_date(folder, repository, encode, **description):
    earlier, _ = earlier_index(folder)
    known = {"files": earlier.files, "units": earlier.units} if earlier else {}
    found = read_contents(str(repository), **known)
    made = ENCODER | {"max_length": 64} | description
    return update_index(folder, found, encode, description=made, earlier=earlier)


@pytest.fixture
def repository(tmp_path):
    (tmp_path / "repo").mkdir()
    for i in range(50):
        (tmp_path / f"repo/m{i:02}.py").write_text(f"def f{i}():\n    return {i}\n\n\ndef g{i}():\n    return f{i}()\n")
    return tmp_path / "repo"


def test_of_fifty_files_only_the_units_of_the_one_that_changed_are_encoded(repository, tmp_path):
    encode = Encoder()
    _, encoded = bring_up_to_date(tmp_path / "index", repository, encode)
    assert len(encoded) == len(encode.texts) == 150
    _, encoded = bring_up_to_date(tmp_path / "index", repository, encode)
    assert encoded == [] and len(encode.texts) == 150
    (repository / "m07.py").write_text("def f7():\n    return 'seven'\n\n\ndef g7():\n    return f7()\n")
    (repository / "m08.py").rename(repository / "m99.py")
    again = Encoder()
    bring_up_to_date(tmp_path / "index", repository, again)
    assert again.texts == ["def f7():\n    return 'seven'", "# m99.py\ndef f8()\ndef g8()"]
    bring_up_to_date(tmp_path / "fresh", repository, Encoder())
    assert contents(tmp_path / "index") == contents(tmp_path / "fresh")


def test_equal_texts_are_encoded_once(repository, tmp_path):
    for i in range(10):
        (repository / f"m{i:02}.py").write_text("def same():\n    return 1\n")
    encode = Encoder()
    bring_up_to_date(tmp_path / "index", repository, encode)
    assert encode.texts.count("def same():\n    return 1") == 1
    index = open_index(tmp_path / "index")
    rows = [i for i, unit in enumerate(index.units) if unit["code"].startswith("def same")]
    assert len(rows) == 10 and np.ptp(index.vectors[rows], axis=0).max() == 0


@pytest.mark.parametrize("key", ["weights_sha256", "pooling", "passage_prefix", "max_length"])
def test_vectors_made_otherwise_are_not_kept(repository, tmp_path, key):
    bring_up_to_date(tmp_path / "index", repository, Encoder())
    _, encoded = bring_up_to_date(tmp_path / "index", repository, Encoder(), **{key: "other"})
    assert len(encoded) == 150 and open_index(tmp_path / "index").manifest[key] == "other"


def test_a_stopped_run_goes_on_with_what_it_had_encoded(repository, tmp_path, monkeypatch):
    monkeypatch.setattr(update, "CHUNK", 20)
    stopped = Encoder(stop_after=3)
    with pytest.raises(Stopped):
        bring_up_to_date(tmp_path / "index", repository, stopped)
    (journal,) = (tmp_path / "index").glob("encoded-*.bin")
    with pytest.raises(UserError, match="its first run was stopped; resume"):
        open_index(tmp_path / "index")
    row = journal.stat().st_size // 60
    journal.write_bytes(journal.read_bytes()[:-5])  # the last row half written
    again = Encoder(stop_after=1)
    with pytest.raises(Stopped):
        bring_up_to_date(tmp_path / "index", repository, again)
    assert again.texts[0] == stopped.texts[59] and journal.stat().st_size == 79 * row
    other = Encoder(stop_after=0)
    with pytest.raises(Stopped):  # an update by another model in between takes nothing from it, and leaves it
        bring_up_to_date(tmp_path / "index", repository, other, weights_sha256="b" * 64)
    assert other.texts == stopped.texts[:20]
    damaged = bytearray(journal.read_bytes())
    damaged[70 * row + 40] ^= 1  # in a vector
    journal.write_bytes(damaged)
    went_on = Encoder()
    _, encoded = bring_up_to_date(tmp_path / "index", repository, went_on)
    assert went_on.texts == encoded and encoded[0] == again.texts[11] and len(encoded) == 80
    bring_up_to_date(tmp_path / "fresh", repository, Encoder())
    assert contents(tmp_path / "index") == contents(tmp_path / "fresh")


def test_what_was_encoded_is_kept_before_the_next_texts_are(repository, tmp_path, monkeypatch):
    monkeypatch.setattr(update, "CHUNK", 20)  # 2,640 bytes: less than a file's buffer holds back
    encode, kept = Encoder(), []

    def watched(texts):
        (journal,) = (tmp_path / "index").glob("encoded-*.bin")
        kept.append(journal.stat().st_size)
        return encode(texts)

    bring_up_to_date(tmp_path / "index", repository, watched)
    assert kept == [chunk * 20 * (32 + 24 * 4 + 4) for chunk in range(8)]


def test_a_model_whose_weights_have_diverged_is_reported_and_leaves_nothing(repository, tmp_path):
    with pytest.raises(UserError, match="vectors are not finite"):
        bring_up_to_date(tmp_path / "index", repository, lambda texts: np.full((len(texts), 24), np.nan))
    (journal,) = (tmp_path / "index").glob("encoded-*.bin")
    assert journal.stat().st_size == 0


def test_a_damaged_index_is_told_and_built_anew(repository, tmp_path):
    bring_up_to_date(tmp_path / "index", repository, Encoder())
    before = contents(tmp_path / "index")
    (path,) = (tmp_path / "index").rglob("vectors.npy")
    path.write_bytes(path.read_bytes()[:-4] + b"\0\0\0\0")
    earlier, why = earlier_index(tmp_path / "index")
    assert earlier is None and "vectors.npy: damaged" in why
    _, encoded = bring_up_to_date(tmp_path / "index", repository, Encoder())
    assert len(encoded) == 150 and contents(tmp_path / "index") == before
    assert earlier_index(tmp_path / "none") == (None, "")


def test_of_two_writers_the_second_is_refused_before_it_encodes(repository, tmp_path):
    encode = Encoder()
    with writing(tmp_path / "index"), pytest.raises(UserError, match="another process is writing"):
        bring_up_to_date(tmp_path / "index", repository, encode)
    assert encode.texts == []
