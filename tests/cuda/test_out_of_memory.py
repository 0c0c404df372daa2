"""Memory runs out: --fit tries the next way, every command says in one line what to change, and a run can go on."""

from __future__ import annotations

import ast
import builtins
import json
import re
import runpy
import sys
import weakref
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.testing import assert_close

import chat
import train_sft
from common.console import UserError, lack_of_memory, run_command
from data.masking import Example
from eval.model_options import LESS_MEMORY
from lora.inject import DECODER_TARGETS, inject
from model.decoder import Backbone
from training import fit as fit_module
from training.fit import MODES, fit
from training.precision import Precision

ROOT = Path(__file__).resolve().parents[2]
CUDA_SAYS = (
    "CUDA out of memory. Tried to allocate 2.25 GiB. GPU 0 has a total capacity of 14.74 GiB of which 1.02 GiB is free."
)
CPU_SAYS = (
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate "
    "2415919104 bytes. Error code 12 (Cannot allocate memory)"
)
LACKS = {
    "gpu": lambda: torch.OutOfMemoryError(CUDA_SAYS),
    "pinned": lambda: RuntimeError("CUDA error: out of memory\nCUDA kernel errors might …"),
    "cublas": lambda: RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    "cpu": lambda: RuntimeError(CPU_SAYS),
    "system": lambda: OSError(12, "Cannot allocate memory"),
    "python": MemoryError,
}
ROW = [Example(list(range(5, 45)), list(range(5, 45)))]
PRECISION = Precision(torch.device("cpu"), torch.float32)


@pytest.mark.parametrize("lack", LACKS)
def test_every_way_of_running_out_is_one_line(capsys, lack):
    def main():
        raise LACKS[lack]()

    assert run_command(main, needs_less_with="--less") == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "out of memory" in said and said.endswith("to use less: --less\n")
    assert ("the GPU" in said) == (lack in ("gpu", "cublas"))
    assert ("2.25 GiB more were requested" in said) == (lack in ("gpu", "cpu"))


def test_an_error_that_a_lack_has_led_to_is_one():
    try:
        try:
            raise torch.OutOfMemoryError(CUDA_SAYS)
        finally:
            raise RuntimeError("CUDA error: operation failed due to a previous error during capture")
    except RuntimeError as error:
        assert lack_of_memory(error) == "the GPU is out of memory (2.25 GiB more were requested)"


def test_other_errors_keep_their_traceback():
    for error in (RuntimeError("shapes do not match"), OSError(2, "No such file"), ValueError("out of range")):

        def main(error=error):
            raise error

        assert lack_of_memory(error) is None
        with pytest.raises(type(error)):
            run_command(main)


class Memory:
    """Room for so many tokens in a pass, by checkpointing: a forward pass over more raises, as a GPU's allocator does.

    What such a pass held is watched, as are the moments at which memory is given back.
    """

    def __init__(self, monkeypatch, room):
        self.room, self.passes, self.failures, self.kept = room, [], [], []
        hidden_states = Backbone.hidden_states

        def forward(backbone, input_ids, lengths=None, cache=None):
            out = hidden_states(backbone, input_ids, lengths, cache)
            self.passes.append((backbone.checkpointing, input_ids.shape[1]))
            if input_ids.shape[1] > self.room[backbone.checkpointing]:
                self.failures.append(weakref.ref(out))
                raise torch.OutOfMemoryError(CUDA_SAYS)
            return out

        monkeypatch.setattr(Backbone, "hidden_states", forward)
        monkeypatch.setattr(fit_module, "release_memory", self.release)

    def release(self, device):
        self.kept += [failure for failure in self.failures if failure() is not None]


@pytest.mark.parametrize(
    ("room", "expected"),
    [
        ({"none": 0, "selective": 0, "full": 200}, (3, "full")),  # even short passes fail
        ({"none": 25, "selective": 200, "full": 200}, (3, "selective")),  # the row itself fails
        ({"none": 60, "selective": 200, "full": 200}, (1, "none")),  # several rows fail
    ],
)
def test_fit_tries_what_takes_less_after_running_out_of_memory(monkeypatch, tiny, room, expected):
    inject(tiny, r=4, alpha=8, targets=DECODER_TARGETS)
    memory = Memory(monkeypatch, room)
    assert fit(tiny, PRECISION, [ROW] * 3, "adamw", 3) == expected
    assert tiny.checkpointing == expected[1] and memory.passes[-1] == (expected[1], 40 * expected[0])
    assert memory.failures and not memory.kept  # each failed pass had let go of its tensors when memory was released
    assert all(parameter.grad is None for parameter in tiny.parameters())


def test_a_row_that_never_fits_is_one_line(monkeypatch, tiny):
    inject(tiny, r=4, alpha=8, targets=DECODER_TARGETS)
    Memory(monkeypatch, dict.fromkeys(MODES, 0))
    with pytest.raises(UserError, match="a row of 40 tokens does not fit even with full activation checkpointing"):
        fit(tiny, PRECISION, [ROW], "adamw", 1)


