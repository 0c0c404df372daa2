"""Our decoder against transformers', on tiny random models with every supported feature on."""

from __future__ import annotations

import torch
from torch.testing import assert_close

from model import Sampling, Stop, generate, load_decoder, save_decoder

IDS = torch.randint(3, 400, (2, 37), generator=torch.Generator().manual_seed(5))


def test_logits_equal_transformers(reference_decoder):
    reference, folder = reference_decoder
    expected = reference(IDS).logits
    assert expected.std() > 0.3  # not passing because everything is zero
    assert_close(load_decoder(str(folder))(IDS), expected, atol=1e-4, rtol=0)


def test_gradients_of_every_parameter_equal_transformers(reference_decoder):
    reference, folder = reference_decoder
    decoder = load_decoder(str(folder))
    reference.zero_grad()
    reference(IDS).logits.square().mean().backward()
    decoder(IDS).square().mean().backward()
    expected = dict(reference.named_parameters())
    names = [name for name, _ in decoder.named_parameters()]
    assert set(names) == {
        name for name in expected if name != "lm_head.weight" or not decoder.config.tie_word_embeddings
    }
    for name, parameter in decoder.named_parameters():
        assert_close(parameter.grad, expected[name].grad, atol=1e-5, rtol=1e-3, msg=lambda m, n=name: f"{n}: {m}")


def test_greedy_generation_gives_the_same_ids_from_the_same_logits(reference_decoder, monkeypatch):
    reference, folder = reference_decoder
    decoder, logits = load_decoder(str(folder)), []
    head = decoder.logits
    monkeypatch.setattr(decoder, "logits", lambda hidden_states: logits.append(head(hidden_states)) or logits[-1])
    prompts = [IDS[1, :5].tolist(), IDS[0, 3:14].tolist(), IDS[0, :31].tolist()]  # seated by length, in this order
    theirs = [
        reference.generate(
            torch.tensor([prompt]), max_new_tokens=12, do_sample=False, eos_token_id=400, pad_token_id=0,
            output_logits=True, return_dict_in_generate=True,
        )
        for prompt in prompts
    ]  # fmt: skip
    for samples in (1, 2):  # two share the pages of their prompt
        logits.clear()
        answers = generate(decoder, prompts, Stop(max_new_tokens=12, ids=()), Sampling(samples=samples))
        ours = torch.stack(logits).unflatten(1, (-1, samples))  # [step, prompt, sample, V]
        for i, prompt in enumerate(prompts):
            assert answers[i] == samples * [theirs[i].sequences[0, len(prompt) :].tolist()]
            expected = torch.stack(theirs[i].logits).expand(-1, samples, -1)
            assert_close(ours[:, i], expected, atol=1e-4, rtol=0)


def test_what_we_save_loads_in_transformers_with_the_same_logits(reference_decoder, tmp_path):
    from transformers import AutoModelForCausalLM

    from model import load_tokenizer

    _, folder = reference_decoder
    decoder = load_decoder(str(folder))
    save_decoder(decoder, load_tokenizer(str(folder)), tmp_path / "saved")
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "saved", dtype=torch.float32)
    assert_close(theirs(IDS).logits, decoder(IDS), atol=1e-4, rtol=0)
