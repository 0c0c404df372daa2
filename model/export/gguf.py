"""Writing a .gguf file for llama.cpp and Ollama; its layout is in model/gguf."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from common.console import UserError, need, progress
from common.files import new_file
from model.decoder import Decoder
from model.gguf.metadata import LLAMA3_SCALING, ROPE_FREQS, architecture_of, metadata_of, rope_divisors
from model.gguf.tensors import Heads, stored_name, to_stored
from model.gguf.tokenizer import tokenizer_metadata
from model.tokenizer import Tokenizer

# Types of the matrices (one-dimensional tensors stay fp32), with general.file_type: llama.cpp's LLAMA_FTYPE.
TYPES = {"f32": 0, "f16": 1, "bf16": 32, "q8_0": 7}


def write_gguf(decoder: Decoder, tokenizer: Tokenizer, path: Path, *, type: str, name: str) -> None:
    """Write one file, atomically, a tensor at a time.

    type  of the matrices: f32, f16, bf16 or q8_0
    name  general.name, shown by tools
    UserError for what llama.cpp cannot represent: another family, RoPE scaling or tokenizer, a matrix whose rows do not
    divide into Q8_0's blocks of 32, or a weight beyond fp16's range.
    """
    gguf = need("gguf", why="writing a .gguf file")

    # llama.cpp's name → tensor; Llama 3's RoPE scaling is a tensor there
    architecture = architecture_of(decoder.config)
    weights: dict[str, torch.Tensor] = {
        stored_name(architecture, ours): weight for ours, weight in decoder.named_parameters()
    }
    if decoder.config.rope.scaling == "llama3":
        weights[ROPE_FREQS] = rope_divisors(decoder.config.rope)

    # matrices in the wanted type, vectors in fp32
    kinds = gguf.GGMLQuantizationType
    kind_of = {stored: kinds[type.upper()] if w.dim() > 1 else kinds.F32 for stored, w in weights.items()}
    if type == "q8_0" and (odd := [stored for stored, w in weights.items() if w.dim() > 1 and w.shape[-1] % 32]):
        raise UserError(f"the rows of {odd[0]} do not divide into blocks of 32; use --type f16")

    with new_file(path) as temporary:
        # the header: metadata, then name, shape and size of every tensor
        writer = gguf.GGUFWriter(temporary, architecture)
        for key, value in _metadata(decoder, tokenizer, architecture, type, name).items():
            _add(writer, gguf, key, value)
        for stored, weight in weights.items():
            block, block_bytes = gguf.GGML_QUANT_SIZES[kind_of[stored]]
            size = weight.numel() // block * block_bytes
            writer.add_tensor_info(stored, weight.shape, np.dtype(np.float32), size, kind_of[stored])
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()

        # the data, in the same order: only one tensor at a time is converted
        heads = Heads(decoder.config.num_attention_heads, decoder.config.num_key_value_heads)
        for stored, weight in progress(weights.items(), what=f"writing {path.name}"):
            weight = to_stored(architecture, stored, weight.detach().cpu().float(), heads)
            if kind_of[stored] == kinds.F16 and weight.abs().max() > torch.finfo(torch.float16).max:
                raise UserError(f"{stored} has a weight of {weight.abs().max():.3g}, beyond fp16; use --type bf16")
            writer.write_tensor_data(gguf.quants.quantize(weight.numpy(), kind_of[stored]))
        writer.close()


def _metadata(decoder: Decoder, tokenizer: Tokenizer, architecture: str, type: str, name: str) -> dict[str, object]:
    metadata = {
        "general.type": "model",
        "general.name": name,
        "general.file_type": TYPES[type],
        "general.quantization_version": 2,
    }
    for key, value in metadata_of(decoder.config).items():
        metadata[key if key == LLAMA3_SCALING else f"{architecture}.{key}"] = value
    metadata |= tokenizer_metadata(tokenizer, decoder.config.vocab_size)
    if tokenizer.chat_template is not None:
        metadata["tokenizer.chat_template"] = tokenizer.chat_template
    return metadata


def _add(writer, gguf, key: str, value) -> None:
    """Add a metadata entry with the type that llama.cpp expects: integers are unsigned alone and signed in lists."""
    kinds = gguf.GGUFValueType
    if isinstance(value, list):
        of_items = {int: kinds.INT32, float: kinds.FLOAT32, str: kinds.STRING}
        writer.add_key_value(key, value, kinds.ARRAY, of_items[type(value[0])])
    else:
        alone = {bool: kinds.BOOL, int: kinds.UINT32, float: kinds.FLOAT32, str: kinds.STRING}
        writer.add_key_value(key, value, alone[type(value)])
