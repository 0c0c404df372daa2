"""Exporting a model: a Hugging Face folder, GGUF with an Ollama Modelfile, or a sentence-transformers folder.

    load ─ write under a temporary name ─ load that again ─ compare on fixed texts ─ rename into place
                                                          └─ beyond what the dtype explains: an error, nothing is left

    python -m model.export DIR --to gguf --type q8_0 --out out/model-q8_0.gguf

The export comes with export_report.json, the comparison, and README.md, the model card.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import tempfile
from pathlib import Path
from typing import NamedTuple

from common.console import UserError
from common.files import read_json, write_json, write_text
from model.device import DTYPES, stored_dtype
from model.encoder_config import BERT_FAMILIES
from model.encoder_files import load_encoder, save_encoder
from model.export.card import Export, find_license, model_card
from model.export.gguf import write_gguf
from model.export.ollama import modelfile
from model.export.verify import compare_decoder, compare_encoder, encode_probe, take_probe
from model.gguf.metadata import exact_context
from model.weights import load_decoder, load_tokenizer, locate, optional_json, save_decoder


class Written(NamedTuple):
    """What a writer reports."""

    report: dict  # its part of export_report.json
    card: dict  # its fields of card.Export


def export(
    source: str, to: str, out: Path, *, type: str = "q8_0", dtype: str = "auto", chat_template: str | None = None
) -> dict:
    """Write `source` as `to` (hf, gguf, sentence-transformers) to `out`; returns the contents of export_report.json.

    type           of a .gguf file's matrices: f32, f16, bf16, q8_0
    dtype          of a folder's weights: fp32, bf16, fp16, or auto: that of the source's config.json, else fp32
    chat_template  a Jinja file that replaces the model's own template; not for an encoder
    UserError, leaving nothing behind, if the format cannot hold this model or the export computes something else.
    """
    # refuse before anything is loaded
    folder = locate(source)
    _check_kind(source, folder, to)
    if to == "gguf" and out.suffix != ".gguf":
        raise UserError(f"--out {out}: give a file name that ends in .gguf")
    if to == "sentence-transformers" and chat_template is not None:
        raise UserError("--chat-template goes with --to hf and gguf: an encoder has no chat template")
    final = [out, *(out.parent / name for name in ("Modelfile", "README.md", "export_report.json") if to == "gguf")]
    if existing := [path for path in final if path.exists()]:
        raise UserError(f"{existing[0]}: exists already; give --out a folder of its own")

    # everything is written beside `out` and renamed at the end: an error leaves nothing behind
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as scratch:
        target = Path(scratch) / out.name
        if to == "sentence-transformers":
            written = _write_encoder(source, target, dtype)
        elif to == "gguf":
            written = _write_gguf(source, target, type, chat_template)
        else:
            written = _write_folder(source, target, dtype, chat_template)

        # the comparison
        report = {"schema": 1, "source": source, "to": to, "versions": _versions()} | written.report
        beside = target.parent if to == "gguf" else target
        write_json(beside / "export_report.json", report)

        # the model card, and the provenance that it is made from
        provenance = optional_json(folder / "tritune.json")
        named = find_license(source, folder if folder.is_dir() else folder.parent)
        about = Export(source, to, path=out, report=report, provenance=provenance, license=named, **written.card)
        write_text(beside / "README.md", model_card(about))
        if provenance and to != "gguf":
            write_json(beside / "tritune.json", provenance)
        for path in final:
            os.replace(Path(scratch) / path.name, path)
    return report


def _check_kind(source: str, folder: Path, to: str) -> None:
    """UserError for an adapter, and for an encoder exported as a decoder."""
    if folder.is_dir() and (folder / "adapter_config.json").is_file() and not (folder / "config.json").is_file():
        raise UserError(
            f"{source} is an adapter; merge it first: python -m lora.merge --model BASE --adapter {source} --out DIR"
        )
    family = read_json(folder / "config.json").get("model_type") if folder.is_dir() else None
    if to != "sentence-transformers" and family in (*BERT_FAMILIES, "modernbert"):
        raise UserError(f"{source} is an encoder ({family}); use --to sentence-transformers")


def _versions() -> dict[str, str]:
    packages = ("torch", "tokenizers", "safetensors", "gguf")
    return {name: importlib.metadata.version(name) for name in packages if importlib.util.find_spec(name)}


def _write_gguf(source: str, target: Path, type: str, chat_template: str | None) -> Written:
    """The .gguf file, and a Modelfile beside it."""
    # what the source computes, before it is written
    decoder, tokenizer = load_decoder(source), load_tokenizer(source, chat_template=chat_template)
    context = exact_context(decoder.config)
    probe = take_probe(decoder, tokenizer, context)

    # the two files
    write_gguf(decoder, tokenizer, target, type=type, name=target.stem)
    ollama = modelfile(target.name, tokenizer, context=context)
    write_text(target.parent / "Modelfile", ollama.text)

    # what its user should know
    notes = []
    if context < decoder.config.max_position_embeddings:
        notes.append(f"the context is cut to {context} tokens: beyond them llama.cpp computes another attention")
    notes += ollama.notes

    # load it again, once the source is freed
    del decoder
    report = compare_decoder(probe, tokenizer, str(target), type)
    card = {"type": type, "has_chat_template": tokenizer.chat_template is not None}
    return Written(report | {"notes": notes}, card | {"has_ollama_template": ollama.has_template})


def _write_folder(source: str, target: Path, dtype: str, chat_template: str | None) -> Written:
    """A decoder in Hugging Face's layout."""
    # probe the source, write it, load it again
    decoder, tokenizer = load_decoder(source), load_tokenizer(source, chat_template=chat_template)
    dtype = stored_dtype(decoder.config.raw, dtype)
    probe = take_probe(decoder, tokenizer, decoder.config.max_tokens)
    save_decoder(decoder.to(DTYPES[dtype]), tokenizer, target)
    del decoder
    report = compare_decoder(probe, tokenizer, str(target), dtype)
    return Written(report | {"notes": []}, {"type": dtype, "has_chat_template": tokenizer.chat_template is not None})


def _write_encoder(source: str, target: Path, dtype: str) -> Written:
    """An encoder in sentence-transformers' layout."""
    # vectors of the source, the folder, vectors of what is in it
    encoder = load_encoder(source)
    dtype = stored_dtype(encoder.config.raw, dtype)
    expected = encode_probe(encoder)
    save_encoder(encoder.to(DTYPES[dtype]), target)
    exported = load_encoder(str(target))
    comparison = compare_encoder(expected, exported, dtype)
    prompts = {"query": exported.embedding.query_prefix, "document": exported.embedding.passage_prefix}
    return Written({"type": dtype, "comparison": comparison, "notes": []}, {"type": dtype, "prompts": prompts})
