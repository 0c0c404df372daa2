"""metrics.jsonl, one row per training step, and its optional copies: TensorBoard and Weights & Biases."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Protocol

from common.console import UserError, need
from common.files import resume_jsonl, write_jsonl


class Tracker(Protocol):
    """Receives every row of metrics.jsonl."""

    def log(self, step: int, values: dict) -> None:
        """The values of a step, under their names in metrics.jsonl."""

    def close(self) -> None:
        """The run has ended."""


class TensorBoard:
    """Event files in RUN/tensorboard."""

    def __init__(self, folder: Path, options: dict) -> None:
        need("tensorboard", why="--log-to tensorboard")
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(folder / "tensorboard")
        self.writer.add_text("options", "\n".join(f"    {name} = {entry['value']}" for name, entry in options.items()))

    def log(self, step: int, values: dict) -> None:
        """Log the numbers as curves; other values are only in metrics.jsonl."""
        # a curve needs a number: null is left out
        for name, value in values.items():
            if isinstance(value, int | float):
                self.writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush pending events."""
        self.writer.close()


class WeightsAndBiases:
    """A run of the project "tritune", with the login and settings of `wandb`."""

    def __init__(self, folder: Path, options: dict) -> None:
        wandb = need("wandb", why="--log-to wandb")
        config = {name: entry["value"] for name, entry in options.items()}
        folder.mkdir(parents=True, exist_ok=True)
        self.run = wandb.init(project="tritune", name=folder.name, dir=folder, config=config, resume="allow")

    def log(self, step: int, values: dict) -> None:
        """Log the row unchanged."""
        self.run.log(values, step=step)

    def close(self) -> None:
        """End the run."""
        self.run.finish()


KINDS = {"tensorboard": TensorBoard, "wandb": WeightsAndBiases}


def open_trackers(names: str | None, folder: Path, options: dict) -> list[Tracker]:
    """Trackers by name, separated by commas. UserError for an unknown name or a missing package."""
    # all names are checked before any tracker is opened
    wanted = [name.strip() for name in (names or "").split(",") if name.strip()]
    unknown = [name for name in wanted if name not in KINDS]
    if unknown:
        raise UserError(f"--log-to {unknown[0]}: must be one of {', '.join(KINDS)}")
    return [KINDS[name](folder, options) for name in wanted]


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
        self._file.flush()  # readable while the run goes on, and complete after a kill
        for tracker in self.trackers:
            tracker.log(step, finite)

    def close(self) -> None:
        """Close the file and the trackers."""
        self._file.close()
        for tracker in self.trackers:
            tracker.close()
