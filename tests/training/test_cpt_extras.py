"""train_cpt.py with its extras: fill-in-the-middle, import order, replay, a probe of forgetting."""

from __future__ import annotations

import json

import pytest
from tokenizers import AddedToken, Tokenizer

import train_cpt
from common.console import UserError
from data.corpus import build_corpus
from data.fim import FAMILIES, fim_tokens
from data.import_order import repository_text
from data.masking import plain_document
from data.packing import pieces
from model import load_tokenizer

NAMES = ("alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A repository in which each file imports the next."""
    folder = tmp_path_factory.mktemp("source") / "small"
    folder.mkdir()
    for n, name in enumerate(NAMES):
        body = "".join(f"def {name}_{i}(node):\n    return node + {i * n}\n\n\n" for i in range(6))
        (folder / f"{name}.py").write_text(f"import {NAMES[(n + 1) % 8]}\n\n\n" + body)
    return folder


@pytest.fixture(scope="module")
def fim_folder(tiny_folder, tmp_path_factory):
    """The tiny model with Qwen's fill-in-the-middle tokens."""
    folder = tmp_path_factory.mktemp("fim")
    for file in tiny_folder.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    backend = Tokenizer.from_file(str(folder / "tokenizer.json"))
    backend.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in FAMILIES["Qwen"]])
    backend.save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    file = tmp_path_factory.mktemp("other") / "other.jsonl"
    file.write_text("".join(json.dumps({"text": f"Number {n} of the other texts.\n" * 3}) + "\n" for n in range(20)))
    return file


def texts_of(source, folder, **options) -> train_cpt.Texts:
    options = train_cpt.Options(model=str(folder), corpus=str(source), out="", row_tokens=128, **options)
    return train_cpt.read_texts(build_corpus(str(source)), load_tokenizer(str(folder)), options)


def test_in_repository_order_all_files_are_one_document(source, tiny_folder, capsys):
    texts = texts_of(source, tiny_folder, repository_order=True)
    files = {file.path: file.text for file in texts.corpus.split("train")}
    whole = plain_document(load_tokenizer(str(tiny_folder)), repository_text(files))
    assert len(texts.rows) > 3 and all(len(row) == 1 for row in texts.rows)  # so that the files of a row see each other
    assert sorted(row[0].input_ids for row in texts.rows) == sorted(piece.input_ids for piece in pieces(whole, 128))
    assert "train: 5 files as one text" in capsys.readouterr().out


def test_fim_applies_at_its_rate_and_never_to_validation_rows(source, fim_folder, capsys):
    texts = texts_of(source, fim_folder, fim=0.5)
    middle = fim_tokens(load_tokenizer(str(fim_folder))).middle
    parts = [part for row in texts.rows for part in row]
    moved = [part for part in parts if middle in part.input_ids]
    assert 0 < len(moved) < len(parts)
    assert f"fill-in-the-middle in {len(moved)} of {len(parts)} pieces" in capsys.readouterr().out
    everything = texts_of(source, fim_folder, fim=1.0, repository_order=True)
    plain = texts_of(source, fim_folder)
    assert everything.validation == plain.validation and plain.validation
    assert everything.rows != plain.rows


def test_with_all_extras_every_piece_fits_a_row(source, fim_folder, other):
    texts = texts_of(source, fim_folder, fim=1.0, repository_order=True, replay=str(other), replay_share=0.3)
    middle = fim_tokens(load_tokenizer(str(fim_folder))).middle
    kinds = [middle in piece.input_ids for row in texts.rows for piece in row]
    assert any(kinds) and not all(kinds)  # the replayed texts are plain
    assert all(sum(len(piece.input_ids) for piece in row) <= 128 for row in texts.rows)


def test_replay_adds_its_share_and_prints_it(source, tiny_folder, other, capsys):
    plain = texts_of(source, tiny_folder).rows
    rows = texts_of(source, tiny_folder, replay=str(other), replay_share=0.2).rows
    count = lambda rows: sum(piece.supervised for row in rows for piece in row)  # noqa: E731
    assert 0.15 < 1 - count(plain) / count(rows) < 0.25
    assert "of 16 pieces" in capsys.readouterr().out


def test_a_model_without_the_tokens_is_refused_by_name(source, tiny_folder):
    with pytest.raises(UserError, match=r"--fim: .*<\|fim_prefix\|>"):
        texts_of(source, tiny_folder, fim=0.5)


def test_rows_longer_than_the_positions_are_refused(source, tiny_folder, tmp_path):
    given = ["--model", str(tiny_folder), "--corpus", str(source), "--out", str(tmp_path / "run")]
    with pytest.raises(UserError, match="--row-tokens 257 exceeds the model's 256 positions; give less"):
        train_cpt.main([*given, "--row-tokens", "257"])


def test_a_run_with_replay_reports_forgetting_beside_the_held_out_figures(source, tiny_folder, other, tmp_path, capsys):
    out, texts = tmp_path / "run", tmp_path / "other.jsonl"
    texts.write_text(other.read_text())
    command = ["--model", tiny_folder, "--corpus", source, "--out", out, "--replay", texts, "--repository-order"]
    command += ["--row-tokens", 128, "--step-tokens", 256, "--lr", 1e-2, "--dtype", "fp32"]
    track = train_cpt.main([str(part) for part in command])
    assert track["probe"].keys() == {"before", "after", "change"} and track["probe"]["change"]["perplexity"]["n"] == 4
    assert json.loads((out / "metrics.json").read_text())["tracks"]["cpt"]["probe"] == track["probe"]
    assert track["probe"]["before"] != track["before"]
    printed = capsys.readouterr().out
    assert (
        "other    16 texts to replay from, 4 to probe forgetting with" in printed and "forgetting, on texts" in printed
    )
    texts.write_text(other.read_text().replace("Number", "Figure"))
    with pytest.raises(UserError, match="the training data has changed"):
        train_cpt.main([*(str(part) for part in command), "--resume"])
