"""Stages of an experiment: what is done is skipped, what was stopped resumes, what fails is named."""

from __future__ import annotations

import pytest
import torch

from common.console import UserError
from experiments.stages import WITH_DTYPE, DtypeOptions, expected_minutes, in_dtype, plan, run_stages, stage
from model.device import DTYPES
from tests.commands import run

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


def test_every_command_that_computes_is_told_the_dtype_of_the_experiment(tmp_path):
    stages = [
        stage(tmp_path / "a", "train_sft.py", "--lr", 1), stage(tmp_path / "b", "-m", "eval.code", "--limit", 3),
        stage(tmp_path / "c", "-m", "data.corpus"), stage(tmp_path / "d", "-c", "pass"),
    ]  # fmt: skip
    told = [one.command[-2:] == ("--dtype", "bf16") for one in in_dtype(stages, "bf16")]
    assert told == [True, True, False, False]
    for program in WITH_DTYPE:
        command = [program] if program.endswith(".py") else ["-m", program]
        assert "--dtype {auto," in run(*command, "--help").stdout, program


def test_the_dtype_of_an_experiment_is_this_machine_s_unless_it_is_named(monkeypatch):
    assert DtypeOptions(dtype="fp32").dtype == "fp32"
    for chosen in (torch.bfloat16, torch.float32):
        monkeypatch.setattr("experiments.stages.choose_dtype", lambda device, wanted, chosen=chosen: chosen)
        assert DTYPES[DtypeOptions().dtype] == chosen
