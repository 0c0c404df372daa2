"""Quantised weights: a network over them computes and learns as one over the same matrices, dense."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
import weakref
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.testing import assert_close

import lora.int8
from common.console import UserError
from lora.adapter import adapter_in_use, folded, linears, remove, trainable
from lora.adapter_file import load_adapter, save_adapter
from lora.frozen_weight import QUANTIZE, QuantisedLinear, linear_layer, multiply
from lora.inject import DECODER_TARGETS, inject
from lora.int8 import Int8Weight
from lora.layer import LoRALinear
from lora.merge import merge
from lora.nf4 import NF4Weight
from model import load_decoder, load_tokenizer, save_decoder
from model.config import ModelConfig
from model.decoder import Decoder
from model.loss import causal_lm_loss, supervised_tokens
from training.optim import adamw

ROOT = Path(__file__).resolve().parents[2]
IDS = torch.randint(3, 320, (1, 21), generator=torch.Generator().manual_seed(5))
# Kinds of adapters: the first two are computed several layers at once, the others layer by layer.
KINDS = [{}, {"rslora": True}, {"dropout": 0.3}, {"dora": True}]

FORMS = {"nf4": NF4Weight, "int8": Int8Weight}


@pytest.fixture(params=FORMS)
def form(request, monkeypatch) -> str:
    """Each format of --quantize, its matrices dequantised for a product: the numbers of the dense twin to the last bit.

    tests/lora/test_int8.py is about products with the integers themselves.
    """
    monkeypatch.setattr(lora.int8, "multiplies_integers", lambda codes: False)
    return request.param


# ------------------------------------------------------------------------------------------------------------- layers


def twins(form: str, kind: dict, *, bias: bool = True, dtype=torch.float32) -> tuple[LoRALinear, LoRALinear]:
    """An adapted layer, quantised, and the same over the matrix that it multiplies out to."""
    torch.manual_seed(0)
    weight = FORMS[form](torch.randn(128, 64, dtype=dtype))
    offset = nn.Parameter(torch.randn(128, dtype=dtype), requires_grad=False) if bias else None
    quantised = LoRALinear(QuantisedLinear(weight, offset), r=4, alpha=8, **kind)
    nn.init.normal_(quantised.lora_B.weight, std=0.1)
    plain = LoRALinear(linear_layer(nn.Parameter(weight.dense(), requires_grad=False), offset), r=4, alpha=8, **kind)
    plain.load_state_dict(quantised.state_dict(), strict=False)
    return quantised, plain


def outcome(layer: LoRALinear, way: str, dtype) -> list[torch.Tensor]:
    """Outputs and the gradients of input, A, B and, for DoRA, m."""
    torch.manual_seed(1)
    x, up = (torch.randn(2, 5, 64, dtype=dtype, requires_grad=True) for _ in range(2))
    if way == "alone":
        outs = (layer(x * up),)
    elif way == "together":
        outs = layer.forward_with(x * up, layer)
    else:
        outs = (layer.forward_gated(x, up, "silu"),)
    learning = [parameter for _, parameter in trainable(layer)]
    grads = torch.autograd.grad(sum((out.float() ** 2).sum() for out in outs), [x, up, *learning])
    assert all(grad.abs().max() > 0 for grad in grads)
    return [*outs, *grads]


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("way", ["alone", "together", "product"])
@pytest.mark.parametrize(("bias", "dtype"), [(True, torch.float32), (False, torch.bfloat16)], ids=str)
def test_a_layer_computes_and_learns_as_over_the_dense_matrix(form, kind, way, bias, dtype):
    results = [outcome(layer, way, dtype) for layer in twins(form, kind, bias=bias, dtype=dtype)]
    assert_close(results[0], results[1], atol=0, rtol=0)


def keeps_the_matrix(form: str, work, monkeypatch) -> bool:
    """Whether autograd saves a matrix of these layers for the backward pass of `work()`, or a dense one outlives it."""
    made, shapes, dense = [], set(), FORMS[form].dense

    def watched(weight):
        made.append(dense(weight))
        return made[-1]

    with (
        monkeypatch.context() as patch,
        torch.autograd.graph.saved_tensors_hooks(lambda t: shapes.add(t.shape) or t, lambda t: t),
    ):
        patch.setattr(FORMS[form], "dense", watched)
        out = work()
    made = [weakref.ref(made.pop()) for _ in range(len(made))]
    assert (out if isinstance(out, torch.Tensor) else out[0]).requires_grad
    return bool({(128, 64), (64, 128)} & shapes) or any(matrix() is not None for matrix in made)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_no_dense_matrix_is_kept_for_the_way_back(form, kind, monkeypatch):
    layer, plain = twins(form, kind)
    x = torch.randn(2, 5, 64, requires_grad=True)
    for work in (
        lambda: layer(x),
        lambda: layer.forward_with(x, layer),
        lambda: layer.forward_gated(x, x, "silu"),
        lambda: multiply(x, layer.weight, layer.bias),
    ):
        assert not keeps_the_matrix(form, work, monkeypatch)
    assert keeps_the_matrix(form, lambda: plain(x), monkeypatch)  # it would be seen
    assert keeps_the_matrix(form, lambda: (x, layer.weight.dense()), monkeypatch)


def test_without_gradients_of_the_input_nothing_is_multiplied_out_on_the_way_back(form, monkeypatch):
    layer, _ = twins(form, {})
    outs = layer.forward_with(torch.randn(5, 64))
    monkeypatch.setattr(FORMS[form], "dense", lambda weight: pytest.fail("multiplied out"))
    outs[0].sum().backward()
    assert layer.lora_B.weight.grad.abs().max() > 0


# ------------------------------------------------------------------------------------------------------------ networks


@pytest.fixture
def quantised(form, tiny_folder):
    return load_decoder(str(tiny_folder), put=QUANTIZE[form])


def multiplied_out(network):
    """The same network, dense."""
    network = copy.deepcopy(network)
    for name, layer in linears(network).items():
        if isinstance(layer, QuantisedLinear):
            weight = nn.Parameter(layer.weight.dense(), requires_grad=False)
            network.set_submodule(name, linear_layer(weight, layer.bias))
    return network


def adapt(network, seed=0, **settings) -> None:
    torch.manual_seed(seed)
    inject(network, r=4, alpha=8, **{"targets": DECODER_TARGETS} | settings)
    for layer in adapter_in_use(network).values():
        nn.init.normal_(layer.lora_B.weight, std=0.05)


def test_linear_layers_are_quantised_and_all_else_is_loaded_as_it_is(form, reference_decoder):
    dense = load_decoder(str(reference_decoder[1]), dtype=torch.bfloat16)
    network = load_decoder(str(reference_decoder[1]), dtype=torch.bfloat16, put=QUANTIZE[form])
    assert len(linears(network)) == 7 * network.config.num_hidden_layers
    for name, layer in linears(dense).items():
        expected = FORMS[form](layer.weight).dense()
        assert torch.equal(network.get_submodule(name).weight.dense(), expected) and expected.dtype == torch.bfloat16
    parameters = dict(network.named_parameters())
    assert {name for name, _ in dense.named_parameters()} - parameters.keys() == {f"{n}.weight" for n in linears(dense)}
    assert all(torch.equal(parameter, dense.get_parameter(name)) for name, parameter in parameters.items())
    assert torch.equal(network(IDS), multiplied_out(network)(IDS))
    assert not any(module.training for module in network.modules())


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("checkpointing", ["none", "full"])
def test_a_decoder_has_the_gradients_of_its_dense_twin(quantised, kind, checkpointing):
    grads = []
    for network in (multiplied_out(quantised), quantised):
        adapt(network, **kind)
        network.train()
        network.checkpointing = checkpointing
        causal_lm_loss(network.hidden_states(IDS), network.head_weight, IDS).backward()
        grads.append({name: parameter.grad for name, parameter in trainable(network)})
    assert all(grad.abs().max() > 0 for grad in grads[0].values())
    assert_close(grads[0], grads[1], atol=0, rtol=0)


def test_gradients_pass_through_quantised_layers_that_have_no_adapter(quantised):
    grads = []
    for network in (multiplied_out(quantised), quantised):
        adapt(network, targets=["q_proj"], layers=[0])
        causal_lm_loss(network.hidden_states(IDS), network.head_weight, IDS).backward()
        grads.append({name: parameter.grad for name, parameter in trainable(network)})
    assert len(grads[1]) == 2 and all(grad.abs().max() > 0 for grad in grads[1].values())
    assert_close(grads[0], grads[1], atol=0, rtol=0)


def test_it_learns(quantised):
    quantised.model.embed_tokens.weight.data *= 10  # tied and tiny, it would bound the logits
    inject(quantised, r=4, alpha=8, targets=DECODER_TARGETS)
    optimizer = adamw(quantised, lr=1e-2, weight_decay=0.0)
    stored = {name: buffer.clone() for name, buffer in quantised.named_buffers()}
    losses = []
    for _ in range(30):
        loss = causal_lm_loss(quantised.hidden_states(IDS), quantised.head_weight, IDS) / supervised_tokens(IDS)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    assert stored and all(torch.equal(buffer, stored[name]) for name, buffer in quantised.named_buffers())


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_merged_equals_unmerged_and_removed_is_the_base_again(quantised, kind):
    plain = quantised(IDS)
    adapt(quantised, **kind)
    expected = quantised(IDS)
    assert not torch.equal(expected, plain)
    merged = copy.deepcopy(quantised)
    remove(merged, merge=True)
    assert_close(merged(IDS), expected, atol=1e-4, rtol=0)
    assert all(isinstance(layer, nn.Linear) for layer in linears(merged).values())
    remove(quantised, merge=False)
    assert all(type(layer) is QuantisedLinear for layer in linears(quantised).values())
    assert torch.equal(quantised(IDS), plain)


def test_a_merged_weight_is_the_sum_in_fp32_rounded_once(form):
    layer, _ = twins(form, {}, dtype=torch.bfloat16)
    expected = layer.weight.dense().float() + 2 * (layer.lora_B.weight @ layer.lora_A.weight)
    assert layer.merged_weight().dtype == torch.bfloat16
    assert torch.equal(layer.merged_weight(), expected.detach().bfloat16())


def test_folding_leaves_what_is_quantised_as_it_is(quantised):
    adapt(quantised)
    expected, adapter = quantised(IDS), adapter_in_use(quantised)
    with folded(quantised):
        assert adapter_in_use(quantised) == adapter
        assert torch.equal(quantised(IDS), expected)


def test_nothing_of_it_is_in_an_adapters_file(form, quantised, tiny_folder, tmp_path):
    adapt(quantised)
    save_adapter(quantised, tmp_path / "adapter", base_model="tiny", task_type="CAUSAL_LM")
    keys = load_file(tmp_path / "adapter" / "adapter_model.safetensors").keys()
    assert {key.rpartition(".lora_")[2] for key in keys} == {"A.weight", "B.weight"}
    dense, other = load_decoder(str(tiny_folder)), load_decoder(str(tiny_folder), put=QUANTIZE[form])
    for network in (dense, other):
        load_adapter(network, tmp_path / "adapter")
    assert torch.equal(other(IDS), quantised(IDS))
    assert dense(IDS).isfinite().all() and not torch.equal(dense(IDS), quantised(IDS))


def test_it_is_merged_into_the_matrices_that_it_was_learnt_for(form, quantised, tiny_folder, tmp_path):
    adapt(quantised)
    save_adapter(quantised, tmp_path / "adapter", base_model="tiny", task_type="CAUSAL_LM")
    (tmp_path / "adapter" / "tritune.json").write_text(json.dumps({"schema": 1, "settings": {"quantize": form}}))
    merge(str(tiny_folder), tmp_path / "adapter", tmp_path / "out", dtype="fp32")
    assert_close(load_decoder(str(tmp_path / "out"))(IDS), quantised(IDS), atol=1e-4, rtol=0)


def test_a_quantised_network_is_not_saved(quantised, tiny_folder, tmp_path):
    with pytest.raises(UserError, match=r"self_attn\.q_proj\.weight\.codes: quantised weights are not saved"):
        save_decoder(quantised, load_tokenizer(str(tiny_folder)), tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


# ---------------------------------------------------------------------------------------------------------- memory

MEASURE = """
import sys
import torch
from lora.frozen_weight import QUANTIZE
from model import load_decoder

