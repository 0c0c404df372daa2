"""What bench.embed computes besides its measurements, and a complete run on a tiny network."""

from __future__ import annotations

import json

import pytest

from bench import embed
from bench.embed import pairs_per_second
from common.console import UserError


def test_pairs_per_second_exclude_warm_up():
    steps = [{"pairs": 8, "seconds": 5.0}, {"pairs": 8, "seconds": 6.0}, {"pairs": 4, "seconds": 7.5}]
    assert pairs_per_second(steps, 1) == 12 / 2.5
    assert pairs_per_second(steps, 0) == 20 / 7.5


def test_their_fastest_setting_is_chosen(monkeypatch, tmp_path):
    rates = {8: 1.0, 32: 3.0, 128: 2.0}
    monkeypatch.setattr(embed, "in_a_process", lambda work, folder: {"rate": rates[work["batch_size"]]})
    settings = [{"batch_size": size} for size in rates]
    assert embed._best({"measure": "encode"}, tmp_path, settings) == {"batch_size": 32}


def test_a_failing_side_reports_its_error(tmp_path):
    work = {"measure": "encode ours", "model": str(tmp_path / "nowhere"), "device": "cpu"}
    with pytest.raises(UserError, match=r"^encode ours failed: .*nowhere"):
        embed.in_a_process(work, tmp_path)


@pytest.mark.slow
def test_both_sides_are_tuned_and_measured_in_one_run(reference_encoder, tmp_path, monkeypatch):
    pytest.importorskip("sentence_transformers")
    small = ["--pairs", "24", "--batch", "8", "--epochs", "1", "--runs", "1", "--steps", "2", "--memory-batch", "16"]
    out = tmp_path / "out.json"
    monkeypatch.setattr("sys.argv", ["embed", "--model", str(reference_encoder[1]), *small, "--out", str(out)])
    embed.main()
    result = json.loads(out.read_text())
    rows = {row["name"]: row for row in result["rows"]}
    assert {row["unit"] for row in rows.values()} == {"%", "pairs/s", "texts/s", "GiB"} and len(rows) == 6
    assert all(row["ours"] > 0 and row["theirs"] > 0 for row in rows.values())
    quality = [row for row in rows.values() if row["unit"] == "%"]
    assert len({row["ours"] for row in quality}) == 1 and all("points" in row["note"] for row in quality)
    assert len(rows["training, mixed lengths"]["runs"]) == 1 and result["environment"]["sentence-transformers"]
