"""Reading a .gguf file of llama.cpp: configuration, weights and tokenizer, in Hugging Face's terms.

The extra package `gguf` undoes the quantisations; the file itself is read here (gguf/header.py), and what is stored
otherwise than in Hugging Face's files is turned back (gguf/layout.py, gguf/tokenizer.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tokenizers
import torch

from common.console import UserError, lack_of_memory, need
from model.gguf.header import read_header
from model.gguf.layout import MODEL_TYPES, ROPE_FREQS, config_of, from_stored, tensor_name
from model.gguf.tokenizer import read_tokenizer

ROWS = 4096  # dequantised at a time: numpy needs several times a piece's size for it
READABLE = ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q4_K", "Q5_K", "Q6_K")


class GGUFFile:
    """An opened .gguf file; its tensors stay on the disk until they are asked for."""

    def __init__(self, path: Path) -> None:
        """UserError when the file is damaged, or holds an architecture or a quantisation that is not supported."""
        self.path = path
        self._gguf = need("gguf", why=f"reading {path.name}")
        self._header = read_header(path)
        self.architecture = self._header.metadata.get("general.architecture")
        if self.architecture not in MODEL_TYPES:
            known = ", ".join(MODEL_TYPES)
            raise UserError(f"{path}: architecture {self.architecture!r} is not supported; supported are {known}")
        kinds = {self._gguf.GGMLQuantizationType(tensor.type).name for tensor in self._header.tensors.values()}
        if unknown := kinds - set(READABLE):
            raise UserError(f"{path}: {', '.join(sorted(unknown))} is not read; {', '.join(READABLE)} are")

    def config(self) -> dict:
        """The same as config.json would say. UserError for a missing entry."""
        names = set(self._header.tensors)
        divisors = torch.from_numpy(self._read(ROPE_FREQS)) if ROPE_FREQS in names else None
        try:
            vocab_size = self._header.tensors["token_embd.weight"].shape[0]
            return config_of(self._header.metadata, names, vocab_size, divisors)
        except KeyError as error:
            raise UserError(f"{self.path}: {error.args[0]} is missing") from None
        except UserError as error:
            raise UserError(f"{self.path}: {error}") from None
        except (TypeError, ValueError, ZeroDivisionError) as error:
            raise UserError(f"{self.path}: the metadata makes no model ({error})") from None

    def tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """(Hugging Face name, fp32 tensor), one at a time."""
        config = self.config()
        heads = config["num_attention_heads"], config["num_key_value_heads"]
        for stored in self._header.tensors:
            if stored == ROPE_FREQS:  # part of the configuration
                continue
            try:
                name = tensor_name(self.architecture, stored)
                tensor = from_stored(self.architecture, stored, torch.from_numpy(self._read(stored)), heads)
            except KeyError:
                raise UserError(f"{self.path}: tensor {stored!r} is not known for {self.architecture}") from None
            except (RuntimeError, TypeError) as error:  # rows that do not make these heads
                if lack_of_memory(error):
                    raise
                raise UserError(f"{self.path}: tensor {stored!r} does not fit the metadata ({error})") from None
            yield name, tensor

    def tokenizer(self) -> tuple[tokenizers.Tokenizer, dict, tuple[int, ...]]:
        """The tokenizer, what tokenizer_config.json would say, and the end-of-text ids."""
        try:
            return read_tokenizer(self._header.metadata)
        except KeyError as error:
            raise UserError(f"{self.path}: {error.args[0]} is missing") from None
        except UserError as error:
            raise UserError(f"{self.path}: {error}") from None
        except Exception as error:  # tokenizers raises bare Exception; and values of a type that nobody writes
            raise UserError(f"{self.path}: the tokenizer in it is not readable ({error})") from None

    def _read(self, stored: str) -> np.ndarray:
        """A tensor in fp32, dequantised piece by piece."""
        tensor = self._header.tensors[stored]
        kind = self._gguf.GGMLQuantizationType(tensor.type)
        columns = tensor.shape[-1]
        stored_bytes = np.frombuffer(self._header.data, np.uint8, tensor.size, tensor.start)
        rows = stored_bytes.reshape(-1, tensor.size * columns // int(np.prod(tensor.shape)))
        weight = np.empty((len(rows), columns), dtype=np.float32)
        for first in range(0, len(rows), ROWS):
            piece = slice(first, first + ROWS)
            weight[piece] = self._gguf.quants.dequantize(rows[piece], kind)
        return weight.reshape(tensor.shape)
