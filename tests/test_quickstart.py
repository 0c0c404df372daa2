"""The whole way on the real defaults: `make slow`. The fast parts of quickstart.py are tested without it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

import quickstart
from common.console import UserError

ROOT = Path(__file__).resolve().parents[1]
METRICS = {
    "cpt": {"perplexity", "bits_per_byte"},
    "sft": {"pass@1", "pass@3", "lenient_pass@1", "lenient_pass@3", "style", "hallucination_rate"},
    "embed": {"mrr@10", "ndcg@10", "recall@10"},
}


@pytest.mark.slow
def test_smoke_runs_all_three_tracks_and_is_not_repeated(tmp_path):
    out = tmp_path / "run"
    command = [sys.executable, "quickstart.py", "--smoke", "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stderr
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["schema"] == 1 and metrics["tracks"].keys() == METRICS.keys()
    for name, track in metrics["tracks"].items():
        assert METRICS[name] <= track["before"].keys() and METRICS[name] <= track["after"].keys()
        for change in track["change"].values():
            assert len(change["interval"]) == 2 and change["n"] > 0
        for file in (
            "config.json",
            "environment.json",
            "metrics.jsonl",
            "samples.md",
            "failures.json",
            "report.html",
            "data_card.md",
        ):
            assert (out / name / file).stat().st_size > 0, (name, file)
    assert "bm25" in metrics["tracks"]["embed"]
    assert (out / "embed" / "index").is_dir() and (out / "cpt" / "adapter").is_dir()
    assert json.loads((out / "sft" / "after.json").read_text())["sandbox"]["tier"]
    for name in ("cpt", "sft", "embed"):
        failures = json.loads((out / name / "failures.json").read_text())
        assert failures and all(row["nearest"]["prompt"] for row in failures)
    assert str(out / "report.html") in done.stdout and "min left" in done.stdout
    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert again.returncode == 0 and again.stdout.count("is already done") == 3


def test_another_quickstart_in_the_folder_is_refused(tmp_path):
    settings = {"corpus": "package:networkx", "lm": "a", "embedder": "b", "smoke": "False", "seed": "0"}
    (tmp_path / "quickstart.json").write_text(json.dumps(settings | {"lm": "other"}))
    with pytest.raises(UserError, match="holds a quickstart with lm other"):
        quickstart.refuse_other_run(tmp_path, settings)
    (tmp_path / "quickstart.json").unlink()
    (tmp_path / "notes.txt").write_text("mine")
    for taken in (tmp_path, tmp_path / "notes.txt"):
        with pytest.raises(UserError, match="is not a quickstart"):
            quickstart.refuse_other_run(taken, settings)


def test_a_track_is_begun_gone_on_with_or_left_as_it_is(tmp_path):
    asked = []
    script = SimpleNamespace(__name__="train_x", main=lambda command: asked.append(command) or {"new": 1})
    command = ["--out", str(tmp_path / "cpt")]
    assert quickstart.run_track("cpt", script, command) == {"new": 1} and "--resume" not in asked[-1]
    (tmp_path / "cpt").mkdir()
    (tmp_path / "cpt" / "config.json").write_text("{}")  # begun, and killed at some later moment
    assert quickstart.run_track("cpt", script, command) == {"new": 1} and asked[-1][-1] == "--resume"
    (tmp_path / "cpt" / "metrics.json").write_text(json.dumps({"tracks": {"cpt": {"old": 1}}}))
    assert quickstart.run_track("cpt", script, command) == {"old": 1} and len(asked) == 2


@pytest.mark.parametrize(("changes", "named"), [({"lm": "./none"}, "./none"), ({"corpus": "./none"}, "none")])
def test_bad_input_is_refused_before_anything_is_written(tmp_path, tiny_folder, reference_encoder, changes, named):
    options = {"lm": str(tiny_folder), "embedder": str(reference_encoder[1]), "corpus": "package:networkx", "seed": 0}
    options = SimpleNamespace(**options | changes, out=tmp_path / "run")
    with pytest.raises(UserError, match=named):
        quickstart.make_data(options, quickstart.SMOKE, {})
    assert not (tmp_path / "run").exists()


def test_missing_extras_are_installed_or_named(monkeypatch):
    commands = []
    monkeypatch.setattr(quickstart, "EXTRAS", ("a_package_that_is_not_there",))
    monkeypatch.setattr(
        subprocess, "run", lambda command, **k: commands.append(command) or subprocess.CompletedProcess(command, 1)
    )
    with pytest.raises(UserError, match=r"pip install -e '\.\[extras\]'"):
        quickstart.install_extras()
    assert commands[0][1:4] == ["-m", "pip", "install"]


def test_the_estimate_follows_how_the_parts_so_far_compare_with_their_expectation(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    timetable = quickstart.Timetable({"a": 60, "b": 120})
    timetable.announce("first")
    assert "[0:00] first · about 3 min left" in capsys.readouterr().out
    now[0] = 120.0  # twice as long as expected
    timetable.finished("a")
    timetable.announce("second")
    assert "[2:00] second · about 4 min left" in capsys.readouterr().out
