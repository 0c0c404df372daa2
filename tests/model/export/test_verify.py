from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from tokenizers import AddedToken

import model.export.gguf
import model.export.verify
import model.gguf.tensors
from common.console import UserError
from model import load_tokenizer
from model.export.convert import export
from model.export.verify import TRICKY_TEXTS
from model.gguf.tokenizer import PRE, read_tokenizer, tokenizer_metadata
from model.tokenizer import Tokenizer
from tests.model.export.families import build


def with_added_tokens(folder: Path, *tokens) -> Tokenizer:
    """The tokenizer of a folder, with tokens added, as it is read from there."""
    backend = load_tokenizer(str(folder)).backend
    backend.add_tokens(list(tokens))
    backend.save(str(folder / "tokenizer.json"))
    return load_tokenizer(str(folder))


def through_metadata(source: Tokenizer) -> Tokenizer:
    others = {"general.architecture": "llama", "tokenizer.chat_template": source.chat_template}
    return Tokenizer(*read_tokenizer(tokenizer_metadata(source, 400) | others))


@pytest.mark.parametrize(
    ("content", "settings", "is_kept"),
    [
        ("<TAX>", {"normalized": False}, True),
        ("<TAX>", {"normalized": True}, True),  # this tokenizer normalizes nothing
        ("<|extra|>", {"special": True, "lstrip": True}, True),  # a control token is never read out of a text
        ("two words", {}, True),
        ("\n\n", {}, True),
        ("<TAX>", {"lstrip": True}, False),
        ("<TAX>", {"rstrip": True}, False),
        ("tax", {"single_word": True}, False),
        ("日本", {"single_word": True, "lstrip": True, "rstrip": True}, False),
    ],
)
def test_an_added_token_is_read_from_a_gguf_as_before_or_named(tokenizer_folder, tmp_path, content, settings, is_kept):
    shutil.copytree(tokenizer_folder, tmp_path / "t")
    source = with_added_tokens(tmp_path / "t", AddedToken(content, **settings))
    again = through_metadata(source)
    if is_kept:
        model.export.verify.check_tokenizer(source, again)
        return
    flags = ", ".join(name for name in ("lstrip", "rstrip", "single_word", "normalized") if name in settings)
    with pytest.raises(UserError, match=re.escape(f"the added token {content!r} ({flags}, normalized)")):
        model.export.verify.check_tokenizer(source, again)


def test_a_token_that_is_looked_for_in_the_normalized_text_is_named(tokenizer_folder, tmp_path):
    shutil.copytree(tokenizer_folder, tmp_path / "t")
    source = load_tokenizer(str(tmp_path / "t"))
    definition = json.loads(source.backend.to_str())
    steps = {"type": "Sequence", "pretokenizers": [{"trim_offsets": False} | step for step in PRE["qwen2"]]}
    definition |= {"normalizer": {"type": "NFC"}, "pre_tokenizer": steps}
    (tmp_path / "t" / "tokenizer.json").write_text(json.dumps(definition))
    for content, normalized, is_kept in (("<kept>", True, True), ("café", False, True), ("naïve", True, False)):
        source = with_added_tokens(tmp_path / "t", AddedToken(content, normalized=normalized))
        again = through_metadata(source)
        if is_kept:
            model.export.verify.check_tokenizer(source, again)
            continue
        with pytest.raises(UserError, match="the added token 'naïve' \\(normalized\\)"):
            model.export.verify.check_tokenizer(source, again)


def test_a_model_with_a_token_that_gguf_cannot_hold_exports_only_to_a_folder(tokenizer_folder, tmp_path):
    folder = build("qwen3", tmp_path / "m", tokenizer_folder)
    with_added_tokens(folder, AddedToken("<TAX>", lstrip=True, rstrip=True))
    with pytest.raises(UserError, match=r"<TAX>' \(lstrip, rstrip, normalized\).*nothing was written. Use --to hf"):
        export(str(folder), "gguf", tmp_path / "out" / "x.gguf", type="f32")
    assert list((tmp_path / "out").iterdir()) == []
    report = export(str(folder), "hf", tmp_path / "hf")
    assert report["same_ids_of_texts"] == len(TRICKY_TEXTS) + 1 + 4


def test_a_wrong_row_order_is_caught_and_nothing_is_left(tokenizer_folder, tmp_path, monkeypatch):
    folder = build("llama", tmp_path / "model", tokenizer_folder)
    monkeypatch.setattr(model.gguf.tensors, "half_split_rows", lambda tensor, heads: tensor)
    with pytest.raises(UserError, match="differ from the source's by"):
        export(str(folder), "gguf", tmp_path / "out" / "x.gguf", type="q8_0")
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize(
    ("key", "change", "named"),
    [
        ("tokenizer.ggml.merges", lambda merges: merges[:5], "tokenizes .* differently from the source"),
        ("tokenizer.ggml.eos_token_id", lambda eos: eos + 1, "BOS and stop tokens"),
    ],
)
def test_another_tokenizer_is_caught_and_nothing_is_left(key, change, named, tiny_folder, tmp_path, monkeypatch):
    def wrong(*arguments):
        metadata = tokenizer_metadata(*arguments)
        return metadata | {key: change(metadata[key])}

    monkeypatch.setattr(model.export.gguf, "tokenizer_metadata", wrong)
    with pytest.raises(UserError, match=named):
        export(str(tiny_folder), "gguf", tmp_path / "out" / "x.gguf", type="f16")
    assert not list((tmp_path / "out").iterdir())
