"""A run's folder."""

from __future__ import annotations

import math

import pytest
import torch

from model.console import UserError
from model.files import read_jsonl
from training.options import Resolved
from training.run import Run

CPU = {"device": torch.device("cpu"), "dtype": torch.float32}


def test_a_run_is_not_gone_on_with_on_other_data(tmp_path):
    first = Run(tmp_path, "cpt", Resolved(None, {}), resume=False)
    first.start(**CPU, data={"data_sha256": "a"})
    (tmp_path / "checkpoint" / "step-00000001").mkdir(parents=True)
    (tmp_path / "checkpoint" / "step-00000001" / "state.json").write_text("{}")
    Run(tmp_path, "cpt", Resolved(None, {}), resume=True).start(**CPU, data={"data_sha256": "a"})
    with pytest.raises(UserError, match=r"the data have changed \(data_sha256\)"):
        Run(tmp_path, "cpt", Resolved(None, {}), resume=True).start(**CPU, data={"data_sha256": "b"})


def test_the_line_of_a_skipped_step_can_be_read_again(tmp_path):
    run = Run(tmp_path / "run", "cpt", Resolved(None, {}), resume=False)
    run.start(**CPU, data={})
    run.log(1, loss=2.5, norm=math.inf, tokens=7, skipped=True)
    run.log(2, loss=math.nan, norm=math.nan, tokens=7, skipped=True)
    first, second = read_jsonl(tmp_path / "run" / "metrics.jsonl")  # as --resume and the report read them
    assert (first["step"], first["loss"], first["norm"], first["skipped"]) == (1, 2.5, None, True)
    assert second["loss"] is None and second["tokens"] == 7
