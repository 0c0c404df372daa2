"""Parsing the header of a .gguf file: metadata and the position of each tensor. Everything in it is validated.

    magic, version, counts │ metadata: key, type, value … │ tensors: name, shape, type, offset … │ padding │ data

Format: docs/gguf.md of ggml, versions 2 and 3, little-endian. The gguf package's own reader creates an array for every
token and merge (2 s for 49,000 of each), and trusts counts and offsets.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import NamedTuple

from common.console import UserError, need

SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9


@dataclass(frozen=True)
class TensorInfo:
    """A tensor of the file."""

    name: str
    shape: tuple[int, ...]  # in PyTorch's order: the fastest axis last
    type: int  # a GGMLQuantizationType
    start: int  # bytes from the beginning of the file
    size: int  # bytes


@dataclass(frozen=True)
class Header:
    """Metadata and tensors of a file, and the mapped file itself."""

    metadata: dict[str, object]
    tensors: dict[str, TensorInfo]
    data: mmap.mmap


class _Entry(NamedTuple):
    name: str
    shape: tuple[int, ...]
    type: int
    offset: int  # bytes from the beginning of the data


class _Damaged(Exception):
    pass


def read_header(path: Path) -> Header:
    """UserError if this is not a GGUF file, is truncated, or has an inconsistent header."""
    try:
        with open(path, "rb") as file:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:  # ValueError: an empty file cannot be mapped
        raise UserError(f"{path}: not a readable GGUF file ({error})") from None
    # magic, version, counts; then metadata and tensors
    try:
        cursor = _Cursor(data)
        if data[:4] != b"GGUF":
            raise _Damaged("it does not start with GGUF")
        cursor.at = 4
        if (version := cursor.number("I")) not in (2, 3):
            raise _Damaged(f"version {version} is not 2 or 3, or the file is big-endian")
        tensor_count, metadata_count = cursor.number("Q"), cursor.number("Q")
        metadata = cursor.metadata(metadata_count)
        return Header(metadata, cursor.tensors(tensor_count, metadata.get("general.alignment", 32)), data)
    except (_Damaged, struct.error, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a readable GGUF file ({error}); fetch it again") from None


class _Cursor:
    """Reads forward. A count is checked against the remaining bytes before anything is allocated for it."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data, self.at = data, 0

    def number(self, form: str):
        value = struct.unpack_from("<" + form, self.data, self.at)[0]
        self.at += struct.calcsize("<" + form)
        return value

    def room_for(self, count: int, size: int, what: str) -> int:
        if count * size > len(self.data) - self.at:
            raise _Damaged(f"{count} {what} at byte {self.at} exceed the file's {len(self.data)} bytes")
        return count

    def string(self) -> str:
        length = self.room_for(self.number("Q"), 1, "characters")
        self.at += length
        return self.data[self.at - length : self.at].decode("utf-8")

    def metadata(self, count: int) -> dict[str, object]:
        values = {}
        # at least 8 bytes of key length, 4 of type, 1 of value
        for _ in range(self.room_for(count, 13, "metadata entries")):
            key = self.string()
            if key in values:
                raise _Damaged(f"metadata {key!r} occurs twice")
            values[key] = self.value(self.number("I"))
        return values

    def value(self, kind: int):
        if kind == STRING:
            return self.string()
        if kind in SCALARS:
            return self.number(SCALARS[kind])
        if kind != ARRAY:
            raise _Damaged(f"metadata of type {kind} at byte {self.at}")
        # an array: type and number of its items, then the items
        item, count = self.number("I"), self.number("Q")
        if item == STRING:
            return [self.string() for _ in range(self.room_for(count, 8, "strings"))]
        if item not in SCALARS:  # the format allows nested arrays, but no file has them
            raise _Damaged(f"an array of type {item} at byte {self.at}")
        size = struct.calcsize(SCALARS[item])
        values = struct.unpack_from(f"<{self.room_for(count, size, 'numbers')}{SCALARS[item]}", self.data, self.at)
        self.at += count * size
        return list(values)

    def tensors(self, count: int, alignment: object) -> dict[str, TensorInfo]:
        gguf = need("gguf", why="reading a .gguf file")
        if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
            raise _Damaged(f"general.alignment is {alignment!r}, not a power of two")
        # the table: at least 24 bytes an entry
        entries = []
        for _ in range(self.room_for(count, 24, "tensors")):
            name, dimensions = self.string(), self.number("I")
            if not 1 <= dimensions <= 4:
                raise _Damaged(f"tensor {name!r} has {dimensions} dimensions")
            shape = tuple(self.number("Q") for _ in range(dimensions))[::-1]  # the file has the fastest axis first
            entries.append(_Entry(name, shape, self.number("I"), self.number("Q")))

        # where each lies in the file: none may overlap another or reach past the end
        data_start = -(-self.at // alignment) * alignment
        tensors, end = {}, data_start
        for name, shape, kind, offset in sorted(entries, key=lambda entry: entry.offset):
            try:
                block, block_bytes = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType(kind)]
            except ValueError:
                raise _Damaged(f"tensor {name!r} has the unknown type {kind}") from None
            if name in tensors or not prod(shape) or shape[-1] % block:
                raise _Damaged(
                    f"tensor {name!r} of shape {list(shape)} occurs twice, is empty, or is not a multiple of {block}"
                )
            start, size = data_start + offset, prod(shape) // block * block_bytes
            if start < end or start + size > len(self.data):
                raise _Damaged(f"tensor {name!r} overlaps another or extends past the end: the file is truncated")
            tensors[name], end = TensorInfo(name, shape, kind, start, size), start + size
        return tensors
