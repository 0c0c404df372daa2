"""Prefix and prompt tuning against peft: logits, gradients, the tokens that are generated, and files, both ways."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from common.console import UserError
from lora.adapter import adapter_in_use, train_adapter, trainable
from lora.adapter_file import load_adapter, save_adapter
from lora.peft_format import INERT as INERT_IN_ALL
from lora.prefix import Prefix
from lora.prompt import Prompt
from lora.virtual_file import INERT, READ
from model import Sampling, Stop, generate, load_decoder, load_encoder

peft = pytest.importorskip("peft")
IDS = torch.randint(3, 400, (2, 19), generator=torch.Generator().manual_seed(5))
# Every way in which attention differs. Windows are 7 wide: a prefix of 5 is left behind, one of 9 is so from the start.
FAMILIES = ["llama", "llama-dynamic", "mistral", "qwen2", "qwen2-window", "qwen3", "gemma", "gemma2", "gemma3"]
METHODS = {
    "prefix": lambda: peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=5),
    "long prefix by an MLP": lambda: peft.PrefixTuningConfig(
        task_type="CAUSAL_LM", num_virtual_tokens=9, prefix_projection=True, encoder_hidden_size=11
    ),
    "prompt": lambda: peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=5),
}
of_families = pytest.mark.parametrize("reference_decoder", FAMILIES, indirect=True)
of_methods = pytest.mark.parametrize("method", METHODS)
# peft 0.21 passes the cache by a name that transformers 5.24 calls old
pytestmark = pytest.mark.filterwarnings("ignore:`past_key_values` is deprecated", "ignore:`gradient_checkpointing_en")


def their_model(folder):
    from transformers import AutoModelForCausalLM

    # eager attention is the only one that knows the soft-cap
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")


def fresh_of(ours, method):
    """Our virtual tokens of a method, to be trained."""
    if method == "prompt":
        return Prompt(ours, 5)
    return Prefix(ours, 9, hidden=11) if "MLP" in method else Prefix(ours, 5)


def both(folder, method):
    """(our decoder, peft's model) with the same virtual tokens, both to be trained."""
    theirs = peft.get_peft_model(their_model(folder), METHODS[method]()).eval()
    ours = load_decoder(str(folder))
    learnt = fresh_of(ours, method)
    learnt.load_state_dict(theirs.prompt_encoder["default"].state_dict())  # every name and every shape is PEFT's
    train_adapter(ours, {learnt.place: learnt})
    return ours, theirs


def their_logits(theirs, ids):
    """Of the text alone: peft returns those of a prompt's virtual tokens as well."""
    return theirs(input_ids=ids).logits[:, -ids.shape[1] :]


@of_families
@of_methods
def test_logits_and_the_gradients_of_every_parameter_equal_peft(reference_decoder, method):
    ours, theirs = both(reference_decoder[1], method)
    logits, expected = ours(IDS), their_logits(theirs, IDS)
    assert_close(logits, expected, atol=1e-4, rtol=0)
    direction = torch.randn(logits.shape, generator=torch.Generator().manual_seed(1))
    (logits * direction).sum().backward()
    (expected * direction).sum().backward()
    found = {name.removeprefix("model.").partition(".")[2]: p.grad for name, p in trainable(ours)}
    wanted = {name: p.grad for name, p in theirs.prompt_encoder["default"].named_parameters()}
    assert {name for name, p in theirs.named_parameters() if p.requires_grad} == {
        f"prompt_encoder.default.{name}" for name in found
    }
    assert_close(found, wanted, atol=2e-4, rtol=1e-3)
    assert min(gradient.abs().max() for gradient in found.values()) > 1e-3
    # and the virtual tokens do something
    assert (logits - load_decoder(str(reference_decoder[1]))(IDS)).abs().max() > 0.1


@pytest.mark.parametrize("reference_decoder", sorted({*FAMILIES} - {"llama-dynamic"}), indirect=True)
@of_methods
def test_greedy_answers_are_those_of_peft_s_forward_pass(reference_decoder, method):
    """The whole text is read for each token: with these versions of peft and transformers, `generate` over a cache does
    not attend to the prefix (its mask has no columns for it), and reads a prompt's virtual tokens as four tokens more.
    """
    ours, theirs = both(reference_decoder[1], method)
    prompts = [IDS[0, :7].tolist(), IDS[1].tolist()]
    for samples in (1, 2):
        answers = generate(ours, prompts, Stop(max_new_tokens=6, ids=()), Sampling(samples=samples))
        for prompt, answer in zip(prompts, answers, strict=True):
            ids = torch.tensor([prompt])
            with torch.no_grad():
                for _ in range(6):
                    ids = torch.cat([ids, theirs(input_ids=ids).logits[:, -1:].argmax(-1)], dim=1)
            assert answer == [ids[0, len(prompt) :].tolist()] * samples


@pytest.mark.parametrize("reference_decoder", ["llama", "gemma2"], indirect=True)
@of_methods
def test_our_file_loads_in_peft_with_the_same_logits(reference_decoder, method, tmp_path):
    _, folder = reference_decoder
    ours = load_decoder(str(folder))
    learnt = fresh_of(ours, method)
    train_adapter(ours, {learnt.place: learnt})
    save_adapter(ours, tmp_path / "adapter", base_model=str(folder), task_type="CAUSAL_LM")
    theirs = peft.PeftModel.from_pretrained(their_model(folder), tmp_path / "adapter").eval()
    assert_close(their_logits(theirs, IDS), ours(IDS), atol=1e-4, rtol=0)
    again = load_decoder(str(folder))
    load_adapter(again, tmp_path / "adapter")
    assert torch.equal(again(IDS), ours(IDS))
    written = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    kind = peft.PromptTuningConfig if method == "prompt" else peft.PrefixTuningConfig
    assert written.keys() <= {field.name for field in dataclasses.fields(kind)}


@pytest.mark.parametrize("reference_decoder", ["llama", "gemma2"], indirect=True)
@of_methods
def test_their_file_loads_here_with_the_same_logits(reference_decoder, method, tmp_path):
    """Also one that an MLP made: its config says so, but the tensor is the MLP's result."""
    ours, theirs = both(reference_decoder[1], method)
    theirs.save_pretrained(tmp_path / "adapter")
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert config.get("prefix_projection", False) == ("MLP" in method)
    again = load_decoder(str(reference_decoder[1]))
    load_adapter(again, tmp_path / "adapter")
    assert_close(again(IDS), their_logits(theirs, IDS), atol=1e-4, rtol=0)
    assert_close(again(IDS), ours(IDS), atol=1e-5, rtol=0)


@pytest.mark.parametrize("checkpointed_first", [True, False])
def test_peft_does_not_checkpoint_a_prefix(tiny_folder, checkpointed_first):
    """What lora/prefix.py says of it: peft refuses; switched on later, transformers takes away the cache it is in."""
    model = their_model(tiny_folder)
    if checkpointed_first:
        model.gradient_checkpointing_enable()
        with pytest.raises(ValueError, match="PREFIX_TUNING does not work with gradient checkpointing"):
            peft.get_peft_model(model, METHODS["prefix"]())
        return
    theirs = peft.get_peft_model(model, METHODS["prefix"]()).train()
    model.gradient_checkpointing_enable()
    with pytest.raises(RuntimeError, match=r"must match the size of tensor b \(24\)"):  # 19 keys, a mask of 5 + 19
        theirs(input_ids=IDS)


@pytest.fixture(scope="module")
def saved(tiny_folder, tmp_path_factory):
    """{method: the folder of a fresh adapter of the tiny model}."""
    made = {}
    for method in ("prefix", "prompt"):
        ours = load_decoder(str(tiny_folder))
        learnt = fresh_of(ours, method)
        train_adapter(ours, {learnt.place: learnt})
        made[method] = tmp_path_factory.mktemp(method) / "adapter"
        save_adapter(ours, made[method], base_model="tiny", task_type="CAUSAL_LM")
    return made


@pytest.mark.parametrize("method", ["prefix", "prompt"])
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"num_virtual_tokens": 6}, r"prompt_embeddings is \[5, \d+\], expected \[6, \d+\]"),
        ({"num_virtual_tokens": None}, "num_virtual_tokens is None; it is required"),
        ({"num_virtual_tokens": -5}, "-5 virtual tokens in a model of 256 positions"),
        ({"num_virtual_tokens": 256}, "256 virtual tokens in a model of 256 positions"),
        ({"num_layers": 4}, "num_layers=4, expected 3"),
        ({"num_attention_heads": 3}, "num_attention_heads=3, expected"),
        ({"token_dim": 999}, "token_dim=999, expected"),
        ({"num_transformer_submodules": 2}, "num_transformer_submodules=2, expected 1"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save=.* is not implemented"),
        ({"of_a_later_version": 3}, "of_a_later_version=3 is not implemented"),
        ({"peft_type": "P_TUNING"}, "adapter type 'P_TUNING' is not supported"),
        ("left over", "left over: other"),
        ("missing", "missing: prompt_embeddings"),
    ],
)
def test_a_file_for_another_model_is_refused(saved, tiny, tmp_path, method, change, said):
    config = json.loads((saved[method] / "adapter_config.json").read_text())
    tensors = load_file(saved[method] / "adapter_model.safetensors")
    if change == "left over":
        tensors["other"] = torch.zeros(2)
    elif change == "missing":
        tensors = {"other": torch.zeros(2)}
    else:
        config |= change
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    with pytest.raises(UserError, match=said) as refusal:
        load_adapter(tiny, tmp_path)
    assert "\n" not in str(refusal.value) and not adapter_in_use(tiny)


@pytest.mark.parametrize("method", ["prefix", "prompt"])
def test_an_encoder_takes_no_virtual_tokens(saved, reference_encoder, method):
    with pytest.raises(UserError, match=r"(PREFIX|PROMPT)_TUNING is implemented for decoders only"):
        load_adapter(load_encoder(str(reference_encoder[1])), saved[method])


def test_every_setting_that_peft_knows_is_read_inert_or_refused():
    """A new field shows here: at its default a config must load, set to something it must not pass by."""
    kinds = (peft.PrefixTuningConfig, peft.PromptTuningConfig)
    known = {field.name for kind in kinds for field in dataclasses.fields(kind)}
    assert known >= (INERT - INERT_IN_ALL) | READ
    assert known - INERT - READ == {"modules_to_save"}
