"""A run's folder: its log and its samples."""

from __future__ import annotations

import math

import pytest
import torch

from common.files import read_jsonl
from training.options import Resolved
from training.run import Run

CPU = {"device": torch.device("cpu"), "dtype": torch.float32}


def test_the_line_of_a_skipped_step_can_be_read_again(tmp_path):
    run = Run(tmp_path / "run", "cpt", Resolved(None, {}), resume=False)
    run.start(**CPU, data={})
    run.log(1, loss=2.5, norm=math.inf, tokens=7, skipped=True)
    run.log(2, loss=math.nan, norm=math.nan, tokens=7, skipped=True)
    first, second = read_jsonl(tmp_path / "run" / "metrics.jsonl")  # as --resume and the report read them
    assert (first["step"], first["loss"], first["norm"], first["skipped"]) == (1, 2.5, None, True)
    assert second["loss"] is None and second["tokens"] == 7


@pytest.fixture
def run(tmp_path):
    made = Run(tmp_path / "run", "cpt", Resolved(None, {}), resume=False)
    made.start(**CPU, data={})
    return made


def test_the_validations_of_a_run_are_those_of_its_log(run):
    for step in (1, 2, 3):
        run.log(step, loss=0.0)
        run.log(step, validation_loss=1.0 / step)
    assert run.validations() == [(1, 1.0), (2, 0.5), (3, pytest.approx(1 / 3))]


def test_rows_after_the_last_checkpoint_are_dropped_on_resume(run):
    for step in (1, 2, 3):
        run.log(step, loss=float(step))
    (run.checkpoints / "step-00000002").mkdir(parents=True)
    (run.checkpoints / "step-00000002" / "state.json").write_text("{}")
    again = Run(run.folder, "cpt", Resolved(None, {}), resume=True)
    again.start(**CPU, data={})
    again.log(3, loss=9.0)
    assert [(row["step"], row["loss"]) for row in read_jsonl(run.folder / "metrics.jsonl")] == [(1, 1), (2, 2), (3, 9)]


def test_samples_of_steps_that_are_done_again_are_not_kept_twice(run):
    for step, text in ((5, "a"), (10, "b"), (15, "c"), (None, "old"), (10, "d"), (None, "e")):
        run.add_samples(step, text)
    assert (run.folder / "samples.md").read_text() == ("# After step 5\n\na\n# After step 10\n\nd\n# At the end\n\ne\n")


def test_samples_of_a_run_that_went_on_stand_before_its_end(run):
    for step, text in ((5, "a"), (None, "old"), (10, "b"), (None, "e")):
        run.add_samples(step, text)
    assert (run.folder / "samples.md").read_text() == ("# After step 5\n\na\n# After step 10\n\nb\n# At the end\n\ne\n")
