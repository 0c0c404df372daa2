"""Our adapter file in peft, and peft's here, in every form: the same logits, and not a key too many."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.testing import assert_close

from common.console import UserError
from lora.adapter import adapter_in_use, remove
from lora.adapter_file import load_adapter, save_adapter
from lora.inject import DECODER_TARGETS, inject
from lora.layer import LoRALinear
from lora.targets import as_pattern, is_target, pattern_value
from model import load_decoder, load_encoder
from training.optim import adamw

peft = pytest.importorskip("peft")
IDS = torch.randint(3, 400, (2, 19), generator=torch.Generator().manual_seed(5))
REGEX = r".*layers\.[12]\.(self_attn\.[qk]|mlp\.down)_proj"
VARIANTS = {
    "plain": {"targets": DECODER_TARGETS},
    "two kinds of layer": {"targets": ["q_proj", "down_proj"]},
    "rslora": {"targets": DECODER_TARGETS, "rslora": True},
    "dora": {"targets": DECODER_TARGETS, "dora": True},
    "dora and rslora": {"targets": ["o_proj", "up_proj"], "dora": True, "rslora": True},
    "rank by kind": {"targets": DECODER_TARGETS, "rank_pattern": {"q_proj": 2, "down_proj": 7}},
    "alpha by layer": {"targets": ["q_proj", "k_proj"], "alpha_pattern": {r"layers\.1\.self_attn\.q_proj": 31.5}},
    "both by layer, rslora": {
        "targets": ["q_proj", "v_proj"],
        "rank_pattern": {r".*\.0\..*": 3},
        "alpha_pattern": {r"layers\.1.*v_proj": 5, r"layers\.2\..*": 7},
        "rslora": True,
    },
    "regex": {"targets": REGEX},
    "all-linear": {"targets": "all-linear"},
    "excluded": {"targets": DECODER_TARGETS, "exclude": ["layers.1.mlp.up_proj", "k_proj"]},
    "some blocks": {"targets": DECODER_TARGETS, "layers": [0, 2]},
}


def randomize_adapter(network) -> None:
    """As after some training: B is not zero, rows are no longer as long as the base's."""
    for layer in adapter_in_use(network).values():
        nn.init.normal_(layer.lora_B.weight, std=0.05)
        if layer.lora_magnitude_vector is not None:
            with torch.no_grad():
                layer.lora_magnitude_vector.mul_(1 + 0.3 * torch.rand_like(layer.lora_magnitude_vector))


def their_config(*, targets, exclude=(), layers=None, rslora=False, dora=False, **patterns):
    return peft.LoraConfig(
        r=4, lora_alpha=12, target_modules=targets if isinstance(targets, str) else list(targets),
        exclude_modules=list(exclude) or None, layers_to_transform=layers, use_rslora=rslora, use_dora=dora,
        task_type="CAUSAL_LM", init_lora_weights=False, **patterns,
    )  # fmt: skip


def reference(folder):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


@pytest.mark.parametrize("variant", VARIANTS)
def test_our_adapter_loads_in_peft_with_the_same_logits(tiny_folder, tmp_path, variant, recwarn):
    ours = load_decoder(str(tiny_folder))
    plain = ours(IDS)
    inject(ours, r=4, alpha=12, **VARIANTS[variant])
    assert torch.equal(ours(IDS), plain)  # fresh: nothing is changed
    randomize_adapter(ours)
    save_adapter(ours, tmp_path / "adapter", base_model=str(tiny_folder), task_type="CAUSAL_LM")
    base = reference(tiny_folder)
    recwarn.clear()
    adapted = peft.PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    assert not [str(warning.message) for warning in recwarn if "adapter" in str(warning.message).lower()]
    assert_close(adapted(IDS).logits, ours(IDS), atol=1e-4, rtol=0)
    assert (ours(IDS) - plain).abs().max() > 0.01  # the adapter does something
    again = load_decoder(str(tiny_folder))
    load_adapter(again, tmp_path / "adapter")
    assert torch.equal(again(IDS), ours(IDS))
    written = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert written.keys() <= {field.name for field in dataclasses.fields(peft.LoraConfig)}


