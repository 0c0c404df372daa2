"""TensorBoard and Weights & Biases receive the rows of metrics.jsonl."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
import torch

from common.console import UserError
from common.options import Resolved
from training.run import Run


def go(folder, log_to):
    run = Run(folder, "cpt", Resolved(SimpleNamespace(lr=0.1), {"lr": "default"}), resume=False)
    run.start(device=torch.device("cpu"), dtype=torch.float32, data={}, log_to=log_to)
    run.log(1, loss=2.5, norm=float("inf"), skipped=False)
    run.finish({})


def test_weights_and_biases_gets_options_and_rows(tmp_path, monkeypatch):
    told = []
    run = SimpleNamespace(log=lambda values, step: told.append((step, values)), finish=lambda: told.append("over"))
    fake = SimpleNamespace(init=lambda **settings: told.append(settings) or run)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    go(tmp_path / "run", "wandb")
    assert told[0]["config"] == {"lr": 0.1} and told[0]["name"] == "run" and told[0]["project"] == "tritune"
    assert told[1:] == [(1, {"loss": 2.5, "norm": None, "skipped": False}), "over"]


def test_tensorboard_has_the_curves(tmp_path):
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    go(tmp_path / "run", "tensorboard")
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(1, 2.5)]
    assert "norm" not in events.Tags()["scalars"]


@pytest.mark.parametrize(("name", "said"), [("mlflow", "must be one of tensorboard, wandb"), ("wandb", "wandb")])
def test_an_unknown_or_missing_tracker_is_one_line(tmp_path, monkeypatch, name, said):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match=said):
        go(tmp_path / "run", name)
    assert not (tmp_path / "run").exists()
