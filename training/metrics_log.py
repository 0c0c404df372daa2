"""metrics.jsonl: one row per training step, copied to the trackers."""

from __future__ import annotations

import json
import math
from pathlib import Path

from common.files import resume_jsonl, write_jsonl
from training.trackers import Tracker


class MetricsLog:
    """Appends rows to a JSON Lines file and passes them on to trackers.

    done  the last step to keep of an existing file
    """

    def __init__(self, path: Path, trackers: list[Tracker], *, done: int) -> None:
        # drop log rows after the last checkpoint: those steps will be repeated
        write_jsonl(path, [row for row in resume_jsonl(path) if row["step"] <= done])
        self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115 (stays open for the whole run)
        self.trackers = trackers

    def append(self, step: int, values: dict) -> None:
        """Write one row. Values that are not finite, such as the norm of a skipped step, become null."""
        finite = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}
        self._file.write(json.dumps({"step": step, **finite}) + "\n")
        self._file.flush()
        for tracker in self.trackers:
            tracker.log(step, finite)

    def close(self) -> None:
        """Close the file and the trackers."""
        self._file.close()
        for tracker in self.trackers:
            tracker.close()
