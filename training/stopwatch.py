"""Seconds of the consecutive stages of a run."""

from __future__ import annotations

import time


class Stopwatch:
    """Divides the time since it was created into named, consecutive stages."""

    def __init__(self) -> None:
        self.started = self._split_at = time.perf_counter()
        self.seconds: dict[str, float] = {}  # by stage, in order

    def split(self, stage: str) -> None:
        """End a stage: everything since the previous split is recorded under its name."""
        now = time.perf_counter()
        self.seconds[stage], self._split_at = now - self._split_at, now

    def elapsed(self) -> float:
        """Seconds since the stopwatch was created."""
        return time.perf_counter() - self.started
