"""The cost of a run is read from what it logged and saved."""

from __future__ import annotations

import json

import pytest
from safetensors.torch import load_file

import train_sft
from common.files import write_jsonl
from training.cost import cost_line, cost_of

STEP = {"loss": 1.0, "tokens": 100, "supervised": 40, "memory_gib": 1.5, "tokens_per_second": 50.0, "seconds": 2.0}


def test_costs_are_sums_medians_and_peaks_over_all_steps(tmp_path):
    """A skipped step counts, a validation is no step, and a resumed run starts its clock again."""
    slow = STEP | {"tokens": 50, "supervised": 10, "tokens_per_second": 10.0, "memory_gib": 2.25}
    resumed = STEP | {"loss": None, "tokens_per_second": 25.0, "seconds": 0.1}
    log = [STEP, slow, {"validation_loss": 2.0}, resumed]
    write_jsonl(tmp_path / "metrics.jsonl", [{"step": i, **row} for i, row in enumerate(log)])
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_model.safetensors").write_bytes(b"x" * 12)
    (tmp_path / "adapter" / "tritune.json").write_bytes(b"{}")
    cost = cost_of(tmp_path, 7)
    assert cost == {
        "trainable_parameters": 7, "file_bytes": 12, "steps": 3, "seconds_per_step": 4.0, "memory_gib": 2.25,
        "tokens": 250, "supervised_tokens": 90,
    }  # fmt: skip
    assert cost_line(cost).endswith("3 steps of 4.00 s · peak 2.25 GiB · 250 tokens, 90 supervised")


def test_a_run_without_steps_has_no_duration(tmp_path):
    (tmp_path / "metrics.jsonl").write_text("")
    assert cost_of(tmp_path, 7) == {"trainable_parameters": 7, "file_bytes": 0, "steps": 0}
    assert cost_line(cost_of(tmp_path, 7)) == "0.00 M trainable · 0.0 MB"


@pytest.mark.parametrize("full", [False, True])
def test_the_trainable_parameters_are_those_in_the_file(tiny_folder, tmp_path, full):
    (tmp_path / "rows.jsonl").write_text('{"instruction": "Add", "output": "1"}\n')
    options = ["--model", tiny_folder, "--data", tmp_path / "rows.jsonl", "--out", tmp_path / "run", "--max-length", 64]
    train_sft.main(
        [*map(str, options), *(["--method", "full"] if full else ["--r", "2"]), "--dtype", "fp32", "--epochs", "1"]
    )
    cost = json.loads((tmp_path / "run" / "metrics.json").read_text())["tracks"]["sft"]["cost"]
    (file,) = [one for name in ("adapter", "model") for one in (tmp_path / "run" / name).glob("*.safetensors")]
    assert cost["trainable_parameters"] == sum(tensor.numel() for tensor in load_file(file).values())
    assert cost["file_bytes"] == file.stat().st_size and cost["steps"] == 1 and cost["tokens"] > 20
