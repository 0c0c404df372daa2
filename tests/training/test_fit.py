"""--fit and --dry-run: what is measured, and what is chosen."""

from __future__ import annotations

import json

import pytest
import torch

import train_sft
from common.console import UserError
from data.masking import Example
from lora.adapter import trainable
from lora.inject import DECODER_TARGETS, inject
from training import fit as fit_module
from training.fit import Cost, fit, measure_pass
from training.precision import Precision

PRECISION = Precision(torch.device("cpu"), torch.float32)
ROW = [Example(list(range(5, 45)), list(range(5, 45)))]


def costs(monkeypatch, decoder, *, room, per_token):
    """Fake passes of `per_token` bytes by checkpointing mode, and a memory of `room` bytes."""
    seen = []

    def measured(decoder, precision, row):
        tokens = sum(len(example.input_ids) for example in row)
        seen.append((decoder.checkpointing, tokens))
        return Cost(tokens, 100 + per_token[decoder.checkpointing] * tokens, 1.0)

    monkeypatch.setattr(fit_module, "measure_pass", measured)
    monkeypatch.setattr(fit_module, "free_memory", lambda device: room / 0.8)
    return seen


def test_the_fastest_mode_that_fits_is_chosen_and_proven_by_a_full_pass(monkeypatch, tiny):
    tiny.requires_grad_(False)
    per_token = {"none": 100, "selective": 50, "full": 10}
    for room, expected in ((1e6, (3, "none")), (8200, (2, "none")), (4000, (1, "selective")), (1000, (2, "full"))):
        seen = costs(monkeypatch, tiny, room=room, per_token=per_token)
        assert fit(tiny, PRECISION, [ROW, ROW, ROW, ROW], "adamw", 3) == expected
        assert tiny.checkpointing == expected[1] and seen[-1] == (expected[1], 40 * expected[0])
    costs(monkeypatch, tiny, room=400, per_token=per_token)
    with pytest.raises(UserError, match=r"a row of 40 tokens does not fit \(0.0 GiB\)"):
        fit(tiny, PRECISION, [ROW], "adamw", 3)


def test_memory_is_reserved_for_the_optimiser(monkeypatch, tiny):
    learning = sum(parameter.numel() for parameter in tiny.requires_grad_(True).parameters())
    costs(monkeypatch, tiny, room=8200 + 8 * learning, per_token={"none": 100, "selective": 50, "full": 10})
    assert fit(tiny, PRECISION, [ROW] * 4, "adamw", 4) == (2, "none")


def test_a_measured_pass_changes_nothing(tiny):
    inject(tiny, r=4, alpha=8, targets=DECODER_TARGETS)
    before = [parameter.clone() for _, parameter in trainable(tiny)]
    cost = measure_pass(tiny, PRECISION, ROW)
    assert cost.tokens == 40 and cost.seconds > 0 and cost.bytes >= 0
    after = [parameter for _, parameter in trainable(tiny)]
    assert all(torch.equal(a, b) and b.grad is None for a, b in zip(before, after, strict=True))


@pytest.fixture
def pairs(tmp_path):
    rows = [{"instruction": f"Say {n}.", "input": "", "output": f"return {n} " * (1 + n % 3)} for n in range(24)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path / "pairs.jsonl"


def options(tiny_folder, pairs, out, *more):
    parts = ["--model", tiny_folder, "--data", pairs, "--out", out, "--max-length", 64, "--step-tokens", 256]
    return [str(part) for part in (*parts, "--epochs", 1, "--dtype", "fp32", *more)]


def test_a_resumed_run_keeps_what_was_measured_at_its_start(tiny_folder, pairs, tmp_path, monkeypatch):
    train_sft.main(options(tiny_folder, pairs, tmp_path / "run", "--fit", "--checkpoint-every", 1))
    saved = json.loads((tmp_path / "run" / "config.json").read_text())["options"]
    assert saved["micro_batch"] == {"value": 4, "from": "--fit"}
    assert saved["checkpointing"] == {"value": "none", "from": "--fit"}
    monkeypatch.setattr(fit_module, "fit", None)
    (tmp_path / "run" / "metrics.json").unlink()
    train_sft.main(options(tiny_folder, pairs, tmp_path / "run", "--fit", "--checkpoint-every", 1, "--resume"))
    again = json.loads((tmp_path / "run" / "config.json").read_text())["options"]
    assert again["micro_batch"] == {"value": 4, "from": "--fit"}


def test_a_dry_run_describes_the_run_and_writes_nothing(tiny_folder, pairs, tmp_path, capsys):
    train_sft.main(options(tiny_folder, pairs, tmp_path / "run", "--dry-run"))
    said = capsys.readouterr().out
    assert not (tmp_path / "run").exists()
    for start in ("rows ", "tokens ", "steps ", "memory ", "time ", "adapter ", "── read ──", "── learnt ──"):
        assert f"\n{start}" in said, start
    assert "Say " in said.partition("── learnt ──")[0].rpartition("── read ──")[2]
