"""Updates an index: only texts without a vector are encoded, and an interrupted run can resume.

Vectors are stored as they are computed, in INDEX/encoded-DESCRIPTION.bin, one row per text:

    SHA-256 of the text   32 bytes
    vector                D float32
    CRC-32 of both        4 bytes      incomplete or damaged rows are recomputed
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from common.console import UserError, progress
from data.search.contents import Contents
from data.search.index import DESCRIPTION, Index, open_index, write_index, writing

CHUNK = 256  # texts encoded between writes: a few seconds of work

Encode = Callable[[list[str]], np.ndarray]  # texts -> [n, D] float32, unit length


def earlier_index(folder: Path | str) -> tuple[Index | None, str]:
    """The index to update, or None and why the existing one cannot be used ("" if there is none)."""
    if not (Path(folder) / "manifest.json").exists():
        return None, ""
    try:
        return open_index(folder), ""
    except UserError as error:
        return None, str(error)


def update_index(
    folder: Path | str,
    contents: Contents,
    encode: Encode,
    *,
    description: Mapping,
    earlier: Index | None,
    graph: bool | None = None,
) -> tuple[dict, list[str]]:
    """Update the index at `folder` to match `contents`. Returns its manifest and the texts that were encoded.

    description  `encoder.identity()`, and "max_length": tokens that texts are cut to
    earlier      its vectors are reused for unchanged texts, if made by the same description
    graph        as in build_index
    """
    made = {key: description[key] for key in (*DESCRIPTION, "max_length") if key != "model"}
    known = {}
    if earlier is not None and made.items() <= earlier.manifest.items():
        known = {_key(unit["code"]): vector for unit, vector in zip(earlier.units, earlier.vectors, strict=True)}
    name = hashlib.sha256(json.dumps(made, sort_keys=True).encode()).hexdigest()[:16]
    journal = Path(folder) / f"encoded-{name}.bin"
    with writing(folder):
        texts = [unit["code"] for unit in contents.units]
        vectors, encoded = encode_missing(texts, encode, known=known, journal=journal, dimension=made["dimension"])
        manifest = write_index(
            folder, vectors, contents.units, manifest=description, graph=graph, files=contents.files,
            root=contents.root, source=contents.source, tests=contents.tests,
        )  # fmt: skip
        for path in Path(folder).glob("encoded-*.bin"):
            path.unlink()
    return manifest, encoded


def update_by_encoder(
    folder: Path | str, contents: Contents, encoder: Any, *, earlier: Index | None, graph: bool | None = None
) -> tuple[dict, list[str]]:
    """As update_index, with an encoder of `load_encoder`."""
    return update_index(
        folder, contents, lambda texts: encoder.encode(texts, kind="passage").numpy(),
        description=encoder.identity() | {"max_length": encoder.embedding.max_length}, earlier=earlier, graph=graph,
    )  # fmt: skip


def encode_missing(
    texts: Sequence[str],
    encode: Encode,
    *,
    known: Mapping[bytes, np.ndarray],
    journal: Path,
    dimension: int,
) -> tuple[np.ndarray, list[str]]:
    """Vectors [N, D] of the texts, and the texts that had to be encoded, each once.

    known    SHA-256 of a text -> its vector [D]
    journal  file whose vectors are known, too, and to which new ones are appended
    Raises UserError for vectors that are not finite.
    """
    row = np.dtype([("key", "V32"), ("vector", "<f4", (dimension,)), ("crc", "<u4")])
    vectors = {**known, **_read(journal, row)}
    keys = [_key(text) for text in texts]
    missing = list({key: text for key, text in zip(keys, texts, strict=True) if key not in vectors}.items())
    with open(journal, "ab") as file, progress(what="encoding", total=len(missing), unit="unit") as bar:
        for start in range(0, len(missing), CHUNK):
            chunk = missing[start : start + CHUNK]
            rows = np.empty(len(chunk), row)
            rows["vector"] = encode([text for _, text in chunk])
            if not np.isfinite(rows["vector"]).all():
                raise UserError("the model's vectors are not finite: its weights have diverged")
            for i, (key, _) in enumerate(chunk):
                rows["key"][i] = key
                rows["crc"][i] = _crc(rows[i])
                vectors[key] = rows["vector"][i]
            file.write(rows.tobytes())
            file.flush()
            bar.update(len(chunk))
    return np.stack([vectors[key] for key in keys]), [text for _, text in missing]


def _read(journal: Path, row: np.dtype) -> dict[bytes, np.ndarray]:
    """The valid rows of a journal, which is truncated after the last of them."""
    if not journal.exists():
        return {}
    rows = np.fromfile(journal, row)  # an incomplete row at the end is not read
    whole = next((i for i, one in enumerate(rows) if one["crc"] != _crc(one)), len(rows))
    with open(journal, "r+b") as file:
        file.truncate(whole * row.itemsize)
    return {one["key"].tobytes(): one["vector"] for one in rows[:whole]}


def _crc(row: np.void) -> int:
    return zlib.crc32(row["vector"].tobytes(), zlib.crc32(row["key"].tobytes()))


def _key(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
