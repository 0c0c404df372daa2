"""A run is resumed only with the options and the inputs that it was started with."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from common.console import UserError
from common.options import Resolved
from training.run import Run

CPU = {"device": torch.device("cpu"), "dtype": torch.float32}


def resumed(options: dict, out: Path, *, data: dict[str, str] | None = None) -> None:
    """Start a run with these options, or resume it when it is there, and leave a checkpoint."""
    given = Resolved(SimpleNamespace(**options), dict.fromkeys(options, "default"))
    Run(out, "sft", given, resume=out.exists()).start(**CPU, data=data or {})
    (out / "checkpoint" / "step-00000001").mkdir(parents=True, exist_ok=True)
    (out / "checkpoint" / "step-00000001" / "state.json").write_text("{}")


def flip_last_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def test_other_training_data_is_refused(tmp_path):
    for _ in range(2):
        resumed({}, tmp_path / "run", data={"data_sha256": "a"})
    with pytest.raises(UserError, match=r"the training data has changed \(data_sha256\)"):
        resumed({}, tmp_path / "run", data={"data_sha256": "b"})


def test_another_value_of_an_option_is_refused_unless_it_cannot_change_the_result(tmp_path):
    options = {"r": 4, "max_minutes": 5.0}
    resumed(options, tmp_path / "run")
    resumed(options | {"max_minutes": 9.0}, tmp_path / "run")
    with pytest.raises(UserError, match="cannot resume with --r 8; the run was started with 4"):
        resumed(options | {"r": 8}, tmp_path / "run")


def test_an_option_that_the_run_s_version_did_not_have_takes_its_default(tmp_path):
    older, newer = {"r": 4}, {"r": 4, "plain": False}
    resumed(older, tmp_path / "run")
    resumed(newer, tmp_path / "run")
    given = Resolved(SimpleNamespace(r=4, new=True), {"r": "default", "new": "command line"})
    with pytest.raises(UserError, match="cannot resume with --new True; the run was started with None"):
        Run(tmp_path / "run", "sft", given, resume=True)


@pytest.mark.parametrize("name", [
    "model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja",
])  # fmt: skip
def test_another_model_at_the_same_path_is_refused(tokenizer_folder, tmp_path, name):
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
    with pytest.raises(UserError, match=r"cannot resume, --model .*model has changed since .*model_sha256"):
        resumed(options, tmp_path / "run")
    flip_last_byte(model / name)
    resumed(options, tmp_path / "run")


@pytest.mark.parametrize("option", ["model", "chat_template", "validation", "test", "candidates", "probe", "pool"])
def test_another_file_of_the_same_name_is_refused(tmp_path, option):
    file = tmp_path / "given.gguf"
    file.write_bytes(b"one")
    resumed({option: str(file)}, tmp_path / "run")
    resumed({option: str(file)}, tmp_path / "run")
    file.write_bytes(b"other")
    with pytest.raises(UserError, match=f"cannot resume, --{option.replace('_', '-')} .*given.gguf has changed since"):
        resumed({option: str(file)}, tmp_path / "run")
