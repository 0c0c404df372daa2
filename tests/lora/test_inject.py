"""Which layers get an adapter, and adapters side by side."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from common.console import UserError
from lora.adapter import adapter_in_use, folded, remove, trainable, use_adapter
from lora.adapter_file import load_adapter, save_adapter
from lora.inject import DECODER_TARGETS, inject
from lora.targets import parse_pattern, parse_targets
from model import load_decoder
from training.optim import adamw

IDS = torch.randint(3, 320, (1, 21), generator=torch.Generator().manual_seed(5))


def randomize(network, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for layer in adapter_in_use(network).values():
        nn.init.normal_(layer.lora_B.weight, std=0.05, generator=generator)


@pytest.fixture(scope="module")
def adapters(tiny_folder, tmp_path_factory):
    """Two folders: other layers, another rank, another kind; they share q_proj."""
    made = {}
    for seed, (name, settings) in enumerate(
        {
            "a": {"r": 4, "targets": ["q_proj", "v_proj"]},
            "b": {"r": 2, "targets": ["q_proj", "down_proj"], "dora": True, "rslora": True},
        }.items()
    ):
        network = load_decoder(str(tiny_folder))
        inject(network, alpha=8, **settings)
        randomize(network, seed)
        made[name] = tmp_path_factory.mktemp(name) / "adapter"
        save_adapter(network, made[name], base_model="tiny", task_type="CAUSAL_LM")
    return made


def test_adapters_change_places_bit_by_bit_and_the_base_is_never_copied(tiny, tiny_folder, adapters):
    expected = {"base": load_decoder(str(tiny_folder))(IDS)}
    for name, folder in adapters.items():
        alone = load_decoder(str(tiny_folder))
        load_adapter(alone, folder)
        expected[name] = alone(IDS)
    assert not torch.equal(expected["a"], expected["b"]) and not torch.equal(expected["a"], expected["base"])

    storage = {name: parameter.data_ptr() for name, parameter in tiny.named_parameters()}
    voices = {"base": None} | {name: load_adapter(tiny, folder) for name, folder in adapters.items()}
    assert torch.equal(tiny(IDS), expected["b"])  # the last one loaded is in use
    for name in ("a", "base", "b", "a", "a", "base"):
        use_adapter(tiny, voices[name])
        assert torch.equal(tiny(IDS), expected[name]), name
        in_use = set(voices[name] or {})
        assert {n for n, module in tiny.named_modules() if hasattr(module, "lora_A")} == in_use  # others cost nothing
    assert {name: parameter.data_ptr() for name, parameter in tiny.named_parameters()} == storage


def test_only_the_adapter_in_use_learns_and_is_saved(tiny, adapters, tmp_path):
    a, b = load_adapter(tiny, adapters["a"]), load_adapter(tiny, adapters["b"])
    before = {name: layer.lora_A.weight.clone() for name, layer in b.items()}
    tiny.requires_grad_(False)
    use_adapter(tiny, a)
    optimizer = adamw(tiny, lr=0.1, weight_decay=0)
    assert {name.rpartition(".lora_")[0] for name, _ in trainable(tiny)} == set(a)
    tiny(IDS).sum().backward()
    optimizer.step()
    learnt = tiny(IDS)
    save_adapter(tiny, tmp_path / "a", base_model="tiny", task_type="CAUSAL_LM")
    use_adapter(tiny, b)
    assert all(torch.equal(layer.lora_A.weight, before[name]) for name, layer in b.items())
    load_adapter(tiny, tmp_path / "a")
    assert torch.equal(tiny(IDS), learnt)


def test_folding_follows_the_adapter_in_use(tiny, adapters):
    load_adapter(tiny, adapters["a"])
    b = load_adapter(tiny, adapters["b"])
    expected = tiny(IDS)
    with folded(tiny):
        assert not adapter_in_use(tiny)
        assert_close(tiny(IDS), expected, atol=1e-4, rtol=0)
    assert adapter_in_use(tiny) == b and torch.equal(tiny(IDS), expected)


def test_an_adapter_follows_its_network_into_training_and_another_dtype(tiny, adapters):
    a = load_adapter(tiny, adapters["a"])
    layer = tiny.get_submodule(next(iter(a)))
    assert not layer.training  # as the network: no dropout
    use_adapter(tiny, None)
    tiny.to(torch.bfloat16).train()
    use_adapter(tiny, a)
    assert tiny.get_submodule(next(iter(a))) is layer and layer.training
    assert layer.weight.dtype == torch.bfloat16 and layer.lora_A.weight.dtype == torch.float32
    assert tiny(IDS).isfinite().all()


def test_an_adapter_is_refused_where_it_was_not_made(tiny, tiny_folder, adapters):
    a, b = load_adapter(tiny, adapters["a"]), load_adapter(tiny, adapters["b"])
    with pytest.raises(ValueError, match="other weights"):
        use_adapter(load_decoder(str(tiny_folder)), a)
    use_adapter(tiny, a)
    remove(tiny, merge=True)
    with pytest.raises(ValueError, match="other weights"):  # b was trained on the base, not on base + a
        use_adapter(tiny, b)
    with pytest.raises(UserError, match="no adapter to merge"):
        remove(tiny, merge=True)


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({"targets": r".*\.1\..*(q|down)_proj"}, {"1.self_attn.q_proj", "1.mlp.down_proj"}),
        ({"targets": ["q_proj"], "layers": [0, 2]}, {"0.self_attn.q_proj", "2.self_attn.q_proj"}),
        ({"targets": ["layers.1.self_attn.q_proj"]}, {"1.self_attn.q_proj"}),
        ({"targets": ["q_proj"], "exclude": r".*\.[02]\..*"}, {"1.self_attn.q_proj"}),
    ],
)
def test_targets_by_name_expression_block_and_exclusion(tiny, settings, names):
    inject(tiny, r=2, alpha=4, **settings)
    assert {name.removeprefix("model.layers.") for name in adapter_in_use(tiny)} == names


def test_all_linear_leaves_out_the_head(reference_decoder):
    network = load_decoder(str(reference_decoder[1]))
    inject(network, r=2, alpha=4, targets="all-linear")
    assert {name.rpartition(".")[2] for name in adapter_in_use(network)} == set(DECODER_TARGETS)


def test_ranks_and_alphas_by_layer(tiny):
    inject(
        tiny, r=4, alpha=8, targets=["q_proj", "v_proj"], rank_pattern={"q_proj": 2}, alpha_pattern={r".*\.1\..*": 5}
    )
    layer = adapter_in_use(tiny)
    q0, q1, v1 = (layer[f"model.layers.{name}_proj"] for name in ("0.self_attn.q", "1.self_attn.q", "1.self_attn.v"))
    assert [(x.r, x.alpha, x.scale) for x in (q0, q1, v1)] == [(2, 8, 4.0), (2, 5, 2.5), (4, 5, 1.25)]
    assert q0.lora_A.weight.shape[0] == 2


def test_what_names_no_layer_is_refused(tiny):
    for settings, said in (
        ({"targets": ["q_proj", "c_attn"]}, "c_attn not found"),
        ({"targets": r".*nothing"}, "nothing not found"),
        ({"targets": ["q_proj"], "exclude": ["q_proj"]}, "no layer is selected"),
        ({"targets": ["q_proj"], "layers": [9]}, "no layer is selected"),
        ({"targets": ["q_proj"], "rank_pattern": {"k_proj": 2}}, "k_proj.* no layer"),
    ):
        with pytest.raises(UserError, match=said):
            inject(tiny, r=4, alpha=8, **settings)
    assert not adapter_in_use(tiny)


def test_targets_and_patterns_as_a_command_line_has_them():
    assert parse_targets("q_proj, v_proj") == ["q_proj", "v_proj"]
    assert parse_targets("layers.1.self_attn.q_proj") == ["layers.1.self_attn.q_proj"]
    assert parse_targets("all-linear") == "all-linear"
    assert parse_targets(r".*\.(q|v)_proj") == r".*\.(q|v)_proj"
    assert parse_pattern("q_proj=8,down_proj=32", int, "--rank-pattern") == {"q_proj": 8, "down_proj": 32}
    assert parse_pattern(None, int, "--rank-pattern") == {}
    with pytest.raises(UserError, match="not a regular expression"):
        parse_targets("(q_proj")
    for text in ("q_proj", "q_proj=x", "=3", "q_proj=0", "q_proj=1.5"):
        with pytest.raises(UserError, match="--rank-pattern"):
            parse_pattern(text, int, "--rank-pattern")
