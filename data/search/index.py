"""Vectors of a repository, kept on disk, with a manifest that says what made them.

    INDEX/manifest.json            what made the vectors, count, graph and its measured recall; the generation, the size
                                   and hash of each of its files, and a hash of all this
          GENERATION/vectors.npy   [N, D] float32, unit length: exact search, the reference
                     units.jsonl   what was indexed, a row a vector
                     words.npz     BM25 over the same units
                     files.jsonl   the files that the units were read from, with their hashes
                     graph.hnsw    above 200,000 vectors, or if asked for: hnswlib's graph over the distinct vectors,
                                   for approximate search (arXiv:1603.09320)
                     equals.npy    beside the graph: [N] int64, the first row whose vector equals a row's
          tritune-index.lock       held by whoever writes

A generation is never changed: the next one is written beside it, then the manifest is replaced in one step, then the
old one is removed. So a kill at any moment leaves the old index or the new one, and who reads is not disturbed.

A query is comparable to these vectors only if the same weights, pooling and prefix made it; any other is refused.
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
from pathlib import Path

import numpy as np

from common.console import UserError
from common.files import read_json, read_jsonl, write_json, write_jsonl
from data.search.bm25 import BM25
from data.search.nearest import HNSW, Graph, exact_search, measured_recall

FORMAT = "tritune index 2"
LOCK = "tritune-index.lock"
GENERATION = re.compile(r"[0-9a-f]{16}|new")  # named by the hashes of its files: the same content, the same name
DESCRIPTION = ("model", "weights_sha256", "pooling", "query_prefix", "passage_prefix", "normalize", "dimension")
EXACT_UP_TO = 200_000  # vectors; of 384 dimensions that is 0.3 GB to read for a query


@dataclass(frozen=True)
class Index:
    """An index that was opened and found whole."""

    folder: Path
    manifest: dict
    vectors: np.ndarray  # [N, D], mapped from the disk; a change would stay in memory
    units: list[dict]
    words: BM25
    files: list[dict]
    graph: Graph | None

    def search(
        self, queries: np.ndarray, k: int = 10, *, made_by: Mapping, exact: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """The k best units of each query: rows of `units` [Q, k], and cosines [Q, k], best first.

        queries  [Q, D], unit length
        k        at most the count; a larger one is cut to it
        made_by  `encoder.identity()` of the encoder that made the queries
        exact    compare with every vector even if there is a graph to walk
        Raises UserError if another model, pooling or prefix made the queries.
        """
        made, asked = self.manifest, dict(made_by)
        for key in DESCRIPTION:
            if key != "model" and asked.get(key) != made[key]:  # the same weights may have two names
                raise UserError(
                    f"{self.folder}: its vectors have {key} {made[key]!r} ({made['model']}), the query has "
                    f"{asked.get(key)!r} ({asked.get('model')}); use the index's model or build the index again"
                )
        queries = _unit_vectors(queries, self.manifest["dimension"])
        k = min(k, len(self.units))
        if exact or self.graph is None:
            return exact_search(self.vectors, queries, k)
        return self.graph.search(self.vectors, queries, k, self.manifest["hnsw"]["ef"])


def build_index(
    folder: Path | str, vectors: np.ndarray, units: Sequence[dict], *, manifest: Mapping, graph: bool | None = None
) -> dict:
    """Write an index of `vectors` [N, D] of `units` to `folder`, whole or not at all.

    units     a JSON object with "code" for each vector
    manifest  `encoder.identity()`
    graph     whether to build hnswlib's graph; None: above EXACT_UP_TO vectors
    Returns the manifest as written. An index at `folder` is replaced; anything else there is a UserError.
    """
    with writing(folder):
        return write_index(folder, vectors, units, manifest=manifest, graph=graph)


@contextlib.contextmanager
def writing(folder: Path | str) -> Iterator[None]:
    """Hold the index for writing. UserError while another process does, and for a folder that is no index."""
    folder = Path(folder)
    refuse_other_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / LOCK, "ab") as lock:  # the system lets go of it when the process ends, however it ends
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
) -> dict:
    """As build_index, for who holds `writing(folder)`.

    manifest  may have "max_length" (tokens that a text was cut to) besides
    files     rows of files.jsonl: {"path", "sha256", "reason"}
    root      the folder that the paths of the units are relative to
    """
    folder = Path(folder)
    if missing := [key for key in DESCRIPTION if key not in manifest]:
        raise ValueError(f"the description of the encoder lacks {', '.join(missing)}")
    if len(vectors) != len(units) or len(units) == 0:
        raise ValueError(f"{len(vectors)} vectors for {len(units)} units; as many are needed, and at least one")
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
        "hnsw": None if recall is None else HNSW,
        "recall@10": recall,
    }
    _commit(folder, new, written)
    return written


def _commit(folder: Path, new: Path, manifest: dict) -> None:
    """Make what was written to `new` the index. Fills in what the manifest says of the files, and its own hash."""
    prints = {}  # by the name of the file
    for path in sorted(new.iterdir()):
        with open(path, "rb") as file:
            os.fsync(file.fileno())
        prints[path.name] = _fingerprint(path)
    generation = hashlib.sha256(json.dumps(prints).encode()).hexdigest()[:16]
    there = folder / generation
    if there.exists() and any(_fingerprint(there / name) != prints[name] for name in prints):  # that one is damaged
        shutil.rmtree(there)
    if there.exists():  # nothing has changed
        shutil.rmtree(new)
    else:
        os.replace(new, there)
    manifest |= {"generation": generation, "files": prints}
    manifest["sha256"] = _hash(manifest)
    write_json(folder / "manifest.json", manifest)
    for path in folder.iterdir():
        if path.is_dir() and GENERATION.fullmatch(path.name) and path.name != generation:
            shutil.rmtree(path)
        elif path.name.startswith(".manifest.json."):  # of a run that was killed
            path.unlink()


def open_index(folder: Path | str) -> Index:
    """Open and verify an index. UserError if it is missing, half-written or damaged; it says how to build it again."""
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
        what = "its first run was stopped; go on" if (folder / LOCK).exists() else "build one"
        raise UserError(f"{folder}: no index here (manifest.json is missing); {what}: {_command(folder)}")
    try:
        manifest = read_json(folder / "manifest.json")
    except UserError as error:
        raise UserError(f"{error}; {again}") from None
    if manifest.get("format") != FORMAT:
        raise UserError(f"{folder}: not a {FORMAT!r} (format is {manifest.get('format')!r}); {again}")
    if manifest.pop("sha256", None) != _hash(manifest):
        raise UserError(f"{folder}/manifest.json: damaged (not as it was written); {again}")
    return manifest


def _open_generation(folder: Path, manifest: dict) -> Index:
    again = f"build it again: {_command(folder)}"
    generation = folder / manifest["generation"]
    for name, expected in manifest["files"].items():  # a damaged graph would crash hnswlib, or be searched unnoticed
        found = _fingerprint(generation / name)
        if found is None:
            raise UserError(f"{generation / name}: missing; {again}")
        if found != expected:
            raise UserError(f"{generation / name}: damaged (not the file that the manifest describes); {again}")
    vectors = np.load(generation / "vectors.npy", mmap_mode="c", allow_pickle=False)  # PyTorch warns of "r"
    graph = None if manifest["hnsw"] is None else Graph.load(generation, manifest["count"], manifest["dimension"])
    units, files = read_jsonl(generation / "units.jsonl"), read_jsonl(generation / "files.jsonl")
    return Index(folder, manifest, vectors, units, BM25.load(generation / "words.npz"), files, graph)


def _command(folder: Path) -> str:
    return f"python search.py index REPO --out {shlex.quote(str(folder))}"


def refuse_other_folder(folder: Path | str) -> None:
    """UserError unless `folder` is new, empty, or an index (even a damaged one): what may be written to."""
    folder = Path(folder)
    if folder.exists() and not (folder / LOCK).is_file() and not (folder.is_dir() and not any(folder.iterdir())):
        raise UserError(f"{folder}: exists and is not an index of this version; give a new folder")


def searched_text(unit: dict) -> str:
    """What BM25 reads of a unit: its code, and the path and qualified name of where it stands."""
    source = unit.get("source") or {}
    return "\n".join([source.get("path") or "", source.get("qualname") or "", unit["code"]])


def _unit_vectors(vectors: np.ndarray, dimension: int) -> np.ndarray:
    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    if vectors.ndim != 2 or vectors.shape[1] != dimension:
        raise ValueError(f"expected vectors [N, {dimension}], got {list(vectors.shape)}")
    if not np.allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-3):  # NaN fails here too
        raise ValueError("vectors must be of unit length: the inner product is taken for the cosine")
    return vectors


def _findable(model: str) -> str:
    """A model that is a folder or a file by its absolute path, so that it is found from other folders too."""
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
