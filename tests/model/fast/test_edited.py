"""An edit of a plain form changes the training at once: in its file, and by replacing the function at run time."""

from __future__ import annotations

import importlib
import shutil
import sys
from pathlib import Path

import pytest
import torch

from lora.layer import LoRALinear
from model import fast, loss, norm

ROOT = Path(__file__).resolve().parents[3]
OURS = ("common", "lora", "model")
SIZES = {
    "model_type": "llama", "vocab_size": 60, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5, "rope_theta": 1e4, "hidden_act": "silu", "tie_word_embeddings": True,
}  # fmt: skip

EDITS = {  # of the file in model/ or lora/ that a reader would open
    "model/loss.py": ("loss = loss + F.cross_entropy(", "loss = loss + 2 * F.cross_entropy("),
    "lora/layer.py": ("return plain + delta", "return plain + 3 * delta"),
    "model/norm.py": ("(x / rms * weight)", "(1.5 * x / rms * weight)"),
    "model/attention.py": ("softmax(dim=-1)", "sigmoid()"),
    "model/rope.py": ("quarter_turn * sin", "quarter_turn * 5 * sin"),
    "model/linear.py": ("return F.silu(x) if", "return F.relu(x) if"),
}


def train(loss_of=None, steps=3) -> list[float]:
    """Losses of a few steps of LoRA, by the modules that `import` finds now."""
    modules = {name: importlib.import_module(name) for name in ("model.decoder", "model.config", "lora.inject")}
    loss_of = loss_of or importlib.import_module("model.loss").causal_lm_loss
    torch.manual_seed(0)
    decoder = modules["model.decoder"].Decoder(modules["model.config"].ModelConfig.from_dict(SIZES))
    for parameter in decoder.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    modules["lora.inject"].inject(decoder, r=4, alpha=8, targets=modules["lora.inject"].DECODER_TARGETS)
    optimizer = torch.optim.SGD([p for p in decoder.parameters() if p.requires_grad], lr=0.1)
    ids, losses = torch.randint(0, 60, (1, 24)), []
    for _ in range(steps):
        value = loss_of(decoder.hidden_states(ids, [16, 8]), decoder.head_weight, ids) / 22
        value.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(value.item())
    return losses


@pytest.fixture
def train_copy(tmp_path, monkeypatch):
    """train_copy(path, (old, new)): the losses by a copy of the project with that edit."""

    def call(path=None, edit=None) -> list[float]:
        for folder in OURS:
            shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
        if path:
            text = (tmp_path / path).read_text(encoding="utf-8")
            assert text.count(edit[0]) == 1
            (tmp_path / path).write_text(text.replace(*edit), encoding="utf-8")
        with monkeypatch.context() as patch:
            for name in [name for name in sys.modules if name.partition(".")[0] in OURS]:
                patch.delitem(sys.modules, name)
            patch.syspath_prepend(tmp_path)
            losses = train()
            assert Path(sys.modules["model"].__file__).is_relative_to(tmp_path)
            with sys.modules["model.fast"].off():
                assert train() == pytest.approx(losses, rel=1e-4)
            for name in [name for name in sys.modules if name.partition(".")[0] in OURS]:
                del sys.modules[name]
        return losses

    return call


def test_an_unedited_copy_trains_as_the_project_by_its_fast_forms(train_copy, capsys):
    assert train_copy() == train()
    assert not capsys.readouterr().err


@pytest.mark.parametrize("path", EDITS)
def test_an_edit_in_the_file_takes_effect(train_copy, capsys, path):
    before = train()
    after = train_copy(path, EDITS[path])
    assert after[-1] != pytest.approx(before[-1], rel=1e-4)
    module = path.removesuffix(".py").replace("/", ".")
    assert f"fast     {module}." in (said := capsys.readouterr().err) and "steps aside" in said


def test_a_loss_replaced_at_run_time_takes_effect_for_who_imported_it_before(monkeypatch):
    imported_before = loss.causal_lm_loss
    before = train(imported_before)
    monkeypatch.setattr(loss, "causal_lm_loss", lambda *args, **kwargs: 2 * imported_before(*args, **kwargs))
    assert train(imported_before)[0] == train(loss.causal_lm_loss)[0] == pytest.approx(2 * before[0])


def test_an_adapters_forward_replaced_at_run_time_takes_effect(monkeypatch):
    before, forward = train(), LoRALinear.forward
    monkeypatch.setattr(LoRALinear, "forward", lambda layer, x: 2 * forward(layer, x))
    assert train()[0] != pytest.approx(before[0], rel=1e-4)


def test_a_norm_replaced_at_run_time_takes_effect(monkeypatch):
    before, rms_norm = train(), norm.rms_norm
    monkeypatch.setattr(norm, "rms_norm", lambda x, weight, eps, dtype: 2 * rms_norm(x, weight, eps, dtype))
    after = train()
    assert after[0] != pytest.approx(before[0], rel=1e-4)
    with fast.off():
        assert train() == pytest.approx(after, rel=1e-4)
