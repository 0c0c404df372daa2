"""A run's folder.

RUN/config.json        the track, and every option with the source of its value
    environment.json   versions, device, hashes of the model, the data and this source
    metrics.jsonl      one row per step (training/metrics_log.py)
    metrics.json       the summary, written last
    checkpoint/        the state that --resume continues from; never deleted
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from common.console import UserError
from common.files import read_json, read_jsonl, write_json, write_text
from common.options import Resolved
from eval.environment import environment
from training import parallel
from training.checkpoint import latest_checkpoint
from training.metrics_log import MetricsLog, Tracker, open_trackers
from training.resume import input_hashes, refuse_other_inputs, refuse_other_options


class Run:
    """One training run and its folder."""

    def __init__(self, folder: str | Path, track: str, options: Resolved, *, resume: bool) -> None:
        """Raises UserError when the folder is in use or cannot be resumed. Writes nothing yet."""
        self.shared = self.folder = Path(folder)
        self.track, self.options = track, options
        self.checkpoints = self.shared / "checkpoint"
        self.resume_from: Path | None = None  # the checkpoint to continue from

        # a folder in use is either resumed or refused
        if self.folder.is_dir() and any(self.folder.iterdir()):
            if not resume:
                raise UserError(f"{folder}: not empty; give another --out, or --resume to continue the run in it")
            refuse_other_options(self.folder, options, read_json(self.folder / "config.json").get("options", {}))
            self.resume_from = latest_checkpoint(self.checkpoints)
        elif self.folder.exists() and not self.folder.is_dir():
            raise UserError(f"{folder}: exists and is not a folder; give another --out")
        elif resume:
            raise UserError(f"{folder}: nothing to resume; omit --resume to start a new run")
        self.folder = parallel.own_folder(self.shared)  # ranks above 0 write to a temporary copy

    def set_options(self, source: str, **values) -> Any:
        """Replace options by values that were found by measuring; `source` says how. Returns all options."""
        self.options = self.options.with_values(source, **values)
        return self.options.values

    def start(
        self, *, device: torch.device, dtype: torch.dtype, data: dict[str, str], log_to: str | None = None
    ) -> None:
        """Create the folder, once all input has been read and validated.

        data    name -> hash of what is trained on
        log_to  see training/metrics_log.py

        Raises UserError when a resumed run's data, model or input files have changed.
        """
        # refuse what must not have changed, before anything is written
        inputs = input_hashes(self.options)
        if self.resume_from:
            recorded = read_json(self.folder / "environment.json")
            refuse_other_inputs(self.folder, self.options, recorded, data=data, inputs=inputs)
        trackers = open_trackers(log_to if parallel.rank() == 0 else None, self.folder, self.options.as_dict())

        # what the run is: its options, where it runs, what it reads
        self.folder.mkdir(parents=True, exist_ok=True)
        self.save_options()
        processes = {"processes": str(parallel.world())}
        write_json(self.folder / "environment.json", environment(device, dtype) | processes | inputs | data)

        # the log continues after the last checkpoint
        done = int(self.resume_from.name.removeprefix("step-")) if self.resume_from else 0
        self._log = MetricsLog(self.folder / "metrics.jsonl", trackers, done=done)

    def save_options(self) -> None:
        """Write config.json."""
        write_json(self.folder / "config.json", {"track": self.track, "options": self.options.as_dict()})

    def add_tracker(self, tracker: Tracker) -> None:
        """Pass the rows that follow on to another tracker."""
        self._log.trackers.append(tracker)

    def log(self, step: int, **values) -> None:
        """Append a row to metrics.jsonl."""
        self._log.append(step, values)

    def validations(self) -> list[tuple[int, float]]:
        """(step, validation loss) of all validations so far, including those before --resume."""
        rows = read_jsonl(self.folder / "metrics.jsonl")
        return [(row["step"], row["validation_loss"]) for row in rows if row.get("validation_loss") is not None]

    def add_samples(self, step: int | None, markdown: str) -> None:
        """Write the samples of a step (None: of the finished model) to samples.md, replacing those of later steps."""
        # everything before this heading stays: a resumed run repeats the steps after its checkpoint
        path = self.folder / "samples.md"
        heading = "# At the end\n" if step is None else f"# After step {step}\n"
        before = path.read_text(encoding="utf-8") if path.is_file() else ""
        before = before.partition(heading)[0].partition("# At the end\n")[0]
        write_text(path, f"{before}{heading}\n{markdown}\n")

    def finish(self, metrics: dict) -> None:
        """Write the summary, which marks the run as complete."""
        self._log.close()
        write_json(self.folder / "metrics.json", metrics)
