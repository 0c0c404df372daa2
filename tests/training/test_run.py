"""A run's folder."""

from __future__ import annotations

import math

import torch

from model.files import read_jsonl
from training.options import Resolved
from training.run import Run


def test_the_line_of_a_skipped_step_can_be_read_again(tmp_path):
    run = Run(tmp_path / "run", "cpt", Resolved(None, {}), resume=False)
    run.start(device=torch.device("cpu"), dtype=torch.float32, data={})
    run.log(1, loss=2.5, norm=math.inf, tokens=7, skipped=True)
    run.log(2, loss=math.nan, norm=math.nan, tokens=7, skipped=True)
    first, second = read_jsonl(tmp_path / "run" / "metrics.jsonl")  # as --resume and the report read them
    assert (first["step"], first["loss"], first["norm"], first["skipped"]) == (1, 2.5, None, True)
    assert second["loss"] is None and second["tokens"] == 7
