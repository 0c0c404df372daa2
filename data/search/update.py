"""An index brought up to date: only texts that have no vector yet are encoded, and a run that is stopped goes on.

Vectors are kept as they come, in INDEX/encoded-DESCRIPTION.bin, a row a text:

    SHA-256 of the text   32 bytes
    vector                D float32
    CRC-32 of both        4 bytes      a row that was half written, or is damaged, is made again
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from common.console import UserError, progress
from data.search.index import DESCRIPTION, Index, open_index, write_index, writing
from data.search.repository import Repository

CHUNK = 256  # texts that are encoded, then kept: some seconds of work

Encode = Callable[[list[str]], np.ndarray]  # texts -> [n, D] float32, unit length


def earlier_index(folder: Path | str) -> tuple[Index | None, str]:
    """The index that is to be brought up to date, or None and why what is there cannot be used ("" for a new one)."""
    if not (Path(folder) / "manifest.json").exists():
        return None, ""
    try:
        return open_index(folder), ""
    except UserError as error:
        return None, str(error)


def update_index(
    folder: Path | str,
    repository: Repository,
    encode: Encode,
    *,
    description: Mapping,
    earlier: Index | None,
    graph: bool | None = None,
) -> tuple[dict, list[str]]:
    """Make the index at `folder` that of `repository`. Returns its manifest and the texts that were encoded for it.

    description  `encoder.identity()`, and "max_length": the tokens that a text is cut to
    earlier      its vectors are kept for texts that are the same, if they were made alike
    graph        as in build_index
    """
    made = {key: description[key] for key in (*DESCRIPTION, "max_length") if key != "model"}
    known = {}
    if earlier is not None and made.items() <= earlier.manifest.items():
        known = {_key(unit["code"]): vector for unit, vector in zip(earlier.units, earlier.vectors, strict=True)}
    name = hashlib.sha256(json.dumps(made, sort_keys=True).encode()).hexdigest()[:16]
    journal = Path(folder) / f"encoded-{name}.bin"
    with writing(folder):
        texts = [unit["code"] for unit in repository.units]
        vectors, encoded = encode_missing(texts, encode, known=known, journal=journal, dimension=made["dimension"])
        manifest = write_index(
            folder, vectors, repository.units, manifest=description, graph=graph, files=repository.files,
            root=repository.root,
        )  # fmt: skip
        for path in Path(folder).glob("encoded-*.bin"):
            path.unlink()
    return manifest, encoded


def encode_missing(
    texts: Sequence[str],
    encode: Encode,
    *,
    known: Mapping[bytes, np.ndarray],
    journal: Path,
    dimension: int,
) -> tuple[np.ndarray, list[str]]:
    """Vectors [N, D] of the texts, and the texts that had to be encoded for it: each once, and none that is known.

    known    SHA-256 of a text -> its vector [D]
    journal  file; what it holds is known too, what is made is added to it
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
                raise UserError("the model gives vectors that are not finite: its weights have diverged")
            for i, (key, _) in enumerate(chunk):
                rows["key"][i] = key
                rows["crc"][i] = _crc(rows[i])
                vectors[key] = rows["vector"][i]
            file.write(rows.tobytes())
            file.flush()
            bar.update(len(chunk))
    return np.stack([vectors[key] for key in keys]), [text for _, text in missing]


def _read(journal: Path, row: np.dtype) -> dict[bytes, np.ndarray]:
    """The whole rows of a journal. What comes after the first that is not whole is cut off."""
    if not journal.exists():
        return {}
    rows = np.fromfile(journal, row)  # half a row at the end is not read
    whole = next((i for i, one in enumerate(rows) if one["crc"] != _crc(one)), len(rows))
    with open(journal, "r+b") as file:
        file.truncate(whole * row.itemsize)
    return {one["key"].tobytes(): one["vector"] for one in rows[:whole]}


def _crc(row: np.void) -> int:
    return zlib.crc32(row["vector"].tobytes(), zlib.crc32(row["key"].tobytes()))


def _key(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
