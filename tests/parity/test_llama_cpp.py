"""What we write, as llama.cpp itself computes, reads and renders it: `make slow` installs llama-cpp-python."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from model import Stop, generate, load_decoder, load_tokenizer
from model.export.convert import export
from model.export.verify import PROBE
from model.gguf.tokenizer import NASTY
from tests.model.export.test_export import FAMILIES, build

llama_cpp = pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed (make slow does it)")
pytestmark = pytest.mark.slow
MESSAGES = [{"role": "user", "content": "Write a Python function that adds two numbers."}]
CONTEXT = 320


def open_in_llama_cpp(path: Path):
    from_the_file = dict.fromkeys(("yarn_ext_factor", "yarn_attn_factor", "yarn_beta_fast", "yarn_beta_slow"), -1.0)
    fp32_cache = {"type_k": llama_cpp.GGML_TYPE_F32, "type_v": llama_cpp.GGML_TYPE_F32}
    return llama_cpp.Llama(
        str(path), n_ctx=CONTEXT, logits_all=True, verbose=False, n_threads=2, **from_the_file, **fp32_cache
    )


def logits_of(theirs, ids: list[int]) -> torch.Tensor:
    theirs.reset()
    theirs.eval(ids)
    return torch.from_numpy(np.array(theirs.scores[: len(ids)]))


def greedy(theirs, ids: list[int], stop_ids: set[int], tokens: int) -> list[int]:
    theirs.reset()
    theirs.eval(ids)
    out: list[int] = []
    while len(out) < tokens:
        token = int(np.argmax(theirs.scores[theirs.n_tokens - 1]))
        if token in stop_ids:
            break
        out.append(token)
        theirs.eval([token])
    return out


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_gives_the_same_logits_and_the_same_greedy_ids(family, tokenizer_folder, tmp_path):
    folder = build(family, tmp_path / "model", tokenizer_folder)
    export(str(folder), "gguf", tmp_path / "out" / "x.gguf", type="f32")
    theirs, ours = open_in_llama_cpp(tmp_path / "out" / "x.gguf"), load_decoder(str(folder))
    tokens = 39 if family == "mistral" else 100  # beyond its window llama.cpp does not go
    ids = load_tokenizer(str(folder)).encode(PROBE)[:tokens]
    expected = ours(torch.tensor([ids]))[0]
    assert expected.std() > 0.3  # not passing because everything is zero
    assert (logits_of(theirs, ids) - expected).abs().max() < 0.02
    prompt = ids[: tokens - 30]
    assert greedy(theirs, prompt, {2}, 30) == generate(ours, [prompt], Stop(max_new_tokens=30, ids={2}))[0][0]


def check_real_model(source: str, folder: Path, *, normalizes: bool) -> None:
    """f16: ids, template, logits and greedy text."""
    export(source, "gguf", folder / "x.gguf", type="f16")
    theirs, ours, tokenizer = open_in_llama_cpp(folder / "x.gguf"), load_decoder(source), load_tokenizer(source)
    for text in (*NASTY, PROBE):
        if normalizes and "e\u0301" in text:  # llama.cpp leaves NFC out
            continue
        assert theirs.tokenize(text.encode(), add_bos=False, special=False) == tokenizer.encode(text), text
    rendered = tokenizer.render(MESSAGES, add_generation_prompt=True)
    formatter = llama_cpp.llama_chat_format.Jinja2ChatFormatter(
        theirs.metadata["tokenizer.chat_template"], eos_token=tokenizer.eos_token, bos_token=""
    )
    assert formatter(messages=MESSAGES).prompt == rendered
    prompt = tokenizer.backend.encode(rendered, add_special_tokens=False).ids
    assert theirs.tokenize(rendered.encode(), add_bos=False, special=True) == prompt
    expected = ours(torch.tensor([prompt]))[0]
    delta = (logits_of(theirs, prompt) - expected).square().mean().sqrt() / expected.std()
    assert delta < 0.01
    answer = generate(ours, [prompt], Stop(max_new_tokens=40, ids=tokenizer.stop_ids))[0][0]
    assert len(answer) > 20
    assert greedy(theirs, prompt, tokenizer.stop_ids, 40) == answer


def test_the_embedded_model_reads_renders_and_writes_the_same(tmp_path):
    check_real_model("smollm2-135m", tmp_path, normalizes=False)


@pytest.mark.skipif("TRITUNE_QWEN" not in os.environ, reason="TRITUNE_QWEN names no folder of a Qwen2.5 model")
def test_a_qwen_model_reads_renders_and_writes_the_same(tmp_path):
    check_real_model(os.environ["TRITUNE_QWEN"], tmp_path, normalizes=True)
