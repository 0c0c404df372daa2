"""Prefix and prompt tuning in the network: before every document, at every position, in the cache, in every pass."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from common.console import UserError
from lora.adapter import adapter_in_use, folded, remove, train_adapter, trainable, use_adapter
from lora.initial_tokens import FREQUENT, initial_tokens
from lora.prefix import Prefix
from lora.prompt import Prompt
from model import Sampling, Stop, fast, generate
from model.config import ModelConfig
from model.decoder import CHECKPOINTING, Decoder
from model.loss import causal_lm_loss

SIZES = {
    "vocab_size": 60, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "rope_theta": 1e4,
    "tie_word_embeddings": True,
}  # fmt: skip
FAMILIES = {
    "llama": {"model_type": "llama", "hidden_act": "silu"},
    "qwen3": {"model_type": "qwen3", "hidden_act": "silu"},  # a norm of keys, which learnt ones do not pass
    "mistral": {"model_type": "mistral", "hidden_act": "silu", "sliding_window": 6},
    "gemma2": {
        "model_type": "gemma2", "hidden_activation": "gelu_pytorch_tanh", "query_pre_attn_scalar": 20,
        "sliding_window": 6, "attn_logit_softcapping": 3.0, "final_logit_softcapping": 2.0,
    },
    "dynamic": {"model_type": "llama", "hidden_act": "silu", "rope_scaling": {"type": "dynamic", "factor": 2.0},
                "max_position_embeddings": 20},
}  # fmt: skip
KINDS = {
    "prefix": lambda decoder, count: Prefix(decoder, count),
    "prefix by an MLP": lambda decoder, count: Prefix(decoder, count, hidden=5),
    "prompt": lambda decoder, count: Prompt(decoder, count),
}
COUNT = 4
LENGTHS = [9, 1, 5]
IDS = torch.randint(3, 60, (1, sum(LENGTHS)), generator=torch.Generator().manual_seed(5))
PROMPTS = [[5, 9, 11, 30, 7], [8], [4, 17, 6, 3, 3, 12, 40, 41, 2], [21, 22], [33, 3, 5, 7, 11, 13]]


def plain_decoder(family: str = "llama", **changes) -> Decoder:
    decoder = Decoder(ModelConfig.from_dict(SIZES | FAMILIES[family] | changes)).eval()
    for name, parameter in decoder.named_parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.3)
        elif "norm" in name:
            nn.init.uniform_(parameter, 0.5, 1.5)
    return decoder


def adapted(family: str, kind: str, **changes) -> Decoder:
    decoder = plain_decoder(family, **changes)
    learnt = KINDS[kind](decoder, COUNT)
    train_adapter(decoder, {learnt.place: learnt})
    return decoder


each_kind = pytest.mark.parametrize("kind", KINDS)
each_family = pytest.mark.parametrize("family", FAMILIES)


@each_kind
@each_family
@pytest.mark.parametrize("plain", [False, True])
def test_packed_documents_are_what_each_is_alone(family, kind, plain, monkeypatch):
    monkeypatch.setattr(fast, "_enabled", not plain)
    decoder = adapted(family, kind)
    packed = decoder.hidden_states(IDS, LENGTHS)
    alone = torch.cat([decoder.hidden_states(ids) for ids in IDS.split(LENGTHS, dim=1)], dim=1)
    assert packed.shape == (*IDS.shape, 16)
    assert_close(packed, alone, atol=1e-5, rtol=0)
    # a batch of rows is each row alone, too
    rows = IDS[:, :10].view(2, 5)
    assert_close(decoder(rows), torch.cat([decoder(row[None]) for row in rows]), atol=1e-5, rtol=0)
    # and the virtual tokens do something to every document
    use_adapter(decoder, None)
    change = (packed - decoder.hidden_states(IDS, LENGTHS))[0]
    assert min(document.abs().max() for document in change.split(LENGTHS)) > 0.01


@each_kind
@each_family
def test_gradients_of_packed_documents_are_those_of_each_alone(family, kind):
    decoder = adapted(family, kind)
    weight = torch.randn(*IDS.shape, 16)
    (decoder.hidden_states(IDS, LENGTHS) * weight).sum().backward()
    packed = {name: p.grad.clone() for name, p in trainable(decoder)}
    decoder.zero_grad()
    for ids, each in zip(IDS.split(LENGTHS, dim=1), weight.split(LENGTHS, dim=1), strict=True):
        (decoder.hidden_states(ids) * each).sum().backward()
    assert_close(packed, {name: p.grad for name, p in trainable(decoder)}, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", ["prefix", "prompt"])  # an MLP starts at random
@each_family
def test_a_text_as_virtual_tokens_is_that_text_before_every_document(family, kind):
    """The base reads P tokens and a document; prefix and prompt that start as these tokens are the same network."""
    decoder, text = plain_decoder(family), [7, 31, 2, 19]
    learnt = KINDS[kind](decoder, COUNT)
    learnt.start_as_text(decoder, text)
    documents = [ids[0].tolist() for ids in IDS.split(LENGTHS, dim=1)]
    expected = [decoder(torch.tensor([text + ids]))[:, COUNT:] for ids in documents]
    train_adapter(decoder, {learnt.place: learnt})
    assert_close(decoder(IDS, LENGTHS), torch.cat(expected, dim=1), atol=1e-5, rtol=0)


@each_kind
@each_family
@pytest.mark.parametrize("samples", [1, 3])
def test_cached_generation_equals_recomputing_everything(family, kind, samples):
    """Alone, in a batch, on few rows, with shared prompts: in fp64, where no draw is a close one."""
    decoder = adapted(family, kind).double()
    stop, sampling = Stop(max_new_tokens=6, ids=range(20, 24)), Sampling(1.3, samples=samples)
    together = generate(decoder, PROMPTS, stop, sampling)
    for rows in (1, 3):
        assert generate(decoder, PROMPTS, stop, sampling, rows=rows) == together
    greedy = Stop(max_new_tokens=6, ids=())
    if family == "dynamic":
        return  # its base grows with the text: a cached key keeps the base that it was computed with
    for prompt, answers in zip(PROMPTS, generate(decoder, PROMPTS, greedy, Sampling(samples=samples)), strict=True):
        ids = list(prompt)
        for _ in range(6):
            ids.append(int(decoder(torch.tensor([ids]))[0, -1].argmax()))
        assert answers == [ids[len(prompt) :]] * samples


@pytest.mark.parametrize(("samples", "rows", "page"), [(1, 2, 3), (3, 5, 3), (3, 5, 64)])
@each_kind
def test_pages_of_any_size_hold_virtual_tokens(kind, samples, rows, page, monkeypatch):
    decoder = adapted("mistral", kind).double()
    settings = Stop(max_new_tokens=10, ids=range(20, 50)), Sampling(1.2, samples=samples)
    expected = generate(decoder, 2 * PROMPTS, *settings, rows=64)
    monkeypatch.setattr("model.pages.PAGE", page)
    assert generate(decoder, 2 * PROMPTS, *settings, rows=rows) == expected


@pytest.mark.parametrize("lanes", [1, 4])
def test_a_prefix_is_in_the_cache_once_and_a_prompt_with_each_prompt(lanes):
    """The bytes of keys and values: a page is 64 tokens, and page 0 belongs to nobody."""
    places = {"slots": 8 // lanes, "lanes": lanes, "rows": 8, "longest": (60, 4)}
    caches = {kind: adapted("llama", kind).new_cache(**places) for kind in ("prefix", "prompt")}
    caches["none"] = plain_decoder().new_cache(**places)
    for cache in caches.values():
        cache.admit([0, 1], [60, 60])
    pages = {kind: (cache.prompts or cache.answers).of for kind, cache in caches.items()}
    assert pages["prefix"] == pages["none"] and [len(of) for of in pages["prompt"][:2]] == [1, 1]
    assert caches["prefix"].prefix.keys.shape[1] == 2 and caches["prompt"].prefix is caches["none"].prefix is None
    for kind, first in {"prefix": COUNT + 60, "prompt": COUNT + 60, "none": 60}.items():
        caches[kind].seat([0], [0], [0])
        assert caches[kind].positions()[0] == first, kind
    caches["prompt"].admit([1], [61])
    assert len(pages["prompt"][1]) == 2  # 65 tokens


@each_kind
def test_every_way_of_checkpointing_gives_the_same_gradients(kind, monkeypatch):
    """With a window and a soft-cap, whose scores are recomputed in any case."""
    decoder = adapted("gemma2", kind)
    labels, gradients = IDS.clone(), {}
    if not torch.cuda.is_available():
        monkeypatch.setattr("model.decoder.save_on_cpu", lambda pin_memory: torch.autograd.graph.save_on_cpu())
    for checkpointing in CHECKPOINTING:
        decoder.checkpointing = checkpointing
        hidden_states = decoder.hidden_states(IDS, LENGTHS)
        causal_lm_loss(hidden_states, decoder.head_weight, labels, softcap=decoder.softcap).backward()
        gradients[checkpointing] = {name: p.grad for name, p in trainable(decoder)}
        decoder.zero_grad(set_to_none=True)
    for found in gradients.values():
        assert_close(found, gradients["none"])
        assert min(gradient.abs().max() for gradient in found.values()) > 1e-4


@each_kind
def test_an_adapter_of_virtual_tokens_comes_and_goes(kind):
    decoder = plain_decoder()
    before = decoder(IDS, LENGTHS)
    learnt = KINDS[kind](decoder, COUNT)
    train_adapter(decoder, {learnt.place: learnt})
    with pytest.raises(UserError, match="already has an adapter"):
        train_adapter(decoder, {learnt.place: KINDS[kind](decoder, COUNT)})
    changed = decoder(IDS, LENGTHS)
    with folded(decoder):
        assert torch.equal(decoder(IDS, LENGTHS), changed)
    with pytest.raises(
        UserError, match=r"this adapter cannot be merged: a (prefix is keys and|learnt prompt is input)"
    ):
        remove(decoder, merge=True)
    assert adapter_in_use(decoder) == {learnt.place: learnt} and decoder.virtual_tokens == COUNT
    use_adapter(decoder, None)
    assert torch.equal(decoder(IDS, LENGTHS), before) and decoder.virtual_tokens == 0
    use_adapter(decoder, {learnt.place: learnt})
    assert torch.equal(decoder(IDS, LENGTHS), changed)


@each_kind
def test_virtual_tokens_count_as_positions(kind):
    decoder = adapted("llama", kind)
    assert decoder.max_tokens == 60
    stop = Stop(max_new_tokens=7, ids=())
    assert len(generate(decoder, [[3] * 53], stop)[0][0]) == 7
    with pytest.raises(
        UserError, match=r"54 tokens \+ 7 new tokens exceed the model's 64 positions less 4 virtual tokens"
    ):
        generate(decoder, [[3] * 54], stop)


def test_the_mlp_is_as_exact_under_autocast_as_the_file_that_it_is_folded_into():
    prefix = Prefix(plain_decoder(), COUNT, hidden=5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = prefix.folded()
    assert inside.dtype == torch.float32 and torch.equal(inside, prefix.folded())


def test_initial_tokens_are_a_text_repeated_or_cut_or_frequent_ones(tokenizer):
    ids = tokenizer.encode("What does this")
    assert len(ids) > 2
    assert initial_tokens(tokenizer, 2, text="What does this", seed=0) == ids[:2]
    assert initial_tokens(tokenizer, 2 * len(ids) + 1, text="What does this", seed=0) == [*ids, *ids, ids[0]]
    with pytest.raises(UserError, match="is empty"):
        initial_tokens(tokenizer, 2, text="", seed=0)
    drawn = initial_tokens(tokenizer, 1_000, text=None, seed=0)
    assert (
        drawn
        == initial_tokens(tokenizer, 1_000, text=None, seed=0)
        != initial_tokens(tokenizer, 1_000, text=None, seed=1)
    )
    assert not set(drawn) & set(tokenizer.control_tokens.values()) and len(set(drawn)) > 200
    large = SimpleNamespace(
        unused_ids=[7],
        backend=SimpleNamespace(get_vocab_size=lambda: 10 * FREQUENT, get_added_tokens_decoder=lambda: {1: "<s>"}),
    )
    drawn = initial_tokens(large, 100_000, text=None, seed=0)
    assert set(range(FREQUENT)) - set(drawn) == {1, 7} and max(drawn) < FREQUENT
