"""Early stopping keeps the weights with which the validation loss was lowest."""

from __future__ import annotations

import math

import torch
from torch import nn

from training.validation import EarlyStopping


def offer_all(best, network, losses, first=1):
    said = []
    for step, loss in enumerate(losses, first):
        nn.init.constant_(network.weight, step)
        said.append(best.update(step, loss))
    return said


def test_it_stops_after_patience_validations_without_a_new_lowest_and_restores_the_best(tmp_path, capsys):
    network = nn.Linear(2, 2, bias=False)
    best = EarlyStopping(tmp_path / "best.safetensors", network, 2, [])
    assert offer_all(best, network, [3.0, 2.0, 2.5, math.nan]) == [False, False, False, True]
    best.restore()
    assert torch.equal(network.weight, torch.full((2, 2), 2.0)) and "after step 2" in capsys.readouterr().out


def test_a_new_lowest_restarts_the_count_and_the_last_may_be_the_best(tmp_path):
    network = nn.Linear(2, 2, bias=False)
    best = EarlyStopping(tmp_path / "best.safetensors", network, 2, [])
    assert offer_all(best, network, [3.0, 3.5, 2.0, 2.2, 1.9]) == [False] * 5
    best.restore()
    assert torch.equal(network.weight, torch.full((2, 2), 5.0))


def test_validations_before_a_resume_count(tmp_path):
    network = nn.Linear(2, 2, bias=False)
    offer_all(EarlyStopping(tmp_path / "best.safetensors", network, 2, []), network, [2.0, 2.5])
    resumed = EarlyStopping(tmp_path / "best.safetensors", network, 2, [(1, 2.0), (2, 2.5)])
    assert offer_all(resumed, network, [2.4], first=3) == [True]
    resumed.restore()
    assert torch.equal(network.weight, torch.full((2, 2), 1.0))


def test_without_patience_nothing_is_written_or_restored(tmp_path):
    network = nn.Linear(2, 2, bias=False)
    best = EarlyStopping(tmp_path / "best.safetensors", network, 0, [])
    assert offer_all(best, network, [1.0, 2.0, 3.0]) == [False] * 3
    best.restore()
    assert torch.equal(network.weight, torch.full((2, 2), 3.0)) and not list(tmp_path.iterdir())


def test_nan_is_never_the_lowest_loss(tmp_path):
    network = nn.Linear(2, 2, bias=False)
    best = EarlyStopping(tmp_path / "best.safetensors", network, 2, [])
    assert offer_all(best, network, [math.nan, 2.0, 2.5]) == [False] * 3 and best.best_step == 2
