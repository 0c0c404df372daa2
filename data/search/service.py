"""A search that follows its repository: answers from an index while a thread brings it up to date.

    questions ──► Search of the newest index ──► results        replaced as a whole: no reader sees half of it
    repository ── changed? ── update_index ──► the next generation

A kill at any moment leaves the index as it was, or the next one (data/search/index.py).
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

from common.console import UserError
from common.files import append_jsonl
from data.search.contents import read_contents, watched_files
from data.search.index import open_index
from data.search.results import Search
from data.search.update import update_by_encoder


class Service:
    """Answers about one index. Its methods may be called from many threads at once."""

    def __init__(self, search: Search, *, feedback: Path | None = None) -> None:
        """search: with the encoder that made the index. feedback: a JSON Lines file that verdicts are added to."""
        self.folder, self.encoder, self.feedback = search.index.folder, _OneAtATime(search.encoder), feedback
        self._search = Search(search.index, self.encoder)
        self._seen: dict | None = None  # the first look compares every file with the index
        self._judging = threading.Lock()

    @property
    def about(self) -> dict:
        """{"source", "units", "model"} of the index."""
        manifest = self._search.index.manifest
        return {"source": manifest.get("source"), "units": manifest["count"], "model": manifest["model"]}

    def search(self, query: str, k: int = 10) -> list[dict]:
        """Results of a question, best first (data/search/results.py). UserError for an empty one."""
        if not query.strip():
            raise UserError("the query is empty")
        return self._search.results(query.strip(), _at_most(k))

    def related(self, path: str, line: int, k: int = 10) -> list[dict]:
        """What is nearest in meaning to the unit at a line. UserError for a place that is not in the index."""
        return self._search.related(path, line, _at_most(k))

    def unit(self, path: str, line: int) -> dict:
        """The innermost unit at a line. UserError for a place that is not in the index: no other file is read."""
        return self._search.unit(path, line)

    def judge(self, query: str, unit_id: str, good: bool) -> None:
        """Note that a result was what was asked for, or was not: a row for train_embed.py --from-feedback."""
        if self.feedback is None:
            raise UserError("no feedback is kept; start with --feedback FILE")
        unit = next((one for one in self._search.index.units if one["id"] == unit_id), None)
        if unit is None:
            raise UserError(f"{unit_id}: not in this index")
        row = {"query": query, "id": unit_id, "code": unit["code"], "source": unit.get("source"), "good": bool(good)}
        with self._judging:
            append_jsonl(self.feedback, [row])

    def refresh(self) -> int | None:
        """Bring the index up to date if a file has changed: how many units were newly encoded; None if none has."""
        fingerprint = self._fingerprint()
        if fingerprint is None or fingerprint == self._seen:
            return None
        index = self._search.index
        made = index.manifest
        contents = read_contents(made["source"], tests=made["tests"], files=index.files, units=index.units)
        if contents.files == index.files:  # by their hashes
            self._seen = fingerprint
            return None
        _, encoded = update_by_encoder(self.folder, contents, self.encoder, earlier=index)
        self._search, self._seen = Search(open_index(self.folder), self.encoder), fingerprint
        return len(encoded)

    def follow(self, stop: threading.Event, every: float) -> None:
        """Refresh until `stop` is set, every so many seconds. What fails is said once, and tried again."""
        said = ""
        while not stop.wait(every):
            try:
                if (encoded := self.refresh()) is not None:
                    print(f"refreshed {self.folder}: {encoded} units newly encoded", file=sys.stderr)
            except (UserError, OSError) as error:
                if said != (said := f"not refreshed: {error}"):
                    print(said, file=sys.stderr)

    def _fingerprint(self) -> dict[str, tuple[int, int]] | None:
        """Path -> time of change and size of each source file: cheap enough to take every few seconds."""
        source = self._search.index.manifest.get("source")
        if source is None or (files := watched_files(source)) is None:
            return None
        found = {}
        for file in files:
            try:
                state = os.stat(file)
            except OSError:
                continue  # removed meanwhile
            found[str(file)] = (state.st_mtime_ns, state.st_size)
        return found


class _OneAtATime:
    """An encoder for many threads: one text after the other, since each call uses all cores anyway."""

    def __init__(self, encoder) -> None:
        self.encoder, self.embedding, self.lock = encoder, encoder.embedding, threading.Lock()

    def encode(self, texts: list[str], kind: str):
        with self.lock:
            return self.encoder.encode(texts, kind=kind)

    def identity(self) -> dict:
        return self.encoder.identity()


def _at_most(k: int) -> int:
    return max(1, min(int(k), 100))
