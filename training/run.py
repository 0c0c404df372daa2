"""A run's folder: what was asked for, on what it ran, and a line a step; and the progress that a person sees.

RUN/config.json        the track and every option with where its value came from
    environment.json   versions, device, hashes of the model, the data and this source
    metrics.jsonl      a line a step
    metrics.json       the summary, written last
    checkpoint/        to go on from, removed by nobody
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from tqdm import tqdm

from common.console import UserError
from common.files import read_json, read_jsonl, resume_jsonl, write_json, write_jsonl, write_text
from common.options import Resolved
from eval.environment import environment
from model.weights import model_sha256
from training import parallel
from training.checkpoint import latest_checkpoint
from training.memory import peak_memory
from training.trackers import open_trackers

FILES = ("chat_template", "validation", "test", "candidates", "probe", "pool")  # options that name a file to read
FITTED = ("micro_batch", "checkpointing")  # what --fit sets (training/fit.py)
# May change when a run is resumed. The last ones trade time for memory, for a run that ran out of it.
FREE = {"resume", "out", "device", "shard", "max_minutes", "log_to", "dry_run", "fit", "chunk_tokens", *FITTED}


class Run:
    """One training run and its folder."""

    def __init__(self, folder: str | Path, track: str, options: Resolved, *, resume: bool) -> None:
        """Refuses (UserError) a folder that is in use, or one that cannot be resumed. Writes nothing yet."""
        self.shared = self.folder = Path(folder)  # of all processes, and of this one: only the first writes into it
        self.track, self.options = track, options
        self.checkpoints = self.shared / "checkpoint"
        self.resume_from: Path | None = None
        self._bar: tqdm | None = None
        self._losses: list[torch.Tensor] = []
        self._began = self._started = time.perf_counter()
        self.seconds_after = 0.0  # to leave for what follows the training, under --max-minutes
        self.is_last = False
        if self.folder.is_dir() and any(self.folder.iterdir()):
            if not resume:
                raise UserError(f"{folder}: not empty; give another --out, or --resume to go on with the run in it")
            self._refuse_other_options(read_json(self.folder / "config.json"))
            self.resume_from = latest_checkpoint(self.checkpoints)
        elif self.folder.exists() and not self.folder.is_dir():
            raise UserError(f"{folder}: a file is in the way; give another --out")
        elif resume:
            raise UserError(f"{folder}: nothing to resume there; leave --resume away to start")
        self.folder = parallel.own_folder(self.shared)

    def start(
        self, *, device: torch.device, dtype: torch.dtype, data: dict[str, str], log_to: str | None = None
    ) -> None:
        """Create the folder. Called when all input has been read and found good. `data`: name -> hash or figure.

        log_to  see training/trackers.py
        UserError when a run is resumed with other data, whose position is no more than the number of the step, over
        another model at the same path, or with another file of the same name.
        """
        inputs = self._inputs()
        if self.resume_from:
            self._refuse_other_inputs(read_json(self.folder / "environment.json"), data, inputs)
        log_to = log_to if parallel.rank() == 0 else None
        self._device, self._trackers = device, open_trackers(log_to, self.folder, self.options.as_dict())
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self.folder / "config.json", {"track": self.track, "options": self.options.as_dict()})
        write_json(
            self.folder / "environment.json",
            environment(device, dtype) | {"processes": str(parallel.world())} | inputs | data,
        )
        log = self.folder / "metrics.jsonl"
        done = int(self.resume_from.name.removeprefix("step-")) if self.resume_from else 0
        # what a killed run logged after its last checkpoint will be done again
        write_jsonl(log, [row for row in resume_jsonl(log) if row["step"] <= done])
        self._log = open(log, "a", encoding="utf-8")  # noqa: SIM115 (open as long as the run is)

    def steps(self, first: int, total: int, *, max_minutes: float = 0.0) -> Iterator[int]:
        """Step numbers first + 1 … total, with a progress bar and the time left.

        It ends sooner after `stop`, and when `max_minutes` since the run began (0: no limit) leave no more than
        what follows the training will take. `is_last` is known while a step is done.
        """
        self._started = time.perf_counter()
        step, time_is_over = first, False
        with tqdm(total=total, initial=first, desc="step", unit="step", disable=None, dynamic_ncols=True) as self._bar:
            for step in range(first + 1, total + 1):
                self._step_began = time.perf_counter()
                each = (self._step_began - self._started) / max(1, step - 1 - first)
                self._left = each * (total - step)
                ends = self._step_began - self._began + 2 * each + self.seconds_after
                time_is_over = max_minutes > 0 and any(parallel.of_every_rank(ends > 60 * max_minutes))
                self.is_last = step == total or time_is_over
                yield step
                self._bar.update()
                if self.is_last:
                    break
        self._bar = None
        if step < total:
            why = (
                "--max-minutes are over; --resume goes on, with more of them" if time_is_over else "--patience is over"
            )
            print(f"stopped  after step {step} of {total}: {why}")

    def stop(self) -> None:
        """Let the present step be the last."""
        self.is_last = True

    def due(self, step: int, every: int) -> bool:
        """Whether something that happens every so many steps (0: never), and at the last one, happens now."""
        return every > 0 and (step % every == 0 or self.is_last)

    def add(self, loss: torch.Tensor) -> None:
        """Count a micro-batch's share of the step's loss. It stays on the device: no wait here."""
        self._losses.append(loss.detach())

    def take_loss(self) -> float:
        """The step's loss: the sum of its shares. Here the host waits for the device."""
        total = torch.stack(self._losses).sum().item()
        self._losses.clear()
        return total

    def log(self, step: int, **values) -> None:
        """Append a line to metrics.jsonl and show it. What is not finite, as a skipped step's norm, becomes null."""
        finite = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}
        row = {"step": step, **finite, "seconds": round(time.perf_counter() - self._started, 3)}
        self._log.write(json.dumps(row) + "\n")
        self._log.flush()
        for tracker in self._trackers:
            tracker.log(step, finite)
        if self._bar is not None:
            shown = {key: f"{value:.4g}" for key, value in values.items() if isinstance(value, float)}
            self._bar.set_postfix(shown, refresh=False)

    def costs(self, tokens: int) -> dict[str, float]:
        """What the present step took, for its line: a rate, the most memory so far, and the time left."""
        seconds = time.perf_counter() - self._step_began
        return {
            "tokens_per_second": round(tokens / seconds, 1),
            "memory_gib": round(peak_memory(self._device) / 2**30, 3),
            "seconds_left": round(self._left, 1),
        }

    def validations(self) -> list[tuple[int, float]]:
        """(step, validation loss) of the run so far, also of what came before --resume."""
        rows = read_jsonl(self.folder / "metrics.jsonl")
        return [(row["step"], row["validation_loss"]) for row in rows if row.get("validation_loss") is not None]

    def add_samples(self, step: int | None, markdown: str) -> None:
        """Append what the model says after a step (None: at the end) to samples.md; what came later there goes."""
        path = self.folder / "samples.md"
        heading = "# At the end\n" if step is None else f"# After step {step}\n"
        before = path.read_text(encoding="utf-8") if path.is_file() else ""
        before = before.partition(heading)[0].partition("# At the end\n")[0]  # of a run that was gone on with
        write_text(path, f"{before}{heading}\n{markdown}\n")

    def finish(self, metrics: dict) -> None:
        """Write the summary: from now on the run counts as done."""
        self._log.close()
        for tracker in self._trackers:
            tracker.close()
        write_json(self.folder / "metrics.json", metrics)

    def _inputs(self) -> dict[str, str]:
        """{OPTION_sha256: of what the option names}: the model, and the files beside the training data."""
        given = {name: entry["value"] for name, entry in self.options.as_dict().items()}
        hashes = {}
        if given.get("model"):  # once for all processes: it may be many GB
            first = model_sha256(given["model"]) if parallel.rank() == 0 else ""
            hashes["model_sha256"] = parallel.of_every_rank(first)[0]
        for name in FILES:
            if given.get(name) and Path(given[name]).is_file():
                hashes[f"{name}_sha256"] = hashlib.sha256(Path(given[name]).read_bytes()).hexdigest()
        return hashes

    def _refuse_other_inputs(self, before: dict, data: dict[str, str], inputs: dict[str, str]) -> None:
        odd = [name for name, value in data.items() if before.get(name) != value]
        if odd:
            raise UserError(f"{self.folder}: cannot resume, the data have changed ({odd[0]}); give another --out")
        for name, value in inputs.items():
            if before.get(name, value) != value:  # a run of an earlier version has recorded none
                option = name.removesuffix("_sha256")
                flag = f"--{option.replace('_', '-')} {getattr(self.options.values, option)}"
                raise UserError(
                    f"{self.folder}: cannot resume, {flag} is not what it was when the run was started ({name}); "
                    "put that back, or give another --out"
                )

    def _refuse_other_options(self, saved: dict) -> None:
        for name, entry in self.options.as_dict().items():
            before = saved.get("options", {}).get(name, {}).get("value")
            is_measured = saved["options"].get(name, {}).get("from") == "--fit"
            if name not in FREE and not is_measured and before != entry["value"]:
                raise UserError(
                    f"{self.folder}: cannot resume with --{name.replace('_', '-')} {entry['value']}; the run was "
                    f"started with {before}"
                )
