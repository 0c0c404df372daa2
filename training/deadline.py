"""--max-minutes: stop training early enough to save and evaluate within the limit."""

from __future__ import annotations

import time
from dataclasses import dataclass

from training import parallel


@dataclass(frozen=True)
class Deadline:
    """A time limit for a whole run."""

    minutes: float  # 0: no limit
    started: float  # time.perf_counter() at the start of the run
    reserve: float = 0.0  # seconds kept for the evaluation that follows training

    def is_near(self, seconds: float) -> bool:
        """Whether `seconds` of further training and the evaluation would exceed the limit, on any rank."""
        if not self.minutes:
            return False
        end = time.perf_counter() - self.started + seconds + self.reserve
        return any(parallel.of_every_rank(end > 60 * self.minutes))
