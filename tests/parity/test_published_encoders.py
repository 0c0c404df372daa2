"""Encoders in the files that they are published in, shrunk and with random weights, against sentence-transformers."""

from __future__ import annotations

import json

import pytest
import torch
import transformers
from torch.testing import assert_close

from model import load_encoder
from tests.conftest import randomize
from tests.parity.test_encoder import TEXTS, _tokenizer

BERT = {
    "architectures": ["BertModel"], "attention_probs_dropout_prob": 0.1, "classifier_dropout": None,
    "hidden_act": "gelu", "hidden_dropout_prob": 0.1, "hidden_size": 384, "initializer_range": 0.02,
    "intermediate_size": 1536, "layer_norm_eps": 1e-12, "max_position_embeddings": 512, "model_type": "bert",
    "num_attention_heads": 12, "num_hidden_layers": 12, "pad_token_id": 0, "position_embedding_type": "absolute",
    "torch_dtype": "float32", "type_vocab_size": 2, "use_cache": True, "vocab_size": 30522,
}  # fmt: skip
MODERNBERT = {
    "architectures": ["ModernBertModel"], "attention_bias": False, "attention_dropout": 0.0, "bos_token_id": 50281,
    "classifier_activation": "gelu", "classifier_bias": False, "classifier_dropout": 0.0, "classifier_pooling": "mean",
    "cls_token_id": 50281, "decoder_bias": True, "deterministic_flash_attn": False, "embedding_dropout": 0.0,
    "eos_token_id": 50282, "global_attn_every_n_layers": 3, "global_rope_theta": 160000.0,
    "gradient_checkpointing": False, "hidden_activation": "gelu", "hidden_size": 768, "initializer_cutoff_factor": 2.0,
    "initializer_range": 0.02, "intermediate_size": 1152, "layer_norm_eps": 1e-05, "local_attention": 128,
    "local_rope_theta": 10000.0, "max_position_embeddings": 8192, "mlp_bias": False, "mlp_dropout": 0.0,
    "model_type": "modernbert", "norm_bias": False, "norm_eps": 1e-05, "num_attention_heads": 12,
    "num_hidden_layers": 22, "pad_token_id": 50283, "position_embedding_type": "absolute", "sep_token_id": 50282,
    "sparse_pred_ignore_index": -100, "sparse_prediction": False, "torch_dtype": "float16", "vocab_size": 50368,
}  # fmt: skip
QWEN3 = {
    "architectures": ["Qwen3ForCausalLM"], "attention_bias": False, "attention_dropout": 0.0, "bos_token_id": 151643,
    "eos_token_id": 151643, "head_dim": 128, "hidden_act": "silu", "hidden_size": 1024, "initializer_range": 0.02,
    "intermediate_size": 3072, "max_position_embeddings": 32768, "max_window_layers": 28, "model_type": "qwen3",
    "num_attention_heads": 16, "num_hidden_layers": 28, "num_key_value_heads": 8, "rms_norm_eps": 1e-06,
    "rope_scaling": None, "rope_theta": 1000000, "sliding_window": None, "tie_word_embeddings": True,
    "torch_dtype": "bfloat16", "use_cache": True, "use_sliding_window": False, "vocab_size": 151669,
}  # fmt: skip
QWEN3_QUERY = "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery:"

# name -> (config.json, pooling, normalised, sentence_bert_config.json, prompts in the files, prefixes as meant)
PUBLISHED = {
    "e5-small": (BERT, "mean", True, 512, None, ("query: ", "passage: ")),
    "e5-small-v2": (BERT, "mean", True, 512, None, ("query: ", "passage: ")),
    "bge-small-en-v1.5": (
        BERT | {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}, "cls", True, 512, None,
        ("Represent this sentence for searching relevant passages: ", ""),
    ),
    "gte-small": (BERT | {"gradient_checkpointing": False}, "mean", True, 512, None, ("", "")),
    "all-MiniLM-L6-v2": (BERT | {"num_hidden_layers": 6}, "mean", True, 256, None, ("", "")),
    "gte-modernbert-base": (MODERNBERT, "cls", False, 8192, None, ("", "")),
    "Qwen3-Embedding-0.6B": (QWEN3, "lasttoken", True, None, {"query": QWEN3_QUERY, "document": ""}, (QWEN3_QUERY, "")),
}  # fmt: skip
FLAGS = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken")


def shrunk(config: dict) -> dict:
    """Fewer and narrower layers; all else as it is published."""
    small = {"hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 4, "num_attention_heads": 4,
             "vocab_size": 300, "num_key_value_heads": 2, "head_dim": 16, "max_window_layers": 4}  # fmt: skip
    tokens = {key: 0 for key, value in config.items() if key.endswith("_token_id") and value}
    return config | {key: value for key, value in small.items() if key in config} | tokens | {"torch_dtype": "float32"}


@pytest.fixture(params=PUBLISHED)
def published(request, tmp_path):
    """(the model's folder, prefixes as meant)."""
    config, pooling, normalised, length, prompts, prefixes = PUBLISHED[request.param]
    folder = tmp_path / request.param
    settings = shrunk(config)
    network = transformers.AutoModel.from_config(transformers.AutoConfig.for_model(**settings)).float().eval()
    randomize(network)
    network.save_pretrained(folder)
    _tokenizer({"bert": "bert", "modernbert": "modernbert", "qwen3": "qwen3"}[config["model_type"]]).save_pretrained(
        folder
    )
    kinds = [("", "Transformer"), ("1_Pooling", "Pooling"), *([("2_Normalize", "Normalize")] if normalised else [])]
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(kinds)
    ]
    flags = {f"pooling_mode_{flag}": flag.startswith(pooling) and "sqrt" not in flag for flag in FLAGS}
    files = {
        "config.json": settings,
        "modules.json": modules,
        "1_Pooling/config.json": {"word_embedding_dimension": 48, **flags},
        **({"sentence_bert_config.json": {"max_seq_length": length, "do_lower_case": False}} if length else {}),
        **({"config_sentence_transformers.json": {"prompts": prompts, "default_prompt_name": None}} if prompts else {}),
    }
    for name, value in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(value))
    return folder, prefixes


def test_pooling_and_prefixes_are_right_without_asking(published):
    from sentence_transformers import SentenceTransformer

    folder, prefixes = published
    ours, theirs = load_encoder(str(folder)), SentenceTransformer(str(folder), device="cpu")
    for kind, prefix in zip(("query", "passage"), prefixes, strict=True):
        expected = theirs.encode([prefix + text for text in TEXTS], prompt="", normalize_embeddings=True)
        assert_close(ours.encode(TEXTS, kind=kind), torch.from_numpy(expected), atol=1e-5, rtol=0)
    assert ours.config.num_hidden_layers == 4
