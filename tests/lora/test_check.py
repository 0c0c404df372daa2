"""python -m lora.check: where an adapter loads, and what folding leaves of it."""

from __future__ import annotations

import json
import math
import sys

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.testing import assert_close
from transformers import AutoModelForCausalLM

from common.console import UserError, run_command
from lora.adapter import adapter_in_use
from lora.adapter_file import load_adapter, save_adapter
from lora.check import check, main
from lora.inject import DECODER_TARGETS, inject
from model import load_decoder
from tests.methods import METHODS, VIRTUAL, put_in

IDS = torch.randint(3, 320, (1, 21), generator=torch.Generator().manual_seed(5))
KINDS = {
    "plain": {},
    "rslora": {"rslora": True},
    "ranks": {"rank_pattern": {"q_proj": 2, r".*\.1\.mlp.*": 6}},
    "alphas": {"alpha_pattern": {"q_proj": 5}, "rslora": True},
    "ranks and alphas in step": {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"q_proj": 4}},
    "dora": {"dora": True},
}


@pytest.fixture
def make(tiny, tmp_path):
    def made(r=4, alpha=8, **settings):
        inject(tiny, r=r, alpha=alpha, targets=DECODER_TARGETS, **settings)
        for layer in adapter_in_use(tiny).values():
            nn.init.normal_(layer.lora_B.weight, std=0.05)
        save_adapter(tiny, tmp_path / "adapter", base_model="tiny", task_type="CAUSAL_LM")
        return tmp_path / "adapter"

    return made


def change(folder, **settings):
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))


@pytest.fixture
def run(monkeypatch, capsys):
    """The command line: (status, stdout, stderr)."""

    def ran(*arguments):
        monkeypatch.setattr(sys, "argv", ["lora.check", *map(str, arguments)])
        try:
            status = run_command(main)
        except SystemExit as end:
            status = end.code
        return (status, *capsys.readouterr())

    return ran


@pytest.mark.parametrize(
    ("kind", "refusing"),
    [
        ("plain", set()),
        ("rslora", {"llama.cpp"}),  # vLLM knows use_rslora
        ("ranks", {"vLLM"}),  # llama.cpp divides by each tensor's own rank
        ("alphas", {"vLLM", "llama.cpp"}),
        ("ranks and alphas in step", {"llama.cpp"}),  # one scale, 2: what vLLM uses; llama.cpp takes 8 / 2
        ("dora", {"vLLM", "llama.cpp"}),
    ],
)
def test_each_kind_of_adapter_has_its_readers(make, kind, refusing):
    verdicts = check(make(**KINDS[kind]))
    assert list(verdicts) == ["peft", "vLLM", "llama.cpp"]
    assert {name for name, verdict in verdicts.items() if verdict.reasons} == refusing
    for name in refusing:
        assert all("\n" not in reason for reason in verdicts[name].reasons)
        assert ("merge" if kind == "dora" else "fold") in verdicts[name].reasons[0]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "dora"])
def test_a_folded_adapter_gives_the_same_logits_in_peft_and_loads_everywhere(
    run, make, tiny, tiny_folder, tmp_path, kind
):
    folder = make(**KINDS[kind])
    (folder / "tritune.json").write_text('{"schema": 1}')
    status, out, _ = run(folder, "--fold", tmp_path / "folded", "--json", "--model", tiny_folder)
    assert status == 0
    assert [verdict["loads"] for verdict in json.loads(out).values()] == [True, True, True]
    base = AutoModelForCausalLM.from_pretrained(tiny_folder, dtype=torch.float32)
    theirs = peft.PeftModel.from_pretrained(base, tmp_path / "folded").eval()
    assert_close(theirs(IDS).logits, tiny(IDS), atol=1e-4, rtol=0)
    again = load_decoder(str(tiny_folder))
    load_adapter(again, tmp_path / "folded")
    folded, rank = adapter_in_use(again).values(), max(layer.r for layer in adapter_in_use(tiny).values())
    assert {(layer.r, layer.scale, layer.rslora) for layer in folded} == {(rank, next(iter(folded)).scale, False)}
    assert (tmp_path / "folded" / "tritune.json").is_file()


def test_folding_rslora_leaves_the_matrices_alone(run, make, tmp_path):
    folder = make(r=3, rslora=True)
    assert run(folder, "--fold", tmp_path / "folded")[0] == 0
    before, after = (load_file(f / "adapter_model.safetensors") for f in (folder, tmp_path / "folded"))
    assert before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before)
    config = json.loads((tmp_path / "folded" / "adapter_config.json").read_text())
    assert config["lora_alpha"] == pytest.approx(8 * math.sqrt(3), rel=1e-15) and config["use_rslora"] is False


def test_dora_is_not_folded(run, make, tmp_path):
    status, _, said = run(make(dora=True), "--fold", tmp_path / "folded")
    assert status == 2 and "DoRA cannot be folded" in said and said.count("\n") == 1
    assert not (tmp_path / "folded").exists()


def test_half_of_a_pair_is_not_folded(run, make, tmp_path):
    file = make() / "adapter_model.safetensors"
    tensors = load_file(file)
    save_file({key: tensor for key, tensor in tensors.items() if "0.mlp.up_proj.lora_B" not in key}, file)
    status, _, said = run(file.parent, "--fold", tmp_path / "folded")
    assert status == 2 and "0.mlp.up_proj.lora_B.weight is not one of a pair" in said
    assert not (tmp_path / "folded").exists()


