"""Reading safetensors: one file, or shards with an index, with every byte accounted for.

A file is the header's length (8 bytes, little endian), the header (JSON: name → dtype, shape, begin and end of its
bytes), and the bytes of all tensors one after another. Source: github.com/huggingface/safetensors, README.

Files are memory-mapped, and each tensor is copied from the map straight to its dtype and device, a piece at a time.
The mapped pages of a copied piece are released at once: otherwise they would count as memory of this process, and peak
memory would be twice the weights.
"""

from __future__ import annotations

import itertools
import json
import math
import mmap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from common.console import UserError
from common.files import parse_json, read_json

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
PIECE = 16 << 20  # bytes
MAX_HEADER = 100_000_000  # bytes; the limit of the reference implementation

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


@dataclass(frozen=True)
class Stored:
    """A tensor in a file: dtype, shape and position."""

    name: str
    path: Path
    dtype: torch.dtype
    shape: tuple[int, ...]
    begin: int  # bytes from the start of the file
    end: int

    def read(self, mapped: mmap.mmap, dtype: torch.dtype, device: str | torch.device) -> torch.Tensor:
        """A copy of the tensor in `dtype` on `device`; integers and booleans keep their dtype."""
        dtype = dtype if self.dtype.is_floating_point else self.dtype
        tensor = torch.empty(self.shape, dtype=dtype, device=device)

        # a piece at a time: convert and copy it, then give its pages back
        at, flat = self.begin, tensor.view(-1)
        for piece in flat.split(PIECE // self.dtype.itemsize) if len(flat) else ():
            piece.copy_(torch.frombuffer(mapped, dtype=self.dtype, count=len(piece), offset=at))
            end = at + len(piece) * self.dtype.itemsize
            if hasattr(mmap, "MADV_DONTNEED"):  # Linux; other systems reclaim unused pages themselves
                page = at - at % mmap.PAGESIZE
                mapped.madvise(mmap.MADV_DONTNEED, page, end - page)
            at = end
        return tensor


def read_safetensors(
    folder: Path, *, dtype: torch.dtype, device: str | torch.device
) -> Iterator[tuple[str, torch.Tensor]]:
    """(name, tensor) of every tensor in a model's folder, copied to dtype and device.

    UserError, before the first tensor, for a file that is damaged, missing or disagrees with the index.
    """
    for path, tensors in itertools.groupby(stored_tensors(folder).values(), key=lambda tensor: tensor.path):
        yield from _read(path, tensors, dtype, device)


def stored_tensors(folder: Path) -> dict[str, Stored]:
    """Every tensor in a model's folder, by name; reads only headers. UserError as for read_safetensors."""
    # a name in two shards is an error: which of them counts would depend on their order
    stored: dict[str, Stored] = {}
    for path in weight_files(folder):
        for tensor in read_header(path):
            if tensor.name in stored:
                raise UserError(f"{tensor.name} is in both {stored[tensor.name].path} and {path}")
            stored[tensor.name] = tensor
    if not (folder / SINGLE).exists() and (folder / INDEX).exists():
        _check_index(folder / INDEX, stored)
    return stored


def read_file(path: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """(name, tensor) of every tensor in one file, in its own dtype, on the CPU. UserError for a damaged file."""
    yield from _read(path, read_header(path), None, "cpu")


def _read(
    path: Path, tensors: Iterable[Stored], dtype: torch.dtype | None, device
) -> Iterator[tuple[str, torch.Tensor]]:
    # copy-on-write: torch wants a writable buffer, and nothing is ever written or copied
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as mapped:
        for tensor in tensors:
            yield tensor.name, tensor.read(mapped, dtype or tensor.dtype, device)


def weight_files(folder: Path) -> list[Path]:
    """A model's weight files: model.safetensors, the shards that its index names, or all *.safetensors."""
    if (folder / SINGLE).exists():
        files = [folder / SINGLE]
    elif (folder / INDEX).exists():
        files = [folder / name for name in sorted(set(_weight_map(folder / INDEX).values()))]
    else:
        files = sorted(folder.glob("*.safetensors"))

    # what is missing, and why
    if not files:
        pickled = sorted(path.name for path in folder.glob("*.bin"))
        hint = f"; {pickled[0]} is a pickle and is never loaded; convert it to safetensors" if pickled else ""
        raise UserError(f"{folder}: no *.safetensors file{hint}")
    absent = [path.name for path in files if not path.is_file()]
    if absent:
        raise UserError(f"{folder}: {', '.join(absent)} is missing, but {INDEX} names it; fetch the model again")
    for path in files:
        _refuse_link_outside(folder, path)
    return files


def _weight_map(index: Path) -> dict[str, str]:
    """Tensor name → shard, which must be a plain file name: an index is untrusted and could point anywhere."""
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise UserError(f"{index}: no weight_map")
    for shard in weight_map.values():
        if not isinstance(shard, str) or not shard.endswith(".safetensors") or set("/\\:\0") & set(shard):
            raise UserError(f"{index}: {shard!r} is not the name of a .safetensors file in this folder")
    return weight_map


def _check_index(index: Path, stored: dict[str, Stored]) -> None:
    weight_map = _weight_map(index)
    for name in weight_map.keys() | stored.keys():
        if name not in stored or weight_map.get(name) != stored[name].path.name:
            named = f"names {weight_map[name]} for {name}" if name in weight_map else f"does not list {name}"
            found = f"it is in {stored[name].path.name}" if name in stored else "no file has it"
            raise UserError(f"{index}: the index {named}, but {found}; fetch the model again")


def _refuse_link_outside(folder: Path, path: Path) -> None:
    """UserError for a link out of the folder, except in the hub's cache: snapshots/COMMIT/x -> blobs/HASH."""
    target, home = path.resolve(), folder.resolve()
    in_cache = home.parent.name == "snapshots" and target.is_relative_to(home.parent.parent / "blobs")
    if not target.is_relative_to(home) and not in_cache:
        raise UserError(f"{path}: this link leads outside the folder; replace it with the file itself")


def read_header(path: Path) -> list[Stored]:
    """The tensors of a file. UserError unless they are well-formed and cover its bytes without gap or overlap."""
    try:
        with open(path, "rb") as file:
            # the header, which must lie inside the file
            size = file.seek(0, 2)
            file.seek(0)
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > min(size - 8, MAX_HEADER):
                raise ValueError(f"the header's length of {length:,} bytes exceeds the file")
            header = _parse_header(file.read(length))

        # its tensors, which must follow one another up to the end
        tensors = [_stored(name, path, entry, 8 + length) for name, entry in header.items()]
        at = 8 + length
        for tensor in sorted(tensors, key=lambda tensor: (tensor.begin, tensor.end)):
            if tensor.begin != at:
                raise ValueError(f"{tensor.name} {'overlaps another' if tensor.begin < at else 'follows a gap'}")
            at = tensor.end
        if at != size:
            raise ValueError(f"{abs(size - at):,} bytes {'too many' if size > at else 'missing'} at the end")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (ValueError, OSError) as error:
        raise UserError(f"{path}: damaged or not a safetensors file ({error}); fetch it again") from None
    return sorted(tensors, key=lambda tensor: tensor.begin)


def _parse_header(data: bytes) -> dict:
    # json keeps the last of two equal names, silently
    def unique(pairs: list[tuple]) -> dict:
        value = dict(pairs)
        if len(value) != len(pairs):
            raise ValueError("a name occurs twice in the header")
        return value

    try:
        header = parse_json(data.decode("utf-8"), object_pairs_hook=unique)
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"the header is not JSON: {error}") from None
    if not isinstance(header, dict):
        raise ValueError("the header is not a JSON object")
    header.pop("__metadata__", None)
    return header


def _stored(name: str, path: Path, entry, start: int) -> Stored:
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"{name} must have exactly dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]

    # a known dtype, sizes that are sizes, and as many bytes as the two require
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise ValueError(f"{name} has the dtype {dtype!r}; supported are {', '.join(DTYPES)}")
    if not _are_counts(shape) or not _are_counts(offsets) or len(offsets) != 2:
        raise ValueError(f"{name} has the shape {shape!r} and the offsets {offsets!r}")
    if math.prod(shape) * DTYPES[dtype].itemsize != offsets[1] - offsets[0]:
        raise ValueError(f"{name} has {offsets[1] - offsets[0]:,} bytes, which does not match {dtype} {shape}")
    return Stored(name, path, DTYPES[dtype], tuple(shape), start + offsets[0], start + offsets[1])


def _are_counts(values) -> bool:
    return isinstance(values, list) and all(type(value) is int and 0 <= value < 1 << 63 for value in values)
