"""The real weights of the embedded language model, against transformers and against what they must be able to do."""

from __future__ import annotations

import inspect
import os

import pytest
import torch
from torch.testing import assert_close

from data.masking import encode_prompt
from eval.perplexity import perplexity
from model import Stop, generate, load_decoder, load_tokenizer, save_decoder

MESSAGES = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.fixture(scope="module")
def embedded():
    return load_decoder("smollm2-135m"), load_tokenizer("smollm2-135m")


@pytest.fixture(scope="module")
def file():
    from networkx.algorithms import dag

    return [("dag.py", inspect.getsource(dag)[:1000])]


def test_logits_ids_and_text_equal_transformers(embedded, tmp_path):
    from transformers import AutoModelForCausalLM

    decoder, tokenizer = embedded
    save_decoder(decoder, tokenizer, tmp_path / "saved")
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "saved", dtype=torch.float32)
    prompt = encode_prompt(tokenizer, MESSAGES)
    ids = torch.tensor([prompt])
    assert_close(decoder(ids), theirs(ids).logits, atol=1e-3, rtol=0)  # logits of up to 40, through 30 layers
    expected = theirs.generate(ids, max_new_tokens=24, do_sample=False)[0, len(prompt) :].tolist()
    ours = generate(decoder, [prompt], Stop(max_new_tokens=24, ids=tokenizer.stop_ids))[0][0]
    assert ours == [token for token in expected if token not in tokenizer.stop_ids]
    assert "Paris" in tokenizer.decode(ours)


@pytest.mark.slow
@pytest.mark.skipif("TRITUNE_QWEN" not in os.environ, reason="TRITUNE_QWEN names no folder with a Qwen2.5 model")
def test_a_real_qwen_gives_the_logits_the_template_and_the_text_of_transformers():
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = os.environ["TRITUNE_QWEN"]
    decoder, tokenizer = load_decoder(folder), load_tokenizer(folder)
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    text = AutoTokenizer.from_pretrained(folder).apply_chat_template(
        MESSAGES, tokenize=False, add_generation_prompt=True
    )
    assert tokenizer.render(MESSAGES, add_generation_prompt=True) == text
    prompt = encode_prompt(tokenizer, MESSAGES)
    ids = torch.tensor([prompt])
    assert_close(decoder(ids), theirs(ids).logits, atol=1e-3, rtol=0)
    expected = theirs.generate(ids, max_new_tokens=24, do_sample=False, repetition_penalty=1.0)[
        0, len(prompt) :
    ].tolist()
    ours = generate(decoder, [prompt], Stop(max_new_tokens=24, ids=tokenizer.stop_ids))[0][0]
    assert ours == [token for token in expected if token not in tokenizer.stop_ids]


def test_llama_cpps_row_order_is_undone(embedded, file, monkeypatch):
    """Perplexity on library code is about 10; with the interleaved rows left as they are it is in the hundreds."""
    decoder, tokenizer = embedded
    assert 4 < perplexity(decoder, tokenizer, file)["metrics"]["perplexity"] < 12
    import model.gguf.tensors

    monkeypatch.setattr(model.gguf.tensors, "half_split_rows", lambda weight, heads: weight)
    assert perplexity(load_decoder("smollm2-135m"), tokenizer, file)["metrics"]["perplexity"] > 100


def test_the_tied_head_is_the_embedding(embedded):
    decoder, _ = embedded
    assert decoder.head_weight is decoder.model.embed_tokens.weight
