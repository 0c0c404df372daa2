"""How the plan is carried out: in order, up to a time, past what fails."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from common.console import UserError
from common.files import write_json
from experiments.study import schedule
from experiments.study.finished import file_of, is_done
from experiments.study.grid import METHODS, MODELS, TASKS, plan
from experiments.study.schedule import carry_out_all, plan_table

RUNS = plan([MODELS["smollm2-135m"]], [TASKS["trec"]], ["lora-8", "full"], (0, 1))


@pytest.fixture
def carried(tmp_path, monkeypatch):
    """Carries out the runs, of which the named ones fail; returns what started, what failed and when it was written."""

    def with_failures(*failing: str, max_minutes: float | None = None):
        started, written = [], []

        def carry_out(run, out, kept, dtype):
            started.append(run.name)
            if run.name in failing:
                raise UserError("stage 1 failed")
            write_json(file_of(run, kept), {"record": {"seconds": 120.0}, "answers": {}})

        monkeypatch.setattr(schedule, "carry_out", carry_out)
        failed = carry_out_all(
            RUNS, tmp_path / "out", tmp_path, dtype="fp32", max_minutes=max_minutes,
            after_each=lambda: written.append(len(started)),
        )  # fmt: skip
        return started, failed, written

    return with_failures


def test_a_run_that_fails_takes_only_those_with_its_learning_rate_along(carried, tmp_path, capsys):
    names = [run.name for run in RUNS]
    started, failed, written = carried("trec/full/600-rows/seed-0")
    assert started == [name for name in names if "full" not in name or name == "trec/full/600-rows/seed-0"]
    assert failed == {"SmolLM2-135M-Instruct trec/full/600-rows/seed-0": "stage 1 failed"}
    assert written == [*range(1, len(started) + 1), len(started)]
    assert "failed   trec/full/600-rows/seed-0: stage 1 failed" in capsys.readouterr().out

    # later, only what is missing
    started, failed, _ = carried()
    assert started == [name for name in names if "full" in name] and not failed
    assert all(is_done(run, tmp_path) for run in RUNS) and carried()[0] == []


def test_no_run_starts_after_the_time_limit(carried, capsys):
    assert carried(max_minutes=0) == ([], {}, [0])
    assert f"stopped  before run 1 of {len(RUNS)}: time limit reached" in capsys.readouterr().out


def test_the_plan_says_what_is_tried_what_was_done_and_what_is_left(carried, tmp_path):
    carried("trec/full/600-rows/seed-0")
    lines = plan_table(RUNS, tmp_path, []).splitlines()
    assert len(lines) == len(RUNS) + 2 and [line.endswith("done in 2.0") for line in lines[1:4]] == [True, True, False]
    assert "tries 0.0002 0.0006 0.002" in lines[2] and lines[3].endswith("to do") and "as chosen" in lines[5]
    assert lines[-1].startswith(f"{len(RUNS)} runs, about ") and len(METHODS["full"].rates) == 3
    whole, left = map(float, re.findall(r"\d+\.\d", lines[-1]))
    assert 0 < left < whole
    assert plan_table(RUNS, tmp_path, ["smollm2-135m"]).splitlines()[-1].startswith("0 runs, about 0.0 hours")


def test_the_seconds_of_processors_are_those_of_the_commands():
    before = schedule.processor_seconds()
    subprocess.run([sys.executable, "-c", "sum(range(1_000_000))"], check=True)
    assert 0 < schedule.processor_seconds() - before < 600