@pytest.fixture
def pairs(tmp_path):
    rows = [{"instruction": f"Say {n}.", "input": "", "output": f"return {n} " * (1 + n % 3)} for n in range(24)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path / "pairs.jsonl"


def run_as_a_script(monkeypatch, name, *arguments):
    """Its exit status, in this process: what is patched below the script is in force."""
    monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(ROOT / name), run_name="__main__")
    return end.value.code


def fail_in_pass(monkeypatch, number):
    """The numbered forward pass of training runs out of memory. Returns the patch, to be undone."""
    patch, passes, hidden_states = pytest.MonkeyPatch(), [], Backbone.hidden_states

    def forward(backbone, *rest, **named):
        passes.extend([1] * torch.is_grad_enabled())
        if len(passes) == number:
            raise torch.OutOfMemoryError(CUDA_SAYS)
        return hidden_states(backbone, *rest, **named)

    patch.setattr(Backbone, "hidden_states", forward)
    return patch


def test_a_run_keeps_its_checkpoint_and_goes_on_with_less_memory(monkeypatch, tiny_folder, pairs, tmp_path, capfd):
    def options(out, *more):
        parts = ["--model", tiny_folder, "--data", pairs, "--out", out, "--max-length", 64, "--step-tokens", 256]
        parts += ["--dtype", "fp32", "--micro-batch", 2, "--checkpoint-every", 1, "--max-new-tokens", 2]
        return [*parts, *more]

    train_sft.main(list(map(str, options(tmp_path / "whole"))))
    out = tmp_path / "run"
    capfd.readouterr()
    patch = fail_in_pass(monkeypatch, 4)  # two to a step: in the midst of the second
    assert run_as_a_script(monkeypatch, "train_sft.py", *options(out)) == 2
    patch.undo()
    said = [line for line in capfd.readouterr().err.splitlines() if line.startswith("tritune: ")]
    assert len(said) == 1 and "2.25 GiB" in said[0] and "--checkpointing full" in said[0] and "--resume" in said[0]
    assert [path.name for path in (out / "checkpoint").iterdir()] == ["step-00000001"]
    assert not (out / "metrics.json").exists() and not (out / "adapter").exists()
    assert not list(out.rglob(".*"))  # nothing half-written
    train_sft.main([*map(str, options(out)), "--resume", "--checkpointing", "full", "--micro-batch", "1"])
    for name, tensor in load_file(tmp_path / "whole" / "adapter" / "adapter_model.safetensors").items():
        assert_close(load_file(out / "adapter" / "adapter_model.safetensors")[name], tensor, atol=1e-5, rtol=1e-4)


def test_a_conversation_survives_an_answer_that_does_not_fit(monkeypatch, tiny_folder, capsys):
    lines, replies = iter(["first", "second"]), []

    def read(_):
        return next(lines, None) or (_ for _ in ()).throw(EOFError)

    def reply(chat, speaking, question, *, width):
        replies.append(question)
        if len(replies) == 1:
            raise torch.OutOfMemoryError(CUDA_SAYS)

    monkeypatch.setattr(builtins, "input", read)
    monkeypatch.setattr(chat, "reply", reply)
    chat.converse(None, {}, [], [])
    assert replies == ["first", "second"] and "the GPU is out of memory (2.25 GiB" in capsys.readouterr().out


LOADERS = ("load_decoder", "load_encoder", "asked_model", "load_for_training")
COMMANDS = sorted(
    path
    for path in [*ROOT.glob("*.py"), *(ROOT / "eval").rglob("*.py")]
    if "run_command(main" in (text := path.read_text(encoding="utf-8")) and any(f"{name}(" in text for name in LOADERS)
)


@pytest.mark.parametrize("path", COMMANDS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_command_with_a_model_names_options_of_its_own(path):
    text = path.read_text(encoding="utf-8")
    calls = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call) and _name(node) == "run_command"]
    (advice,) = [keyword.value for call in calls for keyword in call.keywords if keyword.arg == "needs_less_with"]
    assigned = {
        _name(node): node.value for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Assign) and _name(node)
    }
    advice = assigned.get(getattr(advice, "id", ""), advice)
    words = LESS_MEMORY if getattr(advice, "id", "") == "LESS_MEMORY" else ast.literal_eval(advice)
    shared = ("training/shared_options.py", "training/held_out.py", "eval/model_options.py")
    known = "".join((ROOT / each).read_text() for each in (*shared, path))
    known += (ROOT / "model/encoder_options.py").read_text() if "encoder_options" in text else ""
    options = re.findall(r"--([a-z][a-z0-9-]*)", words)
    assert options
    for option in options:
        field = option.replace("-", "_")
        assert re.search(rf"^    {field}: ", known, re.MULTILINE), option


def _name(node):
    target = node.func if isinstance(node, ast.Call) else node.targets[0]
    return getattr(target, "id", None)
