"""Stages of an experiment: what is done is skipped, what was stopped resumes, what fails is named."""

from __future__ import annotations

import pytest

from common.console import UserError
from experiments.stages import expected_minutes, plan, run_stages, stage

WRITE = "import sys, pathlib; pathlib.Path(sys.argv[1]).write_text(' '.join(sys.argv[2:]))"


def test_a_stage_that_is_done_is_skipped_and_one_that_was_begun_resumes(tmp_path):
    done, rest, begun = tmp_path / "a", tmp_path / "b", tmp_path / "begun"
    done.write_text("kept")
    stages = [
        stage(done, "-c", WRITE, done, "again"),
        stage(rest, "-c", WRITE, rest, "made", resume=["--resume"], begun=begun),
    ]
    assert run_stages(stages)
    assert (done.read_text(), rest.read_text()) == ("kept", "made")
    rest.unlink()
    begun.write_text("")
    assert run_stages(stages) and rest.read_text() == "made --resume"


def test_no_stage_starts_after_the_time_limit(tmp_path, capsys):
    assert not run_stages([stage(tmp_path / "a", "-c", WRITE, tmp_path / "a")], max_minutes=0)
    assert not (tmp_path / "a").exists() and "time limit reached" in capsys.readouterr().out


@pytest.mark.parametrize("code", ["raise SystemExit(2)", "pass"])
def test_a_stage_that_fails_or_leaves_nothing_is_named(tmp_path, code):
    with pytest.raises(UserError, match=r"stage 1 failed with status [02]: python -c"):
        run_stages([stage(tmp_path / "a", "-c", code)])


def test_the_plan_counts_the_minutes_of_what_is_not_done(tmp_path):
    (tmp_path / "a").write_text("")
    shown = plan([stage(tmp_path / "a", "a.py", minutes=9), stage(tmp_path / "b", "b.py", minutes=30)]).split("\n")
    assert shown[0].split() == ["done", "python", "a.py"] and shown[1].split() == ["30", "min", "python", "b.py"]
    assert shown[2].startswith("  30 min  of 2 stages")
    assert expected_minutes(trained=140 * 60, answered=130 * 120) == pytest.approx(3)
