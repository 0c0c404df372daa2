"""Embedding models as sentence-transformers lays them out: weights, tokenizer, and how a vector is made of a text."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from model.console import UserError
from model.encoder import Embedding, Encoder
from model.encoder_config import EncoderConfig
from model.files import new_folder, read_json, write_json
from model.tokenizer import Tokenizer
from model.weights import dtype_name, fill, locate, read_safetensors, save_weights, tokenizer_files, weights_sha256

# Models whose own files do not say that they were trained with prefixes (their READMEs do).
NEEDS_PREFIX = ("e5-",)


def load_encoder(
    name: str,
    *,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
    pooling: str | None = None,
    query_prefix: str | None = None,
    passage_prefix: str | None = None,
    max_length: int | None = None,
) -> Encoder:
    """An embedding model with its tokenizer.

    Pooling, prefixes and length come from the model's own files (modules.json, 1_Pooling, sentence_bert_config.json,
    config_sentence_transformers.json); what is given here takes their place. UserError when neither says.
    """
    source = locate(name)
    config = EncoderConfig.from_dict(read_json(source / "config.json"))
    with torch.device("meta"):
        encoder = Encoder(config)
    fill(encoder, read_safetensors(source), dtype=dtype, device=device, where=source, skip=_is_encoder_leftover)
    encoder.tokenizer = Tokenizer(*tokenizer_files(source))
    encoder.embedding = _embedding(source, name, config, pooling, query_prefix, passage_prefix, max_length)
    encoder.source = name
    encoder.weights_sha256 = weights_sha256(source)
    return encoder.eval()


def save_encoder(encoder: Encoder, folder: Path | str) -> None:
    """Write a folder that sentence-transformers, and load_encoder, read."""
    embedding = encoder.embedding
    with new_folder(folder) as target:
        save_weights(encoder, target)
        write_json(target / "config.json", encoder.config.raw | {"torch_dtype": dtype_name(encoder)})
        encoder.tokenizer.save(target)
        (target / "modules.json").write_text(json.dumps(SENTENCE_TRANSFORMERS_MODULES, indent=2) + "\n")
        (target / "1_Pooling").mkdir()
        pooling = {
            "word_embedding_dimension": encoder.config.hidden_size,
            "pooling_mode_cls_token": embedding.pooling == "cls",
            "pooling_mode_mean_tokens": embedding.pooling == "mean",
        }
        write_json(target / "1_Pooling" / "config.json", pooling)
        write_json(
            target / "sentence_bert_config.json", {"max_seq_length": embedding.max_length, "do_lower_case": False}
        )
        prompts = {"query": embedding.query_prefix, "document": embedding.passage_prefix}
        write_json(
            target / "config_sentence_transformers.json",
            {"prompts": prompts, "default_prompt_name": None, "similarity_fn_name": "cosine"},
        )


SENTENCE_TRANSFORMERS_MODULES = [
    {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
    for i, (path, kind) in enumerate([("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")])
]


def _is_encoder_leftover(name: str) -> bool:
    """BertModel's pooler and position buffer, and pre-training heads: none takes part in an embedding."""
    return name.startswith(("pooler.", "cls.")) or name == "embeddings.position_ids"


def _embedding(folder, name, config, pooling, query_prefix, passage_prefix, max_length) -> Embedding:
    def optional(path: str) -> dict:
        return read_json(folder / path) if (folder / path).is_file() else {}

    if pooling is None:
        modes = [
            mode for mode, on in optional("1_Pooling/config.json").items() if on is True and "pooling_mode" in mode
        ]
        known = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls"}
        if len(modes) != 1 or modes[0] not in known:
            said = f"says {', '.join(modes)}" if modes else "is missing"
            raise UserError(f"{folder}: 1_Pooling/config.json {said}; give --pooling mean or --pooling cls")
        pooling = known[modes[0]]
    settings = optional("config_sentence_transformers.json")
    prompts = settings.get("prompts") or {}
    if not prompts and query_prefix is None and any(mark in str(name).lower() for mark in NEEDS_PREFIX):
        raise UserError(
            f"{name}: this model was trained with prefixes that its files do not name; "
            "give --query-prefix 'query: ' --passage-prefix 'passage: '"
        )
    query = prompts.get("query", "") if query_prefix is None else query_prefix
    passage = prompts.get("document", prompts.get("passage", "")) if passage_prefix is None else passage_prefix
    length = max_length or optional("sentence_bert_config.json").get("max_seq_length") or config.max_position_embeddings
    if length > config.max_position_embeddings:
        raise UserError(
            f"{folder}: a length of {length} exceeds the model's {config.max_position_embeddings} positions"
        )
    return Embedding(pooling, query, passage, length)
