"""A decode step over the cache against the same tokens read at once, in half precision: scores keep their digits."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from model import load_decoder, load_tokenizer
from model.cache import KVCache
from model.embedded import EMBEDDED
from model.pages import PAGE, scores_in_fp32

HALF = [torch.bfloat16, torch.float16]
# The mean of the scores: 0 for fresh weights; Qwen2's biased keys give several hundred, Qwen2-7B's thousands.
LEVELS = [0, 40, 300, 6000]


def biased(level: float, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """Normal draws around one direction [D], so that q · k / sqrt(D) of two of them is `level` on average."""
    direction = F.normalize(
        torch.randn(shape[-1], generator=torch.Generator().manual_seed(5), dtype=torch.float64), dim=0
    )
    return (torch.randn(shape, dtype=torch.float64) + direction * (level * shape[-1] ** 0.5) ** 0.5).to(dtype)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("dtype", HALF)
def test_scores_keep_what_a_product_in_half_precision_rounds_away(dtype, level):
    q, k = (biased(level, (3, 2, n, 64), dtype) / 64**0.25 for n in (5, PAGE))
    exact, once = q.double() @ k.double().mT, (q @ k.mT).double()
    error = (scores_in_fp32(q, k, 1.0).double() - exact).abs().max()
    assert error < 1e-5 * max(level, 8)
    if level:
        assert (once - exact).abs().max() > 20 * error


@pytest.fixture(params=["as on a CPU", "as on a GPU"])
def keys(request, monkeypatch):
    """A CPU keeps the keys in fp32, a GPU in half precision."""
    if request.param == "as on a GPU":
        monkeypatch.setattr("model.pages.on_gpu", lambda where: True)


@pytest.mark.parametrize("lanes", [1, 2])
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("head_dim", [64, 80])  # 1 / sqrt(80) is no power of two
def test_a_step_over_the_cache_attends_as_exactly_as_half_precision_allows(keys, dtype, level, lanes, head_dim):
    tokens, rows, scale = 150, 2, head_dim**-0.5
    k, v = biased(level, (rows, 1, tokens, head_dim), dtype), torch.randn(rows, 1, tokens, head_dim).to(dtype)
    q = biased(level, (rows, 3, 1, head_dim), dtype)
    if lanes > 1:  # both rows continue one prompt
        k[1, :, :-1], v[1, :, :-1] = k[0, :, :-1], v[0, :, :-1]
    slots = rows // lanes
    cache = KVCache(
        (1, 1, head_dim),
        slots=slots,
        lanes=lanes,
        rows=rows,
        longest=(tokens, 8),
        dtype=dtype,
        device=torch.device("cpu"),
    )
    cache.admit(list(range(slots)), [tokens - 1] * slots)
    cache.seat([0, 1], [0, 1] if lanes == 1 else [0, 0], [0, 0] if lanes == 1 else [0, 1])
    cache.fill(0, *(torch.cat(list(x[:slots, :, :-1]), dim=1)[None] for x in (k, v)))
    cache.reserve({0: 1, 1: 1})
    out = cache.attend(0, q, k[:, :, -1:], v[:, :, -1:], bias=cache.bias(None), scale=scale, softcap=None)
    exact = (q.double() @ k.double().mT * scale).softmax(-1) @ v.double()
    error = (out.double() - exact).norm() / exact.norm()
    assert error < ((0.006 if level < 1000 else 0.015) if dtype == torch.bfloat16 else 0.001)


def test_room_for_the_next_token_is_made_without_waiting_for_the_device(monkeypatch):
    cache = KVCache(
        (1, 1, 8), slots=2, lanes=1, rows=2, longest=(PAGE, 8), dtype=torch.float32, device=torch.device("cpu")
    )
    cache.admit([0, 1], [5, PAGE])
    cache.seat([0, 1], [0, 1], [0, 0])
    for read in ("tolist", "item"):
        monkeypatch.setattr(torch.Tensor, read, lambda *_: pytest.fail("the host reads a tensor"))
    cache.reserve({0: 1, 1: 0})
    assert [len(pages) for pages in cache.answers.of] == [1, 1]
    cache.keep([1])  # its prompt fills a page, and row 1 is row 0 now
    cache.reserve({0: 1})
    assert [len(pages) for pages in cache.answers.of] == [2]


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("prompt", [1, 70])
def test_decode_is_no_further_from_fp32_than_prefill_with_biased_keys(keys, reference_qwen2, dtype, prompt):
    ids = torch.arange(3, 153) % 300
    exact, half = (prepared(reference_qwen2, each) for each in (torch.float32, dtype))
    with torch.inference_mode():
        prefill = half.hidden_states(ids[None], [len(ids)])[0].float()
        decoded = decode(half, ids, prompt).float()
        target = exact.hidden_states(ids[None])[0]
    cost, through_cache = ((x - target).abs().mean() for x in (prefill, decoded))
    assert cost > 1e-4, "half precision must cost something here"
    assert through_cache < 1.25 * cost


@pytest.mark.slow
@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("name", ["smollm2-135m", "qwen2.5-coder-0.5b-instruct"])
def test_decode_is_no_further_from_fp32_than_prefill_on_real_weights(name, dtype):
    if name not in EMBEDDED:
        folder = Path(os.environ.get("TRITUNE_MODELS", "."), name)
        if not folder.is_dir():
            pytest.skip(f"TRITUNE_MODELS names no folder with {name}")
        name = str(folder)
    text = Path(__file__).with_name("test_cache.py").read_text(encoding="utf-8")
    ids = torch.tensor(load_tokenizer(name).encode(text)[:300])
    half, exact = load_decoder(name, dtype=dtype), load_decoder(name)
    with torch.inference_mode():
        prefill = half(ids[None], [len(ids)])[0].float()
        decoded = half.logits(decode(half, ids, 1)).float()
        target = exact(ids[None])[0]
    cost, through_cache = (((x - target).abs().mean()).item() for x in (prefill, decoded))
    assert through_cache < 1.25 * cost
    losses = [F.cross_entropy(logits[:-1], ids[1:]).item() for logits in (target, prefill, decoded)]
    assert abs(losses[2] - losses[0]) < 0.005


@pytest.fixture(scope="module")
def reference_qwen2(tmp_path_factory):
    """The folder of a tiny Qwen2, whose keys and queries have biases."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=320, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=256, rope_theta=1e6,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("qwen2")
    Qwen2ForCausalLM(config).save_pretrained(folder)
    return folder