@pytest.mark.parametrize("variant", VARIANTS)
def test_their_adapter_loads_here_with_the_same_logits(tiny_folder, tmp_path, variant):
    adapted = peft.get_peft_model(reference(tiny_folder), their_config(**VARIANTS[variant])).eval()
    for name, parameter in adapted.named_parameters():
        if "magnitude" in name:
            nn.init.uniform_(parameter, 0.5, 2)
    adapted.save_pretrained(tmp_path / "adapter")
    ours = load_decoder(str(tiny_folder))
    load_adapter(ours, tmp_path / "adapter")
    assert_close(ours(IDS), adapted(IDS).logits, atol=1e-4, rtol=0)
    remove(ours, merge=True)
    assert_close(ours(IDS), adapted.merge_and_unload()(IDS).logits, atol=1e-4, rtol=0)


@pytest.mark.parametrize("variant", ["rslora", "dora", "both by layer, rslora"])
def test_the_gradients_are_those_of_peft(tiny_folder, tmp_path, variant):
    ours = load_decoder(str(tiny_folder))
    inject(ours, r=4, alpha=12, **VARIANTS[variant])
    randomize_adapter(ours)
    save_adapter(ours, tmp_path / "adapter", base_model=str(tiny_folder), task_type="CAUSAL_LM")
    theirs = peft.PeftModel.from_pretrained(reference(tiny_folder), tmp_path / "adapter", is_trainable=True).eval()
    direction = torch.randn(2, 19, 400, generator=torch.Generator().manual_seed(1))
    (ours(IDS) * direction).sum().backward()
    (theirs(IDS).logits * direction).sum().backward()
    expected = {
        name.removeprefix("base_model.model.").replace(".default.weight", "").replace(".default", ""): parameter.grad
        for name, parameter in theirs.named_parameters()
        if parameter.requires_grad
    }
    found = {n.removesuffix(".weight"): p.grad for n, p in ours.named_parameters() if p.requires_grad}
    assert found.keys() == expected.keys()
    assert_close(found, expected, atol=2e-4, rtol=1e-3)
    assert min(grad.abs().max() for grad in found.values()) > 1e-3


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`")
def test_an_adapter_on_the_head_is_refused_by_name(tiny_folder, tmp_path):
    adapted = peft.get_peft_model(reference(tiny_folder), their_config(targets=["lm_head", "q_proj"]))
    adapted.save_pretrained(tmp_path / "adapter", save_embedding_layers=False)
    with pytest.raises(UserError, match=r"left over: .*lm_head.*an adapter on the head is not implemented"):
        load_adapter(load_decoder(str(tiny_folder)), tmp_path / "adapter")


@pytest.mark.parametrize("dora", [False, True])
def test_an_encoder_adapter_goes_both_ways(reference_encoder, tmp_path, dora):
    from transformers import AutoModel

    _, folder = reference_encoder
    ids = IDS[:, :9] % 50
    ours = load_encoder(str(folder))
    inject(ours, r=4, alpha=8, targets="all-linear", dora=dora)
    randomize_adapter(ours)
    save_adapter(ours, tmp_path / "ours", base_model=str(folder), task_type="FEATURE_EXTRACTION")
    adapted = peft.PeftModel.from_pretrained(AutoModel.from_pretrained(folder), tmp_path / "ours").eval()
    assert_close(ours(ids), adapted(ids).last_hidden_state, atol=1e-4, rtol=0)

    config = peft.LoraConfig(
        r=4, target_modules=["query", "dense"], use_dora=dora, task_type="FEATURE_EXTRACTION", init_lora_weights=False
    )
    theirs = peft.get_peft_model(AutoModel.from_pretrained(folder), config).eval()
    theirs.save_pretrained(tmp_path / "theirs")  # its "dense" is the pooler's too
    assert any("pooler" in name for name in load_file(tmp_path / "theirs" / "adapter_model.safetensors"))
    ours = load_encoder(str(folder))
    load_adapter(ours, tmp_path / "theirs")
    assert_close(ours(ids), theirs(ids).last_hidden_state, atol=1e-4, rtol=0)


@pytest.mark.parametrize("change", ["left over", "half of a pair", "rank", "dora", "pattern", "target"])
def test_an_adapter_that_does_not_fit_is_refused_with_a_list(tiny, tiny_folder, tmp_path, change):
    inject(tiny, r=4, alpha=8, targets=["q_proj"])
    save_adapter(tiny, tmp_path / "adapter", base_model="x", task_type="CAUSAL_LM")
    file, config_file = tmp_path / "adapter" / "adapter_model.safetensors", tmp_path / "adapter" / "adapter_config.json"
    tensors, config = load_file(file), json.loads(config_file.read_text())
    q = "base_model.model.model.layers.{}.self_attn.q_proj.lora_{}.weight"
    if change == "left over":
        tensors[q.format(9, "A")], said = torch.zeros(4, 48), r"left over: .*layers\.9"
    elif change == "half of a pair":
        tensors.pop(q.format(1, "B"))
        said = r"missing: .*layers\.1\..*lora_B"
    elif change == "rank":
        config["r"], said = 8, r"layers\.0.*is \[4, 48\], expected \[8, 48\].* and \d more|expected \[8, 48\]"
    elif change == "dora":
        config["use_dora"], said = True, "missing: .*lora_magnitude_vector"
    elif change == "pattern":
        config["rank_pattern"], said = {r"layers\.1\..*": 2}, r"layers\.1.*expected \[2, 48\]"
    else:
        config["target_modules"], said = ["q_proj", "k_proj"], "missing: .*k_proj"
    save_file(tensors, file)
    config_file.write_text(json.dumps(config))
    network = load_decoder(str(tiny_folder))
    with pytest.raises(UserError, match=said):
        load_adapter(network, tmp_path / "adapter")
    assert not adapter_in_use(network)  # as it was


UNSUPPORTED = {
    "bias": "all",
    "modules_to_save": ["lm_head"],
    "trainable_token_indices": [1, 2],
    "lora_bias": True,
    "use_qalora": True,
    "target_parameters": ["mlp.experts.down_proj"],
    "fan_in_fan_out": True,
    "alora_invocation_tokens": [7],
    "layer_replication": [[0, 2]],
    "kasa_config": {"r": 1},
    "of_a_later_version": 3,
    "init_lora_weights": "pissa",
}


@pytest.mark.parametrize("key", UNSUPPORTED)
def test_a_setting_that_changes_the_arithmetic_is_refused_by_name(tiny, tiny_folder, tmp_path, key):
    inject(tiny, r=4, alpha=8, targets=["q_proj"])
    save_adapter(tiny, tmp_path / "adapter", base_model="x", task_type="CAUSAL_LM")
    file = tmp_path / "adapter" / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {key: UNSUPPORTED[key]}))
    with pytest.raises(UserError, match=key) as refusal:
        load_adapter(load_decoder(str(tiny_folder)), tmp_path / "adapter")
    assert "\n" not in str(refusal.value)


def test_every_setting_that_peft_knows_is_read_inert_or_refused():
    """A new field of LoraConfig shows here: at its default a config must load, set to something it must not pass by."""
    from lora.lora_file import INERT, READ

    known = {field.name for field in dataclasses.fields(peft.LoraConfig)}
    assert known >= INERT | READ  # nothing is passed over that does not exist
    refused = known - INERT - READ
    assert refused == {
        "bias", "fan_in_fan_out", "modules_to_save", "megatron_config", "trainable_token_indices", "use_qalora",
        "alora_invocation_tokens", "monteclora_config", "layer_replication", "lora_bias", "target_parameters",
        "use_bdlora", "arrow_config", "kasa_config",
    }  # fmt: skip


def test_a_pickled_adapter_is_refused(tiny, tmp_path):
    inject(tiny, r=4, alpha=8, targets=["q_proj"])
    save_adapter(tiny, tmp_path / "adapter", base_model="x", task_type="CAUSAL_LM")
    (tmp_path / "adapter" / "adapter_model.safetensors").rename(tmp_path / "adapter" / "adapter_model.bin")
    with pytest.raises(UserError, match=r"adapter_model\.bin is a pickle, which is never loaded"):
        load_adapter(tiny, tmp_path / "adapter")


NAMES = [f"model.layers.{n}.{part}_proj" for n in (0, 1, 11) for part in ("self_attn.q", "self_attn.k", "mlp.up")]


@pytest.mark.parametrize(
    "wanted",
    [
        {"target_modules": ["q_proj"]},
        {"target_modules": ["proj"]},
        {"target_modules": ["layers.1.self_attn.q_proj", "up_proj"]},
        {"target_modules": r".*\.1\..*"},
        {"target_modules": r"layers\.1\..*"},
        {"target_modules": ["q_proj", "k_proj"], "exclude_modules": ["layers.1.self_attn.k_proj"]},
        {"target_modules": ["q_proj", "k_proj"], "exclude_modules": r".*11.*"},
        {"target_modules": ["q_proj"], "layers_to_transform": 1},
        {"target_modules": ["q_proj", "up_proj"], "layers_to_transform": [0, 11], "layers_pattern": "layers"},
        {"target_modules": ["q_proj"], "layers_to_transform": [0], "layers_pattern": ["blocks", "layers"]},
    ],
)
def test_targets_are_those_of_peft(wanted):
    from peft.tuners.tuners_utils import _ExcludedModule, check_target_module_exists

    config = peft.LoraConfig(**wanted)
    theirs = [check_target_module_exists(config, name) for name in NAMES]
    ours = [
        is_target(
            name, wanted["target_modules"], exclude=wanted.get("exclude_modules", ()),
            layers=wanted.get("layers_to_transform"), layers_pattern=wanted.get("layers_pattern"),
        )
        for name in NAMES
    ]  # fmt: skip
    assert ours == [bool(found) and not isinstance(found, _ExcludedModule) for found in theirs]


@pytest.mark.parametrize(
    "pattern", [{"q_proj": 1}, {r"layers.1.*": 2, "k_proj": 3}, {"^model": 4}, {r"1\..*up_proj": 5}]
)
def test_patterns_are_those_of_peft_and_survive_being_written(pattern):
    from peft.utils.other import get_pattern_key

    expected = {name: pattern.get(get_pattern_key(pattern.keys(), name), 9) for name in NAMES}
    found = {name: pattern_value(name, pattern, 9) for name in NAMES}
    assert found == expected
    default, again = as_pattern(found)
    assert {name: pattern_value(name, again, default) for name in NAMES} == expected


def test_lora_plus_has_the_groups_of_peft(tiny_folder):
    from peft.optimizers import create_loraplus_optimizer

    ours = load_decoder(str(tiny_folder))
    inject(ours, r=4, alpha=8, targets=["q_proj", "up_proj"])
    theirs = peft.get_peft_model(reference(tiny_folder), their_config(targets=["q_proj", "up_proj"]))
    optimizer = create_loraplus_optimizer(
        theirs, torch.optim.AdamW, lr=1e-3, loraplus_lr_ratio=16, loraplus_weight_decay=0.1
    )

    def groups(optimizer, network):
        names = {
            id(p): n.removeprefix("base_model.model.").replace(".default", "") for n, p in network.named_parameters()
        }
        return {
            names[id(parameter)]: (group["lr"], group["weight_decay"])
            for group in optimizer.param_groups
            for parameter in group["params"]
        }

    found = groups(adamw(ours, lr=1e-3, weight_decay=0.1, lora_plus_ratio=16), ours)
    assert found == groups(optimizer, theirs)
    assert {lr for lr, _ in found.values()} == {1e-3, 1.6e-2}


def test_the_layer_has_peft_s_names_for_what_it_learns():
    layer = LoRALinear(nn.Linear(3, 5), r=2, alpha=4, dora=True)
    learnt = {name for name in layer.state_dict() if name.startswith("lora_")}
    assert learnt == {"lora_A.weight", "lora_B.weight", "lora_magnitude_vector"}
