"""The optimiser steps of a run: their numbers, the progress bar, what each costs, and when to stop early."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from common.console import no_progress, tqdm
from model.memory import peak_memory
from training import parallel

SHOWN = ("loss", "validation_loss", "lr", "tokens_per_second", "memory_gib")  # of a row, beside the progress bar


@dataclass(frozen=True)
class Deadline:
    """--max-minutes: stop training early enough to save and evaluate within the limit."""

    minutes: float  # 0: no limit
    started: float  # time.perf_counter() at the start of the run
    reserve: float = 0.0  # seconds kept for the evaluation that follows training

    def is_near(self, seconds: float) -> bool:
        """Whether `seconds` of further training and the evaluation would exceed the limit, on any rank."""
        if not self.minutes:
            return False
        # any rank: all must leave the loop at the same step
        end = time.perf_counter() - self.started + seconds + self.reserve
        return any(parallel.of_every_rank(end > 60 * self.minutes))


class Steps:
    """Iterates over the step numbers done + 1 … total and shows a progress bar.

    done   steps that a resumed run has already made
    total  steps of the whole run
    """

    def __init__(self, done: int, total: int, deadline: Deadline) -> None:
        self.done, self.total, self.deadline = done, total, deadline
        self.current = done
        self.is_last = False  # known during the step, so that its checkpoint and validation are not missed
        self._stopped_because = ""
        self._shown: dict[str, str] = {}

    def __iter__(self) -> Iterator[int]:
        self._started = time.perf_counter()
        with tqdm(
            total=self.total, initial=self.done, desc="step", unit="step", dynamic_ncols=True,
            disable=no_progress(),
        ) as self._bar:  # fmt: skip
            while self.current < self.total and not self.is_last:
                self._begin(self.current + 1)
                yield self.current
                self._bar.update()
        if self.current < self.total:
            print(f"stopped  after step {self.current} of {self.total}: {self._stopped_because}")

    def _begin(self, step: int) -> None:
        """Start a step, which is the last one if there is no time for another."""
        # the average so far, without the steps of an earlier process
        self.current, self._step_started = step, time.perf_counter()
        average = (self._step_started - self._started) / max(1, step - 1 - self.done)
        self._left = average * (self.total - step)

        # room for this step, and as long again in case it is slower
        self.is_last = step == self.total
        if self.deadline.is_near(2 * average):
            self.stop("time limit reached; resume with --resume and a larger --max-minutes")

    def stop(self, reason: str) -> None:
        """Make the current step the last one."""
        self.is_last = True
        self._stopped_because = self._stopped_because or reason

    def due(self, every: int) -> bool:
        """Whether something done every `every` steps (0: never), and after the last one, is due at the current step."""
        return every > 0 and (self.current % every == 0 or self.is_last)

    @property
    def seconds(self) -> float:
        """Time since the first step began."""
        return round(time.perf_counter() - self._started, 3)

    def costs(self, tokens: int, device: torch.device) -> dict[str, float]:
        """The cost of the current step for its row in the log: throughput, peak memory so far, remaining time."""
        seconds = time.perf_counter() - self._step_started
        return {
            "tokens_per_second": round(tokens / seconds, 1),
            "memory_gib": round(peak_memory(device) / 2**30, 3),
            "seconds_left": round(self._left, 1),
            "seconds": self.seconds,
        }

    def log(self, step: int, values: dict) -> None:
        """As a tracker: show the main figures of a row beside the progress bar. Each stays until it is replaced."""
        self._shown |= {name: f"{values[name]:.4g}" for name in SHOWN if values.get(name) is not None}
        self._bar.set_postfix(self._shown, refresh=False)

    def close(self) -> None:
        """As a tracker: nothing to do, the bar is closed after the last step."""
