"""What holds for the adapters of every method."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from common.console import UserError
from data.masking import Example
from data.packing import to_batch
from lora.adapter import adapter_in_use, folded, remove, trainable, use_adapter
from lora.adapter_file import load_adapter, method_of, save_adapter
from lora.frozen_weight import put_nf4
from lora.ia3 import IA3Linear
from model import Stop, fast, generate, load_decoder
from model.decoder import CHECKPOINTING
from model.loss import causal_lm_loss
from tests.methods import MERGEABLE, METHODS, VIRTUAL, put_in, stir

IDS = torch.randint(3, 320, (1, 21), generator=torch.Generator().manual_seed(5))


def gradients(network) -> dict[str, torch.Tensor]:
    """Of two packed documents."""
    batch = to_batch(
        [Example(IDS[0, :9].tolist(), IDS[0, :9].tolist()), Example(IDS[0].tolist(), IDS[0].tolist())], "cpu"
    )
    network.zero_grad()
    hidden_states = network.hidden_states(batch.input_ids, batch.lengths)
    causal_lm_loss(hidden_states, network.head_weight, batch.labels).backward()
    return {name: parameter.grad.clone() for name, parameter in trainable(network)}


@pytest.mark.parametrize("method", sorted({*METHODS} - {*VIRTUAL}))
def test_a_fresh_adapter_changes_nothing_in_any_family(reference_decoder, method):
    _, folder = reference_decoder
    network = load_decoder(str(folder))
    if method == "pfeiffer" and network.config.post_norms:
        with pytest.raises(UserError, match="--placement houlsby"):
            put_in(network, method)
        return
    plain = network(IDS)
    assert put_in(network, method)
    assert torch.equal(network(IDS), plain)


@pytest.mark.parametrize("method", sorted({*METHODS} - {*VIRTUAL}))
@pytest.mark.parametrize("put", ["bf16", "nf4"])
def test_a_fresh_adapter_changes_nothing_over_half_precision_and_nf4(tiny_folder, method, put):
    settings = {"dtype": torch.bfloat16} | ({"put": put_nf4} if put == "nf4" else {})
    network = load_decoder(str(tiny_folder), **settings)
    plain = network(IDS)
    put_in(network, method)
    assert torch.equal(network(IDS), plain)
    with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
        assert torch.equal(network(IDS), plain)


@pytest.mark.parametrize("method", METHODS)
def test_gradients_reach_exactly_the_adapter_whatever_is_recomputed(tiny, method):
    adapter = put_in(tiny, method)
    stir(tiny)
    tiny.train()
    every = []
    for checkpointing in CHECKPOINTING:
        tiny.checkpointing = checkpointing
        every.append(gradients(tiny))
    saved = {tensor.data_ptr() for tensor in method_of(adapter).to_tensors(adapter).values()}
    if method != "prefix by an MLP":  # whose result alone is saved
        assert {parameter.data_ptr() for _, parameter in trainable(tiny)} == saved
    assert all(gradient.abs().max() > 0 for gradient in every[0].values())
    assert all(parameter.grad is None for _, parameter in tiny.named_parameters() if not parameter.requires_grad)
    for other in every[1:]:
        assert_close(other, every[0], atol=0, rtol=0)


@pytest.mark.parametrize("method", METHODS)
def test_the_plain_forms_have_the_same_gradients(tiny, method):
    put_in(tiny, method)
    stir(tiny)
    tiny.train()
    found = gradients(tiny)
    with fast.off():
        assert_close(found, gradients(tiny), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("put", ["bf16", "nf4"])
def test_what_is_trained_is_fp32_over_half_precision_and_nf4(tiny_folder, method, put):
    settings = {"dtype": torch.bfloat16} | ({"put": put_nf4} if put == "nf4" else {})
    network = load_decoder(str(tiny_folder), **settings)
    put_in(network, method)
    stir(network)
    network.train()
    with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
        found = gradients(network)
    assert {parameter.dtype for _, parameter in trainable(network)} == {torch.float32}
    assert all(gradient.dtype == torch.float32 and gradient.abs().max() > 0 for gradient in found.values())


@pytest.mark.parametrize("method", METHODS)
def test_packed_documents_have_the_logits_that_they_have_alone(tiny, method):
    put_in(tiny, method)
    stir(tiny)
    packed = tiny(IDS, [8, 1, 12])
    alone = torch.cat([tiny(piece) for piece in IDS.split([8, 1, 12], dim=1)], dim=1)
    assert_close(packed, alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("method", METHODS)
def test_cached_generation_equals_recomputing_everything(tiny, method):
    put_in(tiny, method)
    stir(tiny)
    for prompt in ([5, 9, 11, 30, 7], [8]):
        ids = list(prompt)
        for _ in range(8):
            ids.append(int(tiny(torch.tensor([ids]))[0, -1].argmax()))
        assert generate(tiny, [prompt], Stop(max_new_tokens=8, ids=()))[0][0] == ids[len(prompt) :]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("put", ["fp32", "nf4"])
def test_merged_equals_unmerged_or_is_refused_by_name(tiny_folder, method, put):
    network = load_decoder(str(tiny_folder), **({"put": put_nf4} if put == "nf4" else {}))
    plain = network(IDS)
    adapter = put_in(network, method)
    stir(network)
    expected = network(IDS)
    if method in MERGEABLE:
        remove(network, merge=True)
        assert not adapter_in_use(network)
        assert_close(network(IDS), expected, atol=1e-4, rtol=0)
        assert (network(IDS) - plain).abs().max() > 0.01
    else:
        with pytest.raises(UserError, match=r"cannot be merged: a (bottleneck has an|prefix is keys|learnt prompt is)"):
            remove(network, merge=True)
        assert adapter_in_use(network) == adapter and torch.equal(network(IDS), expected)


@pytest.mark.parametrize("method", METHODS)
def test_folded_for_sampling_computes_the_same_and_leaves_the_adapter_as_it_was(tiny, method):
    adapter = put_in(tiny, method)
    stir(tiny)
    expected = tiny(IDS)
    tiny.train()
    with folded(tiny):
        assert_close(tiny.eval()(IDS), expected, atol=1e-4, rtol=0)
        assert adapter_in_use(tiny) == ({} if method in MERGEABLE else adapter)
    assert torch.equal(tiny(IDS), expected) and adapter_in_use(tiny) == adapter
    assert not any(module.training for module in tiny.modules())


def test_a_lack_of_memory_while_folding_leaves_the_adapter_whole(tiny, monkeypatch):
    adapter = put_in(tiny, "ia3")
    stir(tiny)
    expected, merged = tiny(IDS), IA3Linear.merged

    def running_out(module):
        if module is adapter["model.layers.1.mlp.down_proj"]:
            raise MemoryError
        return merged(module)

    monkeypatch.setattr(IA3Linear, "merged", running_out)
    with pytest.raises(MemoryError), folded(tiny):
        pass
    assert adapter_in_use(tiny) == adapter and torch.equal(tiny(IDS), expected)


@pytest.mark.parametrize("method", MERGEABLE)
def test_a_merged_half_is_the_fp32_result_rounded_once(tiny_folder, method):
    """As a merge in fp32 whose tensors are then cast."""
    decoders = [load_decoder(str(tiny_folder), dtype=torch.bfloat16) for _ in range(2)]
    decoders[1].float()
    for decoder in decoders:
        torch.manual_seed(0)  # LoRA's A is random
        put_in(decoder, method)
        stir(decoder)
        remove(decoder, merge=True)
    half, full = (decoder.state_dict() for decoder in decoders)
    assert {tensor.dtype for tensor in half.values()} == {torch.bfloat16}
    assert all(torch.equal(half[name], tensor.bfloat16()) for name, tensor in full.items())


def test_adapters_of_all_methods_change_places_bit_by_bit(tiny, tiny_folder, tmp_path):
    expected, adapters = {None: tiny(IDS)}, {None: None}
    for seed, method in enumerate(METHODS):
        alone = load_decoder(str(tiny_folder))
        put_in(alone, method)
        stir(alone, seed)
        expected[method] = alone(IDS)
        save_adapter(alone, tmp_path / method, base_model="tiny", task_type="CAUSAL_LM")
        adapters[method] = load_adapter(tiny, tmp_path / method)
        assert torch.equal(tiny(IDS), expected[method]), method
    storage = {name: parameter.data_ptr() for name, parameter in load_names(tiny).items()}
    for method in [*METHODS, None, *reversed(METHODS), None]:
        use_adapter(tiny, adapters[method])
        assert torch.equal(tiny(IDS), expected[method]), method
    assert {name: parameter.data_ptr() for name, parameter in tiny.named_parameters()} == storage


def load_names(network) -> dict[str, torch.nn.Parameter]:
    use_adapter(network, None)
    return dict(network.named_parameters())


@pytest.mark.parametrize("method", METHODS)
def test_what_was_saved_is_saved_again_byte_for_byte(tiny, tiny_folder, tmp_path, method):
    put_in(tiny, method)
    stir(tiny)
    save_adapter(tiny, tmp_path / "a", base_model="tiny", task_type="CAUSAL_LM")
    again = load_decoder(str(tiny_folder))
    load_adapter(again, tmp_path / "a")
    save_adapter(again, tmp_path / "b", base_model="tiny", task_type="CAUSAL_LM")
    for path in (tmp_path / "a").iterdir():
        assert (tmp_path / "b" / path.name).read_bytes() == path.read_bytes(), path.name


@pytest.mark.parametrize("method", METHODS)
def test_a_tensor_too_few_too_many_or_of_another_shape_is_refused_by_name(tiny, tiny_folder, tmp_path, method):
    from safetensors.torch import load_file, save_file

    adapter = put_in(tiny, method)
    save_adapter(tiny, tmp_path / "a", base_model="tiny", task_type="CAUSAL_LM")
    file = tmp_path / "a" / method_of(adapter).file
    tensors = load_file(file)
    name = sorted(tensors)[0]
    other = load_decoder(str(tiny_folder))
    for changed, said in (
        ({key: tensors[key] for key in tensors if key != name} | {"more": torch.ones(3)}, f"missing: {name}"),
        (tensors | {"more": torch.ones(3)}, "left over: more"),
        (tensors | {name: torch.ones(3, 3)}, rf"{name} is \[3, 3\], expected"),
    ):
        save_file(changed, file)
        with pytest.raises(UserError, match=said):
            load_adapter(other, tmp_path / "a")
    assert not adapter_in_use(other)