def test_the_status_and_the_lines_say_what_is_in_the_way(run, make):
    status, out, _ = run(make(r=24, rslora=True))
    assert status == 1
    lines = out.splitlines()
    assert lines[0].split() == ["peft", "yes"] and "vLLM       yes" in lines and "llama.cpp  no" in lines
    assert "--max-lora-rank 32" in out and "fold it: --fold OUT" in out


@pytest.mark.parametrize(
    ("settings", "reader", "said"),
    [
        ({"modules_to_save": ["lm_head"]}, "vLLM", "modules_to_save"),
        ({"bias": "lora_only"}, "vLLM", "bias"),
        ({"alora_invocation_tokens": [3]}, "vLLM", "alora_invocation_tokens"),
        ({"init_lora_weights": "pissa_niter_4"}, "llama.cpp", "pissa"),
        ({"init_lora_weights": "pissa_niter_4"}, "vLLM", "pissa"),
        ({"r": 8}, "peft", "ranks disagree"),
    ],
)
def test_settings_that_are_refused_or_not_read(make, settings, reader, said):
    folder = make()
    change(folder, **settings)
    assert any(said in reason for reason in check(folder)[reader].reasons)


def test_tensors_of_another_kind_and_a_rank_out_of_reach(make):
    folder = make(r=520)
    tensors = load_file(folder / "adapter_model.safetensors")
    save_file(tensors | {"base_model.model.lm_head.weight": torch.zeros(2, 2)}, folder / "adapter_model.safetensors")
    verdicts = check(folder)
    assert any("520" in reason for reason in verdicts["vLLM"].reasons)
    for name in ("vLLM", "llama.cpp"):
        assert any("lm_head.weight is neither" in reason for reason in verdicts[name].reasons)


def test_names_shapes_and_a_tied_head_are_compared_with_the_model(make, tiny_folder):
    folder = make()
    assert not any(verdict.reasons for verdict in check(folder, str(tiny_folder)).values())
    tensors = load_file(folder / "adapter_model.safetensors")
    for part, shape in (("A", (4, 48)), ("B", (400, 4))):
        tensors[f"base_model.model.lm_head.lora_{part}.weight"] = torch.zeros(shape)
        tensors[f"base_model.model.model.layers.9.mlp.up_proj.lora_{part}.weight"] = torch.zeros(4, 4)
    tensors["base_model.model.model.layers.0.mlp.up_proj.lora_B.weight"] = torch.zeros(7, 4)
    save_file(tensors, folder / "adapter_model.safetensors")
    verdicts = check(folder, str(tiny_folder))
    assert any("tied" in reason for reason in verdicts["llama.cpp"].reasons)
    assert not any("tied" in reason for reason in verdicts["peft"].reasons) and verdicts["peft"].notes
    assert any("layers.9.mlp.up_proj: the model has no such layer" in reason for reason in verdicts["peft"].reasons)
    assert any("layers.0.mlp.up_proj is [80, 48], the adapter is for [7, 48]" in r for r in verdicts["peft"].reasons)


MERGEABLE_TOO = {"ia3", "bitfit", "bitfit of norms"}


@pytest.mark.parametrize("method", [method for method in METHODS if method != "lora"])
def test_another_method_has_one_reader_at_most_and_a_reason_for_the_others(run, tiny, tiny_folder, tmp_path, method):
    put_in(tiny, method)
    save_adapter(tiny, tmp_path / "adapter", base_model="tiny", task_type="CAUSAL_LM")
    status, out, _ = run(tmp_path / "adapter", "--model", tiny_folder, "--json")
    verdicts = json.loads(out)
    assert status == 1 and [name for name, verdict in verdicts.items() if verdict["loads"]] == (
        ["peft"] if method in {*MERGEABLE_TOO, *VIRTUAL} else []
    )
    for name in ("vLLM", "llama.cpp"):
        assert ("merge it" in verdicts[name]["reasons"][0]) == (method in MERGEABLE_TOO)
        assert "only LoRA is read there" in verdicts[name]["reasons"][0]
    if method in VIRTUAL:
        assert "generate() is not" in verdicts["peft"]["notes"][0]
        assert ("--enable-prompt-adapter" in json.dumps(verdicts["vLLM"]["notes"])) == (method == "prompt")
    if method == "houlsby":
        assert "load_adapter(DIR, use_safetensors=True)" in verdicts["peft"]["reasons"][0]

    status, _, said = run(tmp_path / "adapter", "--fold", tmp_path / "folded")
    assert status == 2 and "only LORA has ranks to fold" in said and not (tmp_path / "folded").exists()


def test_names_of_another_method_are_compared_with_the_model(tiny, tiny_folder, tmp_path):
    put_in(tiny, "ia3")
    save_adapter(tiny, tmp_path / "adapter", base_model="tiny", task_type="CAUSAL_LM")
    file = tmp_path / "adapter" / "adapter_model.safetensors"
    save_file(load_file(file) | {"base_model.model.model.layers.9.k_proj.ia3_l": torch.ones(3, 1)}, file)
    assert "left over: " in check(tmp_path / "adapter", str(tiny_folder))["peft"].reasons[0]


def test_what_is_no_adapter_is_refused(make, tmp_path):
    folder = make()
    change(folder, peft_type="RABBIT")
    with pytest.raises(UserError, match="adapter type 'RABBIT' is not supported; supported are LORA, IA3, "):
        check(folder)
    with pytest.raises(UserError, match="no such file"):
        check(tmp_path)
