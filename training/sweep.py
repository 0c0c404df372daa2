"""--sweep lr=1e-4,3e-4,1e-3: choose the learning rate by short trials.

    the fresh adapter ─┬─ learn with 1e-4, a fifth of the steps ── validation loss 1.31 ─┐
                       ├─ learn with 3e-4 ────────────────────────────────────────  1.24 ─┼─ the lowest: 3e-4
                       └─ learn with 1e-3 ────────────────────────────────────────  1.52 ─┘

A trial is the script's own loop with a schedule of its own length, in a folder RUN/sweep/lr-VALUE. Afterwards weights
and random states are those of before: the run that follows is the one that --lr with the chosen value would have been,
bit for bit. RUN/sweep.json records what was tried; a resumed run repeats no finished trial.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass

import torch

from common.console import UserError
from common.files import read_json, write_json
from data.masking import Example
from lora.adapter import trainable
from model.decoder import Decoder
from training import parallel
from training.methods import learning_rates
from training.precision import Precision
from training.random_state import random_state, restore_random_state
from training.run import Run
from training.sharding import own_part
from training.steps import Deadline

SHARE = 5  # of the run's steps, one in so many
LEAST, MOST = 10, 100  # steps of a trial, if the run has as many


@dataclass(frozen=True)
class Trial:
    """What one learning rate led to."""

    lr: float
    validation_loss: float | None  # None if it is not finite
    steps: int


def trial_steps(steps: int) -> int:
    """Steps of a trial in a run of so many."""
    return min(steps, max(LEAST, min(MOST, steps // SHARE)))


def sweep(
    run: Run,
    learn: Callable[..., None],
    decoder: Decoder,
    precision: Precision,
    rows: list[list[Example]],
    windows: list[list[int]],
    *,
    validation: list[list[Example]],
    deadline: Deadline,
) -> None:
    """Make the trials that are missing, and set the run's learning rate to the best of them.

    learn    the script's training loop
    windows  the rows of each optimiser step of the run

    UserError when no trial ends with a finite loss. All ranks call it together.
    """
    record = run.folder / "sweep.json"
    tried = [Trial(**trial) for trial in read_json(record)["tried"]] if record.is_file() else []
    before = _state(decoder, precision)
    for lr in learning_rates(run.options.values.sweep):
        if lr in {trial.lr for trial in tried}:
            continue
        # one trial, from the weights and random states that the run starts from
        trial_run = _trial_run(run, lr, precision)
        fresh = Precision(precision.device, precision.dtype)
        fresh.fp32_modules = precision.fp32_modules  # one that overflows in a trial stays in fp32
        learn(
            trial_run, decoder, fresh, rows, windows[: trial_steps(len(windows))], validation=validation,
            sample=lambda: "", deadline=deadline,
        )  # fmt: skip
        _restore(decoder, precision, before)

        # what came of it
        step, loss = trial_run.validations()[-1]
        tried.append(Trial(lr, loss if math.isfinite(loss) else None, step))
        write_json(record, {"tried": [vars(trial) for trial in tried]})
        print(f"sweep    lr {lr:g}: validation loss {loss:.4f} after {step} steps")

    # the lowest loss
    finite = [trial for trial in tried if trial.validation_loss is not None]
    if not finite:
        raise UserError("--sweep: no learning rate gave a finite validation loss; give smaller ones")
    best = min(finite, key=lambda trial: trial.validation_loss or 0.0)
    print(f"sweep    chose lr {best.lr:g} of {', '.join(f'{trial.lr:g}' for trial in tried)}")
    write_json(record, {"tried": [vars(trial) for trial in tried], "chosen": best.lr})
    run.set_options("--sweep", lr=best.lr)
    run.save_options()


def _trial_run(run: Run, lr: float, precision: Precision) -> Run:
    """A run of its own, without checkpoints and samples, that validates after its last step."""
    # what an interrupted trial has left; nobody writes before all have seen it gone
    folder = run.shared / "sweep" / f"lr-{lr:g}"
    if parallel.rank() == 0:
        shutil.rmtree(folder, ignore_errors=True)
    parallel.of_every_rank(None)

    without = {"sweep": None, "checkpoint_every": 0, "sample_every": 0, "patience": 0, "validate_every": 10**9}
    trial = Run(folder, run.track, run.options.with_values("--sweep", lr=lr, **without), resume=False)
    trial.start(device=precision.device, dtype=precision.dtype, data={})
    return trial


def _state(decoder: Decoder, precision: Precision) -> tuple[dict[str, torch.Tensor], tuple]:
    """Copies of the trainable parameters (this rank's shard under FSDP), and the random states."""
    weights = {name: own_part(parameter).detach().clone() for name, parameter in trainable(decoder)}
    return weights, random_state(precision.device)


@torch.no_grad()
def _restore(decoder: Decoder, precision: Precision, state: tuple[dict[str, torch.Tensor], tuple]) -> None:
    weights, (tensors, values) = state
    for name, parameter in trainable(decoder):
        own_part(parameter).copy_(weights[name])
    restore_random_state(tensors, values, precision.device)
