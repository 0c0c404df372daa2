"""--chunk-tokens is measured, unless it is given."""

from __future__ import annotations

import pytest
import torch

from common.console import UserError
from data.contrastive import PairTable, plan_batches
from model import load_encoder
from train_embed import Options
from training import fit_chunks
from training.fit_chunks import fitted_chunk_tokens
from training.options import parse
from training.precision import Precision
from training.run import Run

PAIRS = [
    {
        "query": f"find {'abcdefghijk'[i]}",
        "code": f"def {'lmnopqrstuv'[i]} " + "x y " * i,
        "negatives": [f"{'pqr'[i % 3]} {i}"],
    }
    for i in range(11)
]


@pytest.fixture
def chunk_tokens(reference_encoder, tmp_path, monkeypatch):
    """chunk_tokens(free) -> what is found with so many bytes free, where a pass takes 10^6 bytes per token."""
    encoder = load_encoder(str(reference_encoder[1]))
    arguments = ["--model", "m", "--data", "d", "--out", str(tmp_path / "run")]
    run = Run(tmp_path / "run", "embed", parse(Options, arguments), resume=False)
    table = PairTable(PAIRS, encoder, negatives=1)
    plan = plan_batches(table.lengths(), pairs_per_step=11, epochs=1, seed=0)
    monkeypatch.setattr(fit_chunks, "TRIAL", 128)
    monkeypatch.setattr(fit_chunks, "_peak_of_a_pass", lambda encoder, precision, rows: 10**6 * sum(map(len, rows)))
    monkeypatch.setattr(fit_chunks, "held_memory", lambda device: 0)

    def call(free: int) -> int:
        monkeypatch.setattr(fit_chunks, "free_memory", lambda device: free)
        return fitted_chunk_tokens(run, encoder, Precision(torch.device("cpu"), torch.float32), table, plan)

    return call


def test_a_batch_that_fits_is_not_divided(chunk_tokens, capsys):
    assert 700 < chunk_tokens(free=10**9) < 800
    assert capsys.readouterr().out == ""


def test_a_batch_that_does_not_fit_is_divided_and_that_is_said(chunk_tokens, capsys):
    assert 50 < chunk_tokens(free=10**8) < 80
    assert "does not fit: chunks of" in capsys.readouterr().out


def test_a_text_that_does_not_fit_is_refused(chunk_tokens):
    with pytest.raises(UserError, match="smaller --max-length"):
        chunk_tokens(free=2 * 10**7)