def prepared(folder, dtype: torch.dtype):
    """Keys and queries that share a direction in the slowly turning half of each head: all scores are near 300."""
    decoder = load_decoder(str(folder))
    for layer in decoder.model.layers:
        for part in (layer.self_attn.q_proj, layer.self_attn.k_proj):
            bias = torch.zeros(part.bias.shape).view(-1, 16)
            bias[:, 7] = bias[:, 15] = 24.5  # the slowest pair turns by 1e-5 a token
            part.bias.data += bias.flatten()
            part.weight.data *= 6
    # both networks compute from the same numbers: those of the half-precision one
    return decoder.to(torch.bfloat16).to(torch.float16).to(dtype)


def decode(decoder, ids: torch.Tensor, prompt: int) -> torch.Tensor:
    """Hidden states [T, D] of ids [T]: the prompt's by one pass that fills the cache, the others' one at a time."""
    cache = decoder.new_cache(slots=1, lanes=1, rows=1, longest=(len(ids), 8))
    cache.admit([0], [prompt])
    states = [decoder.hidden_states(ids[None, :prompt], [prompt], cache)[0]]
    cache.seat([0], [0], [0])
    for written, token in enumerate(ids[prompt:]):
        cache.reserve({0: written + 1})
        states.append(decoder.hidden_states(token[None, None], cache=cache)[0])
    return torch.cat(states)