def memory(key):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(key))

put = QUANTIZE[sys.argv[2]]
first = load_decoder(sys.argv[1], dtype=torch.bfloat16, put=put)    # what loading needs once: code, and pages
before = memory("VmRSS")
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")                                # the peak starts anew
decoder = load_decoder(sys.argv[1], dtype=torch.bfloat16, put=put)
stored = [*decoder.parameters(), *decoder.buffers()]
print(memory("VmHWM") - before, sum(t.numel() * t.element_size() for t in stored))
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is measured by Linux's /proc")
def test_loading_needs_the_quantised_weights_and_one_dense_matrix(form, tmp_path):
    """Measured 0.9 to 1.0 matrices, beside a busy processor up to 1.45; a second one would be 2."""
    config = {
        "model_type": "llama", "vocab_size": 500, "hidden_size": 2048, "intermediate_size": 8192,
        "num_hidden_layers": 1, "num_attention_heads": 8, "max_position_embeddings": 64, "tie_word_embeddings": True,
    }  # fmt: skip
    with torch.device("meta"):
        shapes = {name: p.shape for name, p in Decoder(ModelConfig.from_dict(config)).named_parameters()}
    weights = {name: torch.ones(shape, dtype=torch.bfloat16) for name, shape in shapes.items()}
    save_file(weights, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(config))
    command = [sys.executable, "-c", MEASURE, str(tmp_path), form]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    peak, weights = map(int, done.stdout.split()) if done.returncode == 0 else pytest.fail(done.stderr)
    matrix = 2 * 2048 * 8192
    low, high = {"nf4": (33e6, 40e6), "int8": (66e6, 72e6)}[form]
    assert low < weights < high and weights < peak < weights + 1.9 * matrix, (peak - weights) / matrix
