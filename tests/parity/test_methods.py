"""IA3 and BitFit against peft: logits, gradients, generation and files, both ways, in four families."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from common.console import UserError
from lora.adapter import adapter_in_use, linears, remove, train_adapter, trainable
from lora.adapter_file import load_adapter, save_adapter
from lora.bitfit import TunedBias, TunedNorm
from lora.ia3 import READ as IA3_READ
from lora.ia3 import TARGETS, default_ia3, make_ia3
from lora.peft_format import INERT
from lora.targets import is_target
from model import Stop, generate, load_decoder
from tests.methods import put_in, stir

peft = pytest.importorskip("peft")
FAMILIES = ["llama", "qwen2", "qwen3", "gemma"]
METHODS = ["ia3", "bitfit", "bitfit of norms"]
IDS = torch.randint(3, 400, (2, 19), generator=torch.Generator().manual_seed(5))
of_families = pytest.mark.parametrize("reference_decoder", FAMILIES, indirect=True)
of_methods = pytest.mark.parametrize("method", METHODS)


def reference(folder):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")


@pytest.fixture
def both(reference_decoder, method, tmp_path):
    """(ours, theirs, the folder that ours was saved to): the same weights, changed as by some training."""
    _, folder = reference_decoder
    ours = load_decoder(str(folder))
    put_in(ours, method)
    stir(ours)
    save_adapter(ours, tmp_path / "adapter", base_model=str(folder), task_type="CAUSAL_LM")
    theirs = peft.PeftModel.from_pretrained(reference(folder), tmp_path / "adapter", is_trainable=True).eval()
    return ours, theirs, tmp_path / "adapter"


@of_families
@of_methods
def test_ours_loads_there_with_the_same_logits_and_answers(both, reference_decoder):
    ours, theirs, folder = both
    plain = reference_decoder[0](IDS).logits
    assert_close(ours(IDS), theirs(IDS).logits, atol=2e-4, rtol=1e-4)
    assert (ours(IDS) - plain).abs().max() > 0.05  # the adapter does something

    prompt = IDS[0, :7].tolist()
    rules = {"do_sample": False, "max_new_tokens": 12, "eos_token_id": None, "pad_token_id": 0}
    answer = theirs.generate(input_ids=torch.tensor([prompt]), **rules)[0, 7:].tolist()
    assert generate(ours, [prompt], Stop(max_new_tokens=12, ids=()))[0][0] == answer

    written = json.loads((folder / "adapter_config.json").read_text())
    config = type(theirs.peft_config["default"])
    assert written.keys() <= {field.name for field in dataclasses.fields(config)}


@pytest.mark.parametrize("inputs", [[], ["layers.0.mlp.down_proj"], ["up_proj", "layers.2.mlp.down_proj"]], ids=str)
def test_some_inputs_and_all_outputs_load_there(tiny_folder, tmp_path, inputs):
    """PEFT asks for feedforward_modules to be among target_modules, name by name."""
    ours = load_decoder(str(tiny_folder))
    names = [name for name in linears(ours) if name.endswith(("k_proj", "up_proj", "down_proj"))]
    train_adapter(ours, make_ia3(ours, names, [name for name in names if is_target(name, inputs)]))
    stir(ours)
    save_adapter(ours, tmp_path / "adapter", base_model=str(tiny_folder), task_type="CAUSAL_LM")
    theirs = peft.PeftModel.from_pretrained(reference(tiny_folder), tmp_path / "adapter").eval()
    assert_close(ours(IDS), theirs(IDS).logits, atol=2e-4, rtol=1e-4)


@of_families
@of_methods
def test_every_gradient_is_that_of_peft(both):
    ours, theirs, _ = both
    direction = torch.randn(2, 19, 400, generator=torch.Generator().manual_seed(1))
    (ours(IDS) * direction).sum().backward()
    (theirs(IDS).logits * direction).sum().backward()
    expected = {
        name.removeprefix("base_model.model.").replace(".default", ""): parameter.grad
        for name, parameter in theirs.named_parameters()
        if parameter.requires_grad
    }
    found = {n.replace("tuned", "ln_tuning_layers.weight"): parameter.grad for n, parameter in trainable(ours)}
    assert found.keys() == expected.keys()
    expected = {name: gradient.view_as(found[name]) for name, gradient in expected.items()}  # theirs are [out, 1] …
    assert_close(found, expected, atol=1e-3, rtol=1e-3)
    assert min(gradient.abs().max() for gradient in found.values()) > 1e-3


THEIRS = {
    "ia3, defaults": lambda: peft.IA3Config(task_type="CAUSAL_LM"),
    "ia3, some": lambda: peft.IA3Config(
        task_type="CAUSAL_LM", target_modules=["q_proj", "v_proj", "up_proj", "down_proj"],
        feedforward_modules=["up_proj"], exclude_modules=["layers.1.self_attn.v_proj"],
    ),
    "ia3, expressions": lambda: peft.IA3Config(
        task_type="CAUSAL_LM", target_modules=r".*layers\.[02]\.(self_attn\.k|mlp\.gate)_proj",
        feedforward_modules=r".*gate_proj",
    ),
    "biases": lambda: peft.BeftConfig(task_type="CAUSAL_LM", target_modules=["q_proj", "v_proj"]),
    "norms": lambda: peft.LNTuningConfig(task_type="CAUSAL_LM"),
    "some norms": lambda: peft.LNTuningConfig(task_type="CAUSAL_LM", target_modules=r".*\.2\.input_layernorm"),
}  # fmt: skip


@of_families
@pytest.mark.parametrize("config", THEIRS)
def test_theirs_loads_here_with_the_same_logits_and_merges_to_the_same(reference_decoder, tmp_path, config):
    _, folder = reference_decoder
    theirs = peft.get_peft_model(reference(folder), THEIRS[config]()).eval()
    stir(theirs, size=0.2)
    theirs.save_pretrained(tmp_path / "adapter")
    ours = load_decoder(str(folder))
    load_adapter(ours, tmp_path / "adapter")
    expected = theirs(IDS).logits
    assert_close(ours(IDS), expected, atol=2e-4, rtol=1e-4)
    remove(ours, merge=True)
    assert_close(ours(IDS), expected, atol=2e-4, rtol=1e-4)
    assert_close(ours(IDS), theirs.merge_and_unload()(IDS).logits, atol=2e-4, rtol=1e-4)


@of_families
def test_ia3_is_on_keys_values_and_the_inputs_of_down_as_in_peft(reference_decoder):
    _, folder = reference_decoder
    # in all families but Llama and Mistral, peft rescales the queries instead of the paper's keys unless it is told
    theirs = peft.get_peft_model(reference(folder), peft.IA3Config(task_type="CAUSAL_LM", target_modules=[*TARGETS]))
    expected = {
        name.removeprefix("base_model.model.").replace(".default", ""): parameter.numel()
        for name, parameter in theirs.named_parameters()
        if parameter.requires_grad
    }
    ours = load_decoder(str(folder))
    train_adapter(ours, default_ia3(ours))
    assert {name: parameter.numel() for name, parameter in trainable(ours)} == expected
    assert {name.split(".")[-2] for name in expected} == set(TARGETS)


def test_every_setting_that_peft_knows_is_read_inert_or_refused():
    """A new field of one of its configurations shows here."""

    def refused(config, read):
        known = {field.name for field in dataclasses.fields(config)}
        return known - INERT - read

    targets = {"peft_type", "target_modules", "exclude_modules"}
    assert refused(peft.IA3Config, IA3_READ) == {"fan_in_fan_out", "modules_to_save"}
    assert refused(peft.BeftConfig, targets | {"init_weights"}) == {"modules_to_save"}
    assert refused(peft.LNTuningConfig, targets) == {"modules_to_save"}


@pytest.mark.parametrize("method", METHODS)
def test_a_setting_that_changes_the_arithmetic_is_refused_by_name(tiny, tmp_path, method):
    put_in(tiny, method)
    save_adapter(tiny, tmp_path / "adapter", base_model="x", task_type="CAUSAL_LM")
    remove(tiny, merge=False)
    file = tmp_path / "adapter" / "adapter_config.json"
    config = json.loads(file.read_text())
    for key, value in {"modules_to_save": ["lm_head"], "of_a_later_version": 3}.items():
        file.write_text(json.dumps(config | {key: value}))
        with pytest.raises(UserError, match=f"{key}=.* is not implemented"):
            load_adapter(tiny, tmp_path / "adapter")
    file.write_text(json.dumps({key: value for key, value in config.items() if key != "target_modules"}))
    with pytest.raises(UserError, match="target_modules is None; it is required"):
        load_adapter(tiny, tmp_path / "adapter")
    assert not adapter_in_use(tiny)


@pytest.mark.parametrize("reference_decoder", ["llama", "qwen2"], indirect=True)
def test_a_bias_where_the_model_has_none_is_refused(reference_decoder, tmp_path):
    _, folder = reference_decoder
    theirs = peft.get_peft_model(reference(folder), peft.BeftConfig(task_type="CAUSAL_LM", target_modules=["o_proj"]))
    theirs.save_pretrained(tmp_path / "adapter")
    ours = load_decoder(str(folder))
    if any(name.endswith("o_proj.bias") for name in ours.state_dict()):
        load_adapter(ours, tmp_path / "adapter")
        assert {type(module) for module in adapter_in_use(ours).values()} == {TunedBias}
    else:
        with pytest.raises(UserError, match=r"adds a bias to model\.layers\.0\.self_attn\.o_proj, which has none"):
            load_adapter(ours, tmp_path / "adapter")


@of_families
def test_bitfit_trains_biases_where_there_are_any_and_norms_otherwise(reference_decoder):
    _, folder = reference_decoder
    ours = load_decoder(str(folder))
    put_in(ours, "bitfit")
    biases = {name.removesuffix(".bias") for name, _ in ours.named_parameters() if name.endswith(".bias")}
    assert adapter_in_use(ours).keys() == biases and biases

    # the same network without biases, as the published ones of all families but Qwen2
    bare = load_decoder(str(folder))
    for module in bare.modules():
        if isinstance(module, nn.Linear):
            module.bias = None
    put_in(bare, "bitfit")
    assert {type(module) for module in adapter_in_use(bare).values()} == {TunedNorm}
    norms = {name.removesuffix(".weight") for name, weight in bare.named_parameters() if weight.ndim == 1}
    assert adapter_in_use(bare).keys() == {name.removesuffix(".tuned") for name in norms}
