"""How a vector is made stands in the model's files: it is read from there, or must be given, or is refused by name."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import torch

from common.console import UserError
from model import load_encoder, save_encoder
from model.encoder import pool

MODULES = [("", "models.Transformer"), ("1_Pooling", "models.Pooling"), ("2_Normalize", "models.Normalize")]


@pytest.fixture
def folder(reference_encoder, tmp_path) -> Path:
    """A BERT model, to change its files."""
    return Path(shutil.copytree(reference_encoder[1], tmp_path / "model"))


def _write(path: Path, value) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(value))


def _modules(*modules: tuple[str, str]) -> list[dict]:
    return [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.{kind}"}
        for i, (path, kind) in enumerate(modules)
    ]


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}, "mean"),
        ({"pooling_mode_lasttoken": True, "pooling_mode_mean_tokens": False}, "lasttoken"),
        ({"embedding_dimension": 48, "pooling_mode": "cls", "include_prompt": True}, "cls"),
        ({"pooling_mode": ["lasttoken"]}, "lasttoken"),
    ],
)
def test_pooling_is_read_in_its_older_and_its_newer_form(folder, config, expected):
    _write(folder / "1_Pooling" / "config.json", config)
    assert load_encoder(str(folder)).embedding.pooling == expected


def test_the_poolings_folder_is_the_one_that_modules_json_names(folder):
    _write(folder / "pool" / "config.json", {"pooling_mode": "lasttoken"})
    _write(folder / "modules.json", _modules(("", "base.modules.transformer.Transformer"), ("pool", "models.Pooling")))
    assert load_encoder(str(folder)).embedding.pooling == "lasttoken"


@pytest.mark.parametrize(
    ("file", "value", "named"),
    [
        ("1_Pooling/config.json", {"pooling_mode_max_tokens": True}, "pooling_mode_max_tokens"),
        ("1_Pooling/config.json", {"pooling_mode": ["mean", "cls"]}, re.escape("mean + cls")),
        ("1_Pooling/config.json", {"pooling_mode": "mean", "include_prompt": False}, "include_prompt"),
        ("1_Pooling/config.json", {}, "--pooling"),
        ("modules.json", _modules(*MODULES, ("3_Dense", "models.Dense")), "Dense"),
        ("modules.json", _modules(MODULES[0], MODULES[2], MODULES[1]), "order"),
        ("modules.json", _modules(MODULES[0]), "order"),
        ("modules.json", [{"path": "", "type": "modeling_own.Transformer"}], "modeling_own"),
        ("modules.json", _modules(MODULES[0], ("../1_Pooling", "models.Pooling")), "outside"),
        ("modules.json", {"0": "Transformer"}, "list of modules"),
        ("modules.json", [{"path": None, "type": 5}], "module 5"),
        ("sentence_bert_config.json", {"transformer_task": "fill-mask"}, "fill-mask"),
        ("sentence_bert_config.json", {"query_length": 32}, "query_length"),
        ("sentence_bert_config.json", {"max_seq_length": 65}, "65 tokens"),  # the network has 64 positions
        ("sentence_bert_config.json", {"max_seq_length": 2}, "2 tokens"),  # [CLS] and [SEP] alone
        ("config_sentence_transformers.json", {"prompts": {"classify": "c: "}}, "classify"),
        ("config_sentence_transformers.json", {"prompts": {"query": 5}}, "prompts"),
    ],
)
def test_a_setting_that_is_not_implemented_is_refused_by_name(folder, file, value, named):
    load_encoder(str(folder))
    _write(folder / file, value)
    with pytest.raises(UserError, match=named):
        load_encoder(str(folder))


@pytest.mark.parametrize(("similarity", "modules"), [("euclidean", 3), ("dot", 2)])
def test_a_similarity_other_than_the_cosine_is_refused(folder, similarity, modules):
    _write(folder / "modules.json", _modules(*MODULES))
    _write(folder / "config_sentence_transformers.json", {"similarity_fn_name": "dot"})  # of unit vectors: the cosine
    load_encoder(str(folder))
    _write(folder / "modules.json", _modules(*MODULES[:modules]))
    _write(folder / "config_sentence_transformers.json", {"similarity_fn_name": similarity})
    with pytest.raises(UserError, match=similarity):
        load_encoder(str(folder))


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"prompts": {"query": "q: ", "passage": "p: "}}, ("q: ", "p: ")),
        ({"prompts": {"query": "q: ", "document": ""}}, ("q: ", "")),
        ({"prompts": {"query": "q: "}, "default_prompt_name": None}, ("q: ", "")),
        ({"prompts": {"query": "q: ", "corpus": "c: "}, "default_prompt_name": "query"}, ("q: ", "c: ")),
        ({"prompts": {"any": "a: "}, "default_prompt_name": "any"}, ("a: ", "a: ")),
        ({"__version__": {}}, ("", "")),
    ],
)
def test_prefixes_are_the_prompts_of_the_files(folder, settings, expected):
    _write(folder / "config_sentence_transformers.json", settings)
    embedding = load_encoder(str(folder)).embedding
    assert (embedding.query_prefix, embedding.passage_prefix) == expected
    given = load_encoder(str(folder), query_prefix="", passage_prefix="mine ").embedding
    assert (given.query_prefix, given.passage_prefix) == ("", "mine ")


E5, BGE = ("query: ", "passage: "), ("Represent this sentence for searching relevant passages: ", "")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("e5-small-v2", E5),
        ("multilingual-e5-base", E5),
        ("bge-small-en-v1.5", BGE),
        ("BGE-large-en", BGE),
        ("modernbert-embed-base", ("search_query: ", "search_document: ")),
        ("gte-small", ("", "")),
        ("all-MiniLM-L6-v2", ("", "")),
    ],
)
def test_prefixes_that_stand_in_a_readme_alone_go_by_the_name(folder, name, expected):
    model = str(folder.rename(folder.with_name(name)))
    embedding = load_encoder(model).embedding
    assert (embedding.query_prefix, embedding.passage_prefix) == expected
    given = load_encoder(model, query_prefix="mine: ").embedding
    assert (given.query_prefix, given.passage_prefix) == ("mine: ", expected[1])
    _write(Path(model) / "config_sentence_transformers.json", {"prompts": {"query": "q: ", "document": ""}})
    assert load_encoder(model).embedding.query_prefix == "q: "  # what its files say counts


def test_a_model_whose_prefix_names_the_task_asks_for_both(folder):
    model = str(folder.rename(folder.with_name("multilingual-e5-large-instruct")))
    for given in ({}, {"query_prefix": "query: "}, {"passage_prefix": ""}):
        with pytest.raises(UserError, match="Instruct: "):
            load_encoder(model, **given)
    load_encoder(model, query_prefix="query: ", passage_prefix="")


@pytest.mark.parametrize("name", ["stage5-x/minilm", "code5-small", "e5-x/minilm"])
def test_a_name_that_only_looks_like_one_needs_none(folder, tmp_path, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    assert load_encoder(str(folder.rename(tmp_path / name))).embedding.query_prefix == ""


def test_the_longest_text_is_the_first_that_is_said(folder):
    def length(**given) -> int:
        return load_encoder(str(folder), **given).embedding.max_length

    assert length() == 64  # the network's positions
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    _write(folder / "tokenizer_config.json", settings | {"model_max_length": 50})
    assert length() == 50
    _write(folder / "tokenizer_config.json", settings | {"model_max_length": 10**30})  # how a tokenizer says nothing
    assert length() == 64
    _write(folder / "sentence_roberta_config.json", {"max_seq_length": 40})  # the file's older name
    assert length() == 40
    _write(folder / "sentence_bert_config.json", {"max_seq_length": 32})
    assert length() == 32
    assert length(max_length=16) == 16
    with pytest.raises(UserError, match="a maximum length of 0 tokens"):
        length(max_length=0)


def test_what_is_saved_says_all_that_was_read_and_given(folder, tmp_path):
    config = json.loads((folder / "config.json").read_text())
    _write(folder / "config.json", config | {"dtype": "float16"})
    _write(folder / "sentence_bert_config.json", {"do_lower_case": True})
    encoder = load_encoder(str(folder), pooling="lasttoken", query_prefix="q ", passage_prefix="p ", max_length=20)
    save_encoder(encoder, tmp_path / "saved")
    again = load_encoder(str(tmp_path / "saved"))
    assert again.embedding == encoder.embedding and again.embedding.lower_case
    raw = json.loads((tmp_path / "saved" / "config.json").read_text())
    assert raw["torch_dtype"] == "float32" and "dtype" not in raw  # the one that is not true would win elsewhere
    texts = ["a b", "C d e"]
    assert torch.equal(again.encode(texts), encoder.encode(texts))


def test_a_text_without_a_token_is_refused_where_no_special_token_stands_for_it(folder):
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    _write(folder / "tokenizer.json", tokenizer | {"post_processor": None})
    encoder = load_encoder(str(folder))
    assert encoder.tokenize(["a"], kind="query") == [[4]]
    with pytest.raises(UserError, match="empty text"):
        encoder.encode(["a", ""])


def test_pooling_takes_each_texts_own_tokens():
    hidden = torch.arange(10.0).view(1, 5, 2)
    assert pool(hidden, [3, 2], "mean").tolist() == [[2, 3], [7, 8]]
    assert pool(hidden, [3, 2], "cls").tolist() == [[0, 1], [6, 7]]
    assert pool(hidden, [3, 2], "lasttoken").tolist() == [[4, 5], [8, 9]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_gives_unit_vectors_in_fp32_near_those_of_fp32(folder, dtype):
    texts = ["a graph of b", "the quick brown fox"]
    vectors = load_encoder(str(folder), dtype=dtype).encode(texts)
    assert vectors.dtype == torch.float32 and torch.allclose(vectors.norm(dim=1), torch.ones(2), atol=1e-6)
    assert (vectors * load_encoder(str(folder)).encode(texts)).sum(1).min() > 0.999
