"""A teacher's replies and their cache."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from common.console import UserError


@dataclass(frozen=True)
class Reply:
    """One answer of the teacher."""

    text: str
    stopped: bool  # ended by itself, not at max_tokens
    tokens_in: int
    tokens_out: int


class ReplyCache:
    """Replies by the hash of their request, in one SQLite file, whose writes are atomic.

    The file is created with the first reply. Used from several threads. UserError for a file that is not such a cache,
    or cannot be read or written.
    """

    def __init__(self, path: Path | str) -> None:
        self._path, self._lock = Path(path), threading.Lock()
        self._db: sqlite3.Connection | None = None
        if self._path.exists():
            with self._named():
                self._open()

    def get(self, key: str) -> Reply | None:
        """The reply stored under a key, or None."""
        if self._db is None:
            return None
        with self._lock, self._named():
            row = self._db.execute("SELECT reply FROM replies WHERE key = ?", (key,)).fetchone()
        return Reply(**json.loads(row[0])) if row else None

    def put(self, replies: Mapping[str, Reply]) -> None:
        """Store replies by their keys, all of them or none. They are on disk when this returns."""
        rows = [(key, json.dumps(vars(reply))) for key, reply in replies.items()]
        with self._lock, self._named():
            if self._db is None:
                self._open()
            with self._db:  # one transaction
                self._db.executemany("INSERT OR REPLACE INTO replies VALUES (?, ?)", rows)

    def _open(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(self._path, check_same_thread=False, timeout=30)
        self._db.execute("CREATE TABLE IF NOT EXISTS replies (key TEXT PRIMARY KEY, reply TEXT NOT NULL)")

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except (OSError, sqlite3.Error) as error:
            raise UserError(f"{self._path}: not usable as the teacher's cache ({error})") from None
