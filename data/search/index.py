"""The index of a repository: vectors on disk, with a manifest that says what made them.

    INDEX/manifest.json            what made the vectors, count, graph and its measured recall; the generation, size and
                                   hash of each of its files, and a hash of all this
          GENERATION/vectors.npy   [N, D] float32, unit length: exact search, the reference
                     units.jsonl   what was indexed, one row per vector
                     words.npz     BM25 over the same units
                     files.jsonl   the files that the units were read from, with their hashes
                     graph.hnsw    above 200,000 vectors, or on request: hnswlib's graph over the distinct vectors,
                                   for approximate search (arXiv:1603.09320)
                     equals.npy    with the graph: [N] int64, the first row with an equal vector
          tritune-index.lock       held by the writer

A generation never changes: the next one is written beside it, then the manifest is replaced atomically, then the old
one is removed. A kill at any moment leaves the old index or the new one, and readers are not disturbed.

A query is comparable to these vectors only if the same weights, pooling and prefix made it; others are refused.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shlex
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from common.console import UserError
from common.files import read_json, read_jsonl, write_json, write_jsonl
from data.search.bm25 import BM25
from data.search.nearest import HNSW, Graph, exact_search, measured_recall
from data.search.ranking import Places

FORMAT = "tritune index 2"
LOCK = "tritune-index.lock"
GENERATION = re.compile(r"[0-9a-f]{16}|new")  # named by the hashes of its files: equal content, equal name
DESCRIPTION = ("model", "weights_sha256", "pooling", "query_prefix", "passage_prefix", "normalize", "dimension")
EXACT_UP_TO = 200_000  # vectors; with 384 dimensions a query reads 0.3 GB


@dataclass(frozen=True)
class Index:
    """An opened and verified index."""

    folder: Path
    manifest: dict
    vectors: np.ndarray  # [N, D], memory-mapped copy-on-write
    units: list[dict]
    words: BM25
    files: list[dict]
    graph: Graph | None

    @cached_property
    def places(self) -> Places:
        """Names, files and lines of the units, for the rules of ranking."""
        return Places(self.units)

    def search(
        self, queries: np.ndarray, k: int = 10, *, made_by: Mapping, exact: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """The k best units of each query: rows of `units` [Q, k], and cosines [Q, k], best first.

        queries  [Q, D], unit length
        k        limited to the count
        made_by  `encoder.identity()` of the encoder that made the queries
        exact    compare with every vector even if there is a graph
        Raises UserError if another model, pooling or prefix made the queries.
        """
        made = self.manifest
        for key in DESCRIPTION:
            if key != "model" and made_by.get(key) != made[key]:  # equal weights may have two names
                raise UserError(
                    f"{self.folder}: its vectors have {key} {made[key]!r} ({made['model']}), the query has "
                    f"{made_by.get(key)!r} ({made_by.get('model')}); use the index's model or rebuild the index"
                )
        queries = _unit_vectors(queries, self.manifest["dimension"])
        k = min(k, len(self.units))
        if exact or self.graph is None:
            return exact_search(self.vectors, queries, k)
        return self.graph.search(self.vectors, queries, k, self.manifest["hnsw"]["ef"])


def build_index(
    folder: Path | str, vectors: np.ndarray, units: Sequence[dict], *, manifest: Mapping, graph: bool | None = None
) -> dict:
    """Write an index of `vectors` [N, D] of `units` to `folder`, atomically.

    units     for each vector a JSON object with "code"
    manifest  `encoder.identity()`
    graph     whether to build hnswlib's graph; None: only above EXACT_UP_TO vectors
    Returns the manifest as written. An index at `folder` is replaced; anything else there is a UserError.
    """
    with writing(folder):
        return write_index(folder, vectors, units, manifest=manifest, graph=graph)


@contextlib.contextmanager
def writing(folder: Path | str) -> Iterator[None]:
    """Lock the index for writing. UserError while another process holds it, and for a folder that is no index."""
    folder = Path(folder)
    refuse_other_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / LOCK, "ab") as lock:  # the system releases the lock when the process ends, however it ends
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{folder}: another process is writing this index; wait until it is done") from None
        yield


def write_index(
    folder: Path | str,
    vectors: np.ndarray,
    units: Sequence[dict],
    *,
    manifest: Mapping,
    graph: bool | None = None,
    files: Sequence[dict] = (),
    root: Path | None = None,
    source: str | None = None,
    tests: bool = False,
) -> dict:
    """As build_index, for a caller that holds `writing(folder)`.

    manifest  may also have "max_length" (tokens that texts were cut to)
    files     rows of files.jsonl: {"path", "sha256", "reason"}
    root      the folder that the paths of the units are relative to
    source    the SOURCE that the files come from, and whether its tests are included
    """
    folder = Path(folder)
    if missing := [key for key in DESCRIPTION if key not in manifest]:
        raise ValueError(f"the description of the encoder lacks {', '.join(missing)}")
    if len(vectors) != len(units) or len(units) == 0:
        raise ValueError(f"{len(vectors)} vectors for {len(units)} units; the numbers must match and be at least one")
    vectors = _unit_vectors(vectors, manifest["dimension"])
    new = folder / "new"
    shutil.rmtree(new, ignore_errors=True)  # of a run that was killed
    new.mkdir()
    np.save(new / "vectors.npy", vectors, allow_pickle=False)
    write_jsonl(new / "units.jsonl", units)
    BM25([searched_text(unit) for unit in units]).save(new / "words.npz")
    write_jsonl(new / "files.jsonl", files)
    recall = None
    if len(vectors) > EXACT_UP_TO if graph is None else graph:
        built = Graph.build(vectors)
        built.save(new)
        recall = measured_recall(vectors, built)
    written = {
        "format": FORMAT,
        **{key: manifest[key] for key in DESCRIPTION},
        "model": _findable(manifest["model"]),
        "max_length": manifest.get("max_length"),
        "metric": "cosine",
        "count": len(vectors),
        "root": None if root is None else str(root),
        "source": source,
        "tests": tests,
        "hnsw": None if recall is None else HNSW,
        "recall@10": recall,
    }
    return _commit(folder, new, written)


def _commit(folder: Path, new: Path, manifest: dict) -> dict:
    """Make `new` the current generation. Returns the manifest with the hashes of its files, and of itself."""
    fingerprints = {}  # by file name
    for path in sorted(new.iterdir()):
        with open(path, "rb") as file:
            os.fsync(file.fileno())
        fingerprints[path.name] = _fingerprint(path)
    generation = hashlib.sha256(json.dumps(fingerprints).encode()).hexdigest()[:16]

    # an equal generation that is already there stays, unless it is damaged
    target = folder / generation
    if target.exists() and any(_fingerprint(target / name) != fingerprints[name] for name in fingerprints):
        shutil.rmtree(target)
    if target.exists():
        shutil.rmtree(new)
    else:
        os.replace(new, target)

    # from here on readers see the new generation
    manifest = {**manifest, "generation": generation, "files": fingerprints}
    manifest["sha256"] = _hash(manifest)
    write_json(folder / "manifest.json", manifest)

    for path in folder.iterdir():
        if path.is_dir() and GENERATION.fullmatch(path.name) and path.name != generation:
            shutil.rmtree(path)
        elif path.name.startswith(".manifest.json."):  # of a run that was killed
            path.unlink()
    return manifest


def open_index(folder: Path | str) -> Index:
    """Open and verify an index. UserError, saying how to rebuild it, if it is missing, incomplete or damaged."""
    folder = Path(folder)
    manifest = _read_manifest(folder)
    try:
        return _open_generation(folder, manifest)
    except (UserError, OSError):
        if _read_manifest(folder)["generation"] == manifest["generation"]:
            raise
        return open_index(folder)  # it was replaced while it was being opened


def _read_manifest(folder: Path) -> dict:
    again = f"build it again: {_command(folder)}"
    if not (folder / "manifest.json").exists():
        what = "its first run was stopped; resume" if (folder / LOCK).exists() else "build one"
        raise UserError(f"{folder}: no index here (manifest.json is missing); {what}: {_command(folder)}")
    try:
        manifest = read_json(folder / "manifest.json")
    except UserError as error:
        raise UserError(f"{error}; {again}") from None
    if manifest.get("format") != FORMAT:
        raise UserError(f"{folder}: not a {FORMAT!r} (format is {manifest.get('format')!r}); {again}")
    if manifest.pop("sha256", None) != _hash(manifest):
        raise UserError(f"{folder}/manifest.json: damaged (its hash does not match); {again}")
    return manifest


def _open_generation(folder: Path, manifest: dict) -> Index:
    again = f"build it again: {_command(folder)}"
    generation = folder / manifest["generation"]
    for name, expected in manifest["files"].items():  # a damaged graph could crash hnswlib, or go unnoticed
        found = _fingerprint(generation / name)
        if found is None:
            raise UserError(f"{generation / name}: missing; {again}")
        if found != expected:
            raise UserError(f"{generation / name}: damaged (not the file that the manifest describes); {again}")
    # copy-on-write, as PyTorch warns of read-only arrays
    vectors = np.load(generation / "vectors.npy", mmap_mode="c", allow_pickle=False)
    graph = None if manifest["hnsw"] is None else Graph.load(generation, manifest["count"], manifest["dimension"])
    units, files = read_jsonl(generation / "units.jsonl"), read_jsonl(generation / "files.jsonl")
    words = BM25.load(generation / "words.npz")
    return Index(folder, manifest, vectors=vectors, units=units, words=words, files=files, graph=graph)


def _command(folder: Path) -> str:
    return f"python search.py index REPO --out {shlex.quote(str(folder))}"


def refuse_other_folder(folder: Path | str) -> None:
    """UserError unless `folder` may be written to: new, empty, or an index, even a damaged one."""
    folder = Path(folder)
    if folder.exists() and not (folder / LOCK).is_file() and not (folder.is_dir() and not any(folder.iterdir())):
        raise UserError(f"{folder}: exists and is not an index of this version; give a new folder")


def searched_text(unit: dict) -> str:
    """The text of a unit for BM25: its code, path and qualified name."""
    source = unit.get("source") or {}
    return "\n".join([source.get("path") or "", source.get("qualname") or "", unit["code"]])


def _unit_vectors(vectors: np.ndarray, dimension: int) -> np.ndarray:
    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    if vectors.ndim != 2 or vectors.shape[1] != dimension:
        raise ValueError(f"expected vectors [N, {dimension}], got {list(vectors.shape)}")
    if not np.allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-3):  # fails for NaN, too
        raise ValueError("vectors must be of unit length: the inner product serves as the cosine")
    return vectors


def _findable(model: str) -> str:
    """A model folder or file by its absolute path, so that it is found from other folders."""
    path = Path(model).expanduser()
    return str(path.resolve()) if path.exists() else model


def _hash(value) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _fingerprint(path: Path) -> dict | None:
    if not path.is_file():
        return None
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return {"bytes": path.stat().st_size, "sha256": digest.hexdigest()}
