"""python -m lora.merge: one folder that other libraries load, from fp32 sums cast once."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.testing import assert_close

from common.console import UserError
from lora.adapter import adapter_in_use
from lora.adapter_file import load_adapter, save_adapter
from lora.frozen_weight import QUANTIZE
from lora.inject import DECODER_TARGETS, inject
from lora.merge import merge
from model import load_decoder, load_encoder, load_tokenizer, save_decoder
from tests.methods import MERGEABLE, METHODS, put_in, stir

IDS = torch.randint(3, 320, (1, 21), generator=torch.Generator().manual_seed(5))


def adapter_for(network, folder, *, task="CAUSAL_LM", **settings):
    inject(network, r=4, alpha=8, **settings)
    for layer in adapter_in_use(network).values():
        nn.init.normal_(layer.lora_B.weight, std=0.05)
    save_adapter(network, folder, base_model="tiny", task_type=task)
    return folder


@pytest.fixture
def bf16_base(tiny_folder, tmp_path):
    """A base whose files are in bf16, as most are."""
    folder = tmp_path / "base"
    save_decoder(load_decoder(str(tiny_folder), dtype=torch.bfloat16), load_tokenizer(str(tiny_folder)), folder)
    return folder


@pytest.mark.parametrize("kind", [{}, {"rslora": True}, {"dora": True}], ids=str)
def test_a_merged_bf16_model_is_the_fp32_sum_rounded_once(bf16_base, tmp_path, kind):
    adapter = adapter_for(load_decoder(str(bf16_base)), tmp_path / "adapter", targets=DECODER_TARGETS, **kind)
    merge(str(bf16_base), adapter, tmp_path / "out")
    network = load_decoder(str(bf16_base))
    load_adapter(network, adapter)
    merged, base = (load_file(folder / "model.safetensors") for folder in (tmp_path / "out", bf16_base))
    assert merged.keys() == base.keys()
    layers = adapter_in_use(network)
    for name, tensor in merged.items():
        layer = layers.get(name.removesuffix(".weight"))
        assert tensor.dtype == torch.bfloat16
        expected = base[name] if layer is None else layer.merged_weight().bfloat16()  # of the fp32 copy
        assert torch.equal(tensor, expected), name
    assert any(not torch.equal(merged[f"{name}.weight"], base[f"{name}.weight"]) for name in layers)


def test_the_merged_folder_answers_as_the_adapted_model_in_transformers(tiny_folder, tmp_path):
    from transformers import AutoModelForCausalLM

    network = load_decoder(str(tiny_folder))
    adapter = adapter_for(network, tmp_path / "adapter", targets=["q_proj", "up_proj"], dora=True)
    merge(str(tiny_folder), adapter, tmp_path / "out", dtype="fp32")
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32).eval()
    assert_close(theirs(IDS).logits, network(IDS), atol=1e-4, rtol=0)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("quantize", ["none", "nf4", "int8"])
def test_every_method_is_merged_into_a_folder_for_transformers_or_refused(tiny_folder, tmp_path, method, quantize):
    """Over NF4 into the dequantised matrices, those that the adapter left alone included."""
    from transformers import AutoModelForCausalLM

    network = load_decoder(str(tiny_folder), put=QUANTIZE[quantize])
    put_in(network, method)
    stir(network)
    save_adapter(network, tmp_path / "adapter", base_model="tiny", task_type="CAUSAL_LM")
    (tmp_path / "adapter" / "tritune.json").write_text(json.dumps({"settings": {"quantize": quantize}}))
    if method not in MERGEABLE:
        with pytest.raises(UserError, match=r"cannot be merged: a (bottleneck|prefix|learnt prompt) (has|is)"):
            merge(str(tiny_folder), tmp_path / "adapter", tmp_path / "out")
        assert not (tmp_path / "out").exists()
        return
    merge(str(tiny_folder), tmp_path / "adapter", tmp_path / "out", dtype="fp32")
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32).eval()
    assert_close(theirs(IDS).logits, network(IDS), atol=1e-4, rtol=0)
    with pytest.raises(UserError, match="is already merged into it"):
        merge(str(tmp_path / "out"), tmp_path / "adapter", tmp_path / "twice")


def test_an_encoder_is_merged_into_what_sentence_transformers_reads(reference_encoder, tmp_path):
    sentence_transformers = pytest.importorskip("sentence_transformers")
    encoder = load_encoder(str(reference_encoder[1]))
    adapter = adapter_for(encoder, tmp_path / "adapter", task="FEATURE_EXTRACTION", targets="all-linear")
    merge(str(reference_encoder[1]), adapter, tmp_path / "out")
    texts = ["abc def", "xyz"]
    theirs = sentence_transformers.SentenceTransformer(str(tmp_path / "out"), device="cpu")
    vectors = theirs.encode(texts, convert_to_tensor=True, normalize_embeddings=True)
    assert_close(vectors, encoder.encode(texts), atol=1e-5, rtol=0)
    assert (encoder.encode(texts) - load_encoder(str(reference_encoder[1])).encode(texts)).abs().max() > 0.01


def test_what_the_base_does_not_say_about_its_vectors_comes_from_the_run(reference_encoder, tmp_path):
    encoder = load_encoder(str(reference_encoder[1]))
    adapter = adapter_for(encoder, tmp_path / "adapter", task="FEATURE_EXTRACTION", targets=["query"])
    with pytest.raises(UserError, match="is an encoder's adapter, which has no chat template"):
        merge(str(reference_encoder[1]), adapter, tmp_path / "out", chat_template="x.jinja")
    settings = {"pooling": "mean", "query_prefix": "query: ", "passage_prefix": "passage: ", "max_length": 32}
    (adapter / "tritune.json").write_text(json.dumps({"schema": 1, "base": "tiny", "settings": settings}))
    merge(str(reference_encoder[1]), adapter, tmp_path / "out")
    found = load_encoder(str(tmp_path / "out")).embedding
    assert (found.pooling, found.query_prefix, found.passage_prefix, found.max_length) == (*settings.values(),)


def test_an_adapter_is_merged_once_and_another_after_it(tiny_folder, tmp_path):
    first = adapter_for(load_decoder(str(tiny_folder)), tmp_path / "first", targets=["q_proj"])
    (first / "tritune.json").write_text(json.dumps({"schema": 1, "base": "tiny", "track": "cpt"}))
    merge(str(tiny_folder), first, tmp_path / "one")
    with pytest.raises(UserError, match="is already merged into it"):
        merge(str(tmp_path / "one"), first, tmp_path / "twice")
    assert not (tmp_path / "twice").exists()
    second = adapter_for(load_decoder(str(tmp_path / "one")), tmp_path / "second", targets=["v_proj"])
    merge(str(tmp_path / "one"), second, tmp_path / "two")
    told = [json.loads((tmp_path / name / "tritune.json").read_text()) for name in ("one", "two")]
    assert told[0]["track"] == "cpt" and told[0]["base"] == "tiny"
    assert [entry["adapter"] for entry in told[1]["merged"]] == [str(first), str(second)]


def test_the_template_of_the_training_stays_with_the_merged_model(tiny_folder, tmp_path):
    adapter = adapter_for(load_decoder(str(tiny_folder)), tmp_path / "adapter", targets=["q_proj"])
    (tmp_path / "other.jinja").write_text("{% for message in messages %}[{{ message['content'] }}]{% endfor %}")
    settings = {"chat_template": str(tmp_path / "other.jinja")}
    (adapter / "tritune.json").write_text(json.dumps({"schema": 1, "base": "tiny", "settings": settings}))
    merge(str(tiny_folder), adapter, tmp_path / "out")
    assert load_tokenizer(str(tmp_path / "out")).render([{"role": "user", "content": "x"}]) == "[x]"


def test_an_encoder_s_adapter_with_tokens_of_its_own_is_refused(reference_encoder, tmp_path):
    encoder = load_encoder(str(reference_encoder[1]))
    adapter = adapter_for(encoder, tmp_path / "adapter", task="FEATURE_EXTRACTION", targets=["query"])
    encoder.tokenizer.backend.save(str(adapter / "tokenizer.json"))
    merge(str(reference_encoder[1]), adapter, tmp_path / "same")
    for count, said in ((1, "tokens of its own"), (200, "tokens that the model has no rows for")):
        encoder.tokenizer.backend.add_tokens([f"new{i}" for i in range(count)])
        encoder.tokenizer.backend.save(str(adapter / "tokenizer.json"))
        with pytest.raises(UserError, match=said):
            merge(str(reference_encoder[1]), adapter, tmp_path / "out")
    assert not (tmp_path / "out").exists()
