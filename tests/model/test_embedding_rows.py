"""Tokens that the embedding has no row for, and rows that no token belongs to."""

from __future__ import annotations

import ast
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Tokenizer

from common.console import UserError
from data.fim import FAMILIES, fim_tokens
from data.masking import encode_prompt, plain_document, supervise
from model import Sampling, Stop, generate, load_encoder, load_tokenizer
from model.export.gguf import write_gguf
from model.weights import load_decoder

ROOT = Path(__file__).resolve().parents[2]
QUESTION = [{"role": "user", "content": "a"}]
WORD, PAD = AddedToken("networkx", normalized=False), AddedToken("<pad>", special=True)


def tokenizer_of(folder: Path, source: Path, *, added=(), rows: int | None = None, drop: int = 0, **settings):
    """The tokenizer of `source` with more tokens, and a model of `rows` rows (None: as many as tokens, less `drop`)."""
    backend = Tokenizer.from_file(str(source / "tokenizer.json"))
    backend.add_tokens(list(added))
    folder.mkdir(exist_ok=True)
    backend.save(str(folder / "tokenizer.json"))
    known = json.loads((source / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(known | settings))
    rows = backend.get_vocab_size() - drop if rows is None else rows
    (folder / "config.json").write_text(json.dumps({"vocab_size": rows}))
    return load_tokenizer(str(folder))


@pytest.mark.parametrize("read", [
    lambda t: encode_prompt(t, QUESTION),
    lambda t: supervise(t, [*QUESTION, {"role": "assistant", "content": "b"}]),
    lambda t: plain_document(t, "a"),  # the end token
    lambda t: t.prefix_ids,
    lambda t: t.encode_for_encoder(["a"], 8),
])  # fmt: skip
def test_markup_beyond_the_embedding_is_refused_with_what_to_do(tokenizer_folder, tmp_path, read):
    tokens = {"eos_token": "<|im_end|>", "bos_token": "<|im_start|>", "add_bos_token": True}
    backend = Tokenizer.from_file(str(tokenizer_folder / "tokenizer.json"))
    start = backend.token_to_id("<|im_start|>")
    post = {"SpecialToken": {"id": "<|im_start|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}
    definition = json.loads(backend.to_str())
    definition["post_processor"] = {
        "type": "TemplateProcessing", "single": list(post), "pair": [*post, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<|im_start|>": {"id": "<|im_start|>", "ids": [start], "tokens": ["<|im_start|>"]}},
    }  # fmt: skip
    shutil.copytree(tokenizer_folder, tmp_path / "source")
    (tmp_path / "source" / "tokenizer.json").write_text(json.dumps(definition))
    short = tokenizer_of(tmp_path / "short", tmp_path / "source", drop=2, **tokens)
    with pytest.raises(UserError, match=r"<\|im_\w+\|>.* with the id \d+.*only \d+ rows.*resize_token_embeddings"):
        read(short)
    read(tokenizer_of(tmp_path / "whole", tmp_path / "source", **tokens))


def test_only_tokens_that_occur_count(tokenizer_folder, tmp_path):
    short = tokenizer_of(tmp_path / "short", tokenizer_folder, added=[PAD, WORD], drop=2, pad_token="<pad>")
    assert set(short.without_row.values()) == {"<pad>", "networkx"}
    assert encode_prompt(short, [{"role": "user", "content": "<pad>"}])  # a control token's text is plain text
    assert short.encode("import network as x") and short.encode_batch(["x"])
    for read in (short.encode, lambda text: short.encode_batch(["x", text])):
        with pytest.raises(UserError, match="'networkx'"):
            read("import networkx")
    with pytest.raises(UserError, match="'networkx'"):
        encode_prompt(short, [{"role": "user", "content": "use networkx"}])


def test_a_family_s_fim_tokens_need_rows(tokenizer_folder, tmp_path):
    added = [AddedToken(token, special=True) for token in FAMILIES["Qwen"]]
    assert fim_tokens(tokenizer_of(tmp_path / "whole", tokenizer_folder, added=added)).prefix > 0
    with pytest.raises(UserError, match="fim_middle"):
        fim_tokens(tokenizer_of(tmp_path / "short", tokenizer_folder, added=added, drop=1))


def test_a_gguf_file_and_an_encoder_know_their_rows(tiny_folder, tiny, reference_encoder, tmp_path):
    write_gguf(tiny, load_tokenizer(str(tiny_folder)), tmp_path / "tiny.gguf", type="f32", name="tiny")
    read = load_tokenizer(str(tmp_path / "tiny.gguf"))
    assert read.embedding_rows == 400 and read.unused_ids == load_tokenizer(str(tiny_folder)).unused_ids != []

    folder = Path(shutil.copytree(reference_encoder[1], tmp_path / "encoder"))
    tokenizer_of(folder, folder, added=[WORD], rows=0)
    config = json.loads((reference_encoder[1] / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"vocab_size": 56}))
    tensors = load_file(folder / "model.safetensors")
    rows = tensors["embeddings.word_embeddings.weight"]
    save_file(tensors | {"embeddings.word_embeddings.weight": rows[:56].clone()}, folder / "model.safetensors")
    encoder = load_encoder(str(folder))
    assert encoder.encode(["network"]).shape == (1, 48)
    with pytest.raises(UserError, match="'networkx'"):
        encoder.encode(["networkx"], kind="query")


@pytest.mark.parametrize("rules", [{}, {"temperature": 5.0, "samples": 4}, {"temperature": 5.0, "top_k": 300}], ids=str)
def test_an_id_without_a_token_is_never_generated(tiny, rules):
    stop, sampling = Stop(max_new_tokens=12, ids=()), Sampling(**rules)
    prompts = [[5, 9, 11], [8]]
    unused = [*range(1, 300), *range(320, 400)]

    def said(**more) -> set[int]:
        answers = generate(tiny, prompts, stop, sampling, **more)
        return {id_ for of_prompt in answers for ids in of_prompt for id_ in ids}

    assert said() & set(unused) and not said(unused_ids=unused) & set(unused)


def test_a_padded_row_is_unused_however_likely_it_is(tiny_folder, tmp_path):
    tokenizer, decoder = load_tokenizer(str(tiny_folder)), load_decoder(str(tiny_folder))
    assert tokenizer.unused_ids == list(range(tokenizer.backend.get_vocab_size(), 400))
    with torch.no_grad():
        decoder.model.embed_tokens.weight[tokenizer.unused_ids] *= 1000
    (answers,) = generate(decoder, [[5, 6]], Stop(max_new_tokens=9, ids=()), unused_ids=tokenizer.unused_ids)
    assert max(answers[0]) < tokenizer.unused_ids[0]


def test_every_command_that_generates_says_which_ids_are_unused():
    """By reading the source: a place that forgets them answers with empty tokens, which no figure shows."""
    for path in [*ROOT.glob("*.py"), *(ROOT / "eval").rglob("*.py"), *(ROOT / "training").rglob("*.py")]:
        source = path.read_text(encoding="utf-8")
        for function in ast.walk(ast.parse(source)):
            if isinstance(function, ast.FunctionDef):
                calls = [node.func for node in ast.walk(function) if isinstance(node, ast.Call)]
                if any(isinstance(call, ast.Name) and call.id == "generate" for call in calls):
                    assert "unused_ids" in ast.get_source_segment(source, function), f"{path}: {function.name}"
