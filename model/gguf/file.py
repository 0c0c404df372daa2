"""Reading a .gguf file: configuration, weights and tokenizer, converted to Hugging Face's conventions.

The extra package `gguf` dequantises; the file itself is parsed in gguf/header.py, and differences from Hugging Face's
layout are reversed in gguf/metadata.py, gguf/tensors.py and gguf/tokenizer.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tokenizers
import torch

from common.console import UserError, lack_of_memory, need
from model.gguf.header import read_header
from model.gguf.metadata import MODEL_TYPES, ROPE_FREQS, config_of
from model.gguf.tensors import Heads, from_stored, tensor_name
from model.gguf.tokenizer import read_tokenizer

ROWS_AT_ONCE = 4096  # dequantised together: numpy needs several times their size as scratch memory
READABLE = ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q4_K", "Q5_K", "Q6_K")


class GGUFFile:
    """An opened .gguf file; tensors are read on demand."""

    def __init__(self, path: Path) -> None:
        """UserError for a damaged file, or an unsupported architecture or quantisation."""
        self.path = path
        self._gguf = need("gguf", why=f"reading {path.name}")
        self._header = read_header(path)
        self.architecture = str(self._header.metadata.get("general.architecture"))
        if self.architecture not in MODEL_TYPES:
            known = ", ".join(MODEL_TYPES)
            raise UserError(f"{path}: architecture {self.architecture!r} is not supported; supported are {known}")
        # the types of all tensors, before any is read
        kinds = {self._gguf.GGMLQuantizationType(tensor.type).name for tensor in self._header.tensors.values()}
        if unknown := kinds - set(READABLE):
            raise UserError(
                f"{path}: {', '.join(sorted(unknown))} is not supported; supported are {', '.join(READABLE)}"
            )

    def config(self) -> dict:
        """The equivalent of config.json. UserError for a missing entry."""
        # some settings are not metadata but tensors: RoPE's divisors, the rows of the vocabulary
        names = set(self._header.tensors)
        divisors = torch.from_numpy(self.dequantised(ROPE_FREQS)) if ROPE_FREQS in names else None
        try:
            vocab_size = self._header.tensors["token_embd.weight"].shape[0]
            return config_of(self._header.metadata, names, vocab_size, divisors)
        except KeyError as error:
            raise UserError(f"{self.path}: {error.args[0]} is missing") from None
        except UserError as error:
            raise UserError(f"{self.path}: {error}") from None
        except (TypeError, ValueError, ZeroDivisionError) as error:
            raise UserError(f"{self.path}: the metadata does not describe a model ({error})") from None

    def tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """(Hugging Face name, fp32 tensor), one at a time."""
        config = self.config()
        heads = Heads(config["num_attention_heads"], config["num_key_value_heads"])
        for stored in self._header.tensors:
            if stored == ROPE_FREQS:  # part of the configuration
                continue
            # Hugging Face's name and layout
            try:
                name = tensor_name(self.architecture, stored)
                tensor = from_stored(self.architecture, stored, torch.from_numpy(self.dequantised(stored)), heads)
            except KeyError:
                raise UserError(f"{self.path}: tensor {stored!r} is unknown in {self.architecture}") from None
            except (RuntimeError, TypeError) as error:  # rows that do not divide into these heads
                if lack_of_memory(error):
                    raise
                raise UserError(f"{self.path}: tensor {stored!r} does not fit the metadata ({error})") from None
            yield name, tensor

    def tokenizer(self) -> tuple[tokenizers.Tokenizer, dict, tuple[int, ...]]:
        """The tokenizer, the equivalent of tokenizer_config.json, and the end-of-text ids."""
        try:
            return read_tokenizer(self._header.metadata)
        except KeyError as error:
            raise UserError(f"{self.path}: {error.args[0]} is missing") from None
        except UserError as error:
            raise UserError(f"{self.path}: {error}") from None
        except Exception as error:  # tokenizers raises bare Exception; metadata may have unexpected types
            raise UserError(f"{self.path}: its tokenizer is not readable ({error})") from None

    def dequantised(self, stored: str) -> np.ndarray:
        """A tensor in fp32, dequantised a few rows at a time."""
        tensor = self._header.tensors[stored]
        kind = self._gguf.GGMLQuantizationType(tensor.type)
        # a row of the matrix is a row of bytes: [rows, bytes]
        columns = tensor.shape[-1]
        stored_bytes = np.frombuffer(self._header.data, np.uint8, tensor.size, tensor.start)
        rows = stored_bytes.reshape(-1, tensor.size * columns // int(np.prod(tensor.shape)))
        weight = np.empty((len(rows), columns), dtype=np.float32)
        for first in range(0, len(rows), ROWS_AT_ONCE):
            piece = slice(first, first + ROWS_AT_ONCE)
            weight[piece] = self._gguf.quants.dequantize(rows[piece], kind)
        return weight.reshape(tensor.shape)
