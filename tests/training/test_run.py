"""A run's folder."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from common.console import UserError
from common.files import read_jsonl
from common.options import Resolved
from training import run as run_module
from training.run import Run

CPU = {"device": torch.device("cpu"), "dtype": torch.float32}


def test_a_run_is_not_gone_on_with_on_other_data(tmp_path):
    first = Run(tmp_path, "cpt", Resolved(None, {}), resume=False)
    first.start(**CPU, data={"data_sha256": "a"})
    (tmp_path / "checkpoint" / "step-00000001").mkdir(parents=True)
    (tmp_path / "checkpoint" / "step-00000001" / "state.json").write_text("{}")
    Run(tmp_path, "cpt", Resolved(None, {}), resume=True).start(**CPU, data={"data_sha256": "a"})
    with pytest.raises(UserError, match=r"the data have changed \(data_sha256\)"):
        Run(tmp_path, "cpt", Resolved(None, {}), resume=True).start(**CPU, data={"data_sha256": "b"})


def flip_last_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def resumed(options: dict, out: Path) -> None:
    """Start a run with these options, then resume it."""
    given = Resolved(SimpleNamespace(**options), dict.fromkeys(options, "default"))
    started = out.exists()
    Run(out, "sft", given, resume=started).start(**CPU, data={})
    (out / "checkpoint" / "step-00000001").mkdir(parents=True, exist_ok=True)
    (out / "checkpoint" / "step-00000001" / "state.json").write_text("{}")


@pytest.mark.parametrize("name", [
    "model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja",
])  # fmt: skip
def test_a_run_is_not_resumed_over_another_model_at_the_same_path(tokenizer_folder, tmp_path, name):
    model = Path(shutil.copytree(tokenizer_folder, tmp_path / "model"))
    (model / "config.json").write_text('{"model_type": "llama"} ')
    (model / "chat_template.jinja").write_text("{{ messages }}")
    save_file({"a": torch.zeros(9)}, model / "model.safetensors")
    options = {"model": str(model)}
    resumed(options, tmp_path / "run")
    shutil.copytree(model, tmp_path / "copy")
    shutil.rmtree(model)
    shutil.copytree(tmp_path / "copy", model)  # the same bytes: the same model
    (model / "README.md").write_text("read by nobody")
    resumed(options, tmp_path / "run")
    flip_last_byte(model / name)
    with pytest.raises(UserError, match=r"cannot resume, --model .*model is not what it was .*model_sha256"):
        resumed(options, tmp_path / "run")
    flip_last_byte(model / name)
    resumed(options, tmp_path / "run")


@pytest.mark.parametrize("option", ["model", "chat_template", "validation", "test", "candidates", "probe", "pool"])
def test_a_run_is_not_resumed_with_another_file_of_the_same_name(tmp_path, option):
    file = tmp_path / "given.gguf"
    file.write_bytes(b"one")
    resumed({option: str(file)}, tmp_path / "run")
    resumed({option: str(file)}, tmp_path / "run")
    file.write_bytes(b"other")
    with pytest.raises(UserError, match=f"cannot resume, --{option.replace('_', '-')} .*given.gguf is not what it was"):
        resumed({option: str(file)}, tmp_path / "run")


def test_the_line_of_a_skipped_step_can_be_read_again(tmp_path):
    run = Run(tmp_path / "run", "cpt", Resolved(None, {}), resume=False)
    run.start(**CPU, data={})
    run.log(1, loss=2.5, norm=math.inf, tokens=7, skipped=True)
    run.log(2, loss=math.nan, norm=math.nan, tokens=7, skipped=True)
    first, second = read_jsonl(tmp_path / "run" / "metrics.jsonl")  # as --resume and the report read them
    assert (first["step"], first["loss"], first["norm"], first["skipped"]) == (1, 2.5, None, True)
    assert second["loss"] is None and second["tokens"] == 7


@pytest.fixture
def run(tmp_path):
    made = Run(tmp_path / "run", "cpt", Resolved(None, {}), resume=False)
    made.start(**CPU, data={})
    return made


def test_steps_go_on_to_the_last_one_and_say_which_that_is(run):
    assert [(step, run.is_last, run.due(step, 2)) for step in run.steps(1, 5)] == [
        (2, False, True), (3, False, False), (4, False, True), (5, True, True)
    ]  # fmt: skip
    assert not run.due(5, 0)
    assert list(run.steps(5, 5)) == []


def test_a_run_that_is_told_to_stop_ends_with_this_step(run, capsys):
    done = []
    for step in run.steps(0, 9):
        if step == 3:
            run.stop()
        done.append((step, run.due(step, 100)))
    assert done == [(1, False), (2, False), (3, True)] and "after step 3 of 9" in capsys.readouterr().out


def test_a_run_ends_while_there_is_time_for_what_follows(run, monkeypatch, capsys):
    clock = [run._began + 60.0]  # a minute has gone into preparing
    monkeypatch.setattr(run_module.time, "perf_counter", lambda: clock[0])
    run.seconds_after = 60.0
    done = []
    for step in run.steps(0, 100, max_minutes=5):
        done.append((step, run.due(step, 100)))
        clock[0] += 20.0
    # 60 s before, 60 s after: 180 s are left for steps of 20 s, and a step's time is kept for what may take longer
    assert [step for step, _ in done] == list(range(1, 10)) and [due for _, due in done] == [False] * 8 + [True]
    assert "--max-minutes" in capsys.readouterr().out


def test_the_line_of_a_step_says_what_it_cost(run, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(run_module.time, "perf_counter", lambda: clock[0])
    for step in run.steps(0, 3):
        clock[0] += 2.0
        costs = run.costs(tokens=50)
        run.log(step, **costs, validation_loss=1.0 / step)
        assert costs["tokens_per_second"] == 25.0 and costs["seconds_left"] == {1: 0.0, 2: 2.0, 3: 0.0}[step]
        assert 0.01 < costs["memory_gib"] < 100
    assert run.validations() == [(1, 1.0), (2, 0.5), (3, pytest.approx(1 / 3))]


def test_samples_of_steps_that_are_done_again_are_not_kept_twice(run):
    for step, text in ((5, "a"), (10, "b"), (15, "c"), (None, "old"), (10, "d"), (None, "e")):
        run.add_samples(step, text)
    assert (run.folder / "samples.md").read_text() == ("# After step 5\n\na\n# After step 10\n\nd\n# At the end\n\ne\n")


def test_samples_of_a_run_that_went_on_stand_before_its_end(run):
    for step, text in ((5, "a"), (None, "old"), (10, "b"), (None, "e")):
        run.add_samples(step, text)
    assert (run.folder / "samples.md").read_text() == ("# After step 5\n\na\n# After step 10\n\nb\n# At the end\n\ne\n")
