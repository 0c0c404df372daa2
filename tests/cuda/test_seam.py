"""Training as a GPU does it, with real values on a CPU: `on_gpu` says yes, and the memory-efficient kernel is a loop.

The loop stands in PyTorch's own dispatcher, under its operator's schema: the derivative, and what that keeps for the
backward pass, are PyTorch's. What is seen here is that the paths fit together and give the CPU's gradients; a GPU's
kernels, streams and pinned memory are not.
"""

from __future__ import annotations

import itertools
from contextlib import nullcontext

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.testing import assert_close
from torch.utils.checkpoint import checkpoint

from lora.adapter import trainable
from lora.inject import DECODER_TARGETS, inject
from model import decoder as decoder_module
from model.config import ModelConfig
from model.decoder import CHECKPOINTING, Decoder
from model.encoder import Embedding, new_encoder
from model.fast import attention
from model.loss import causal_lm_loss
from training.grad_cache import embed_in_chunks

LENGTHS = [40, 1, 23]
CPU = torch.device("cpu")
SIZES = {
    "vocab_size": 60, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 128, "rms_norm_eps": 1e-5, "rope_theta": 1e4,
    "hidden_act": "silu", "tie_word_embeddings": True,
}  # fmt: skip


def scores(q, k, causal, scale, window=None):
    """Of one document: q, k [1, n, H, D] -> weights of its tokens [1, H, n, n] in fp32."""
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    found = torch.einsum("bnhd,bmhd->bhnm", q.float(), k.float()) * scale
    hidden = torch.ones(found.shape[-2:], dtype=torch.bool).triu(1) if causal else torch.zeros(1, 1, dtype=torch.bool)
    if window is not None:
        assert causal
        hidden = hidden | torch.ones(found.shape[-2:], dtype=torch.bool).tril(-window)
    return found.masked_fill(hidden, float("-inf")).softmax(-1)


def documents(borders):
    return [slice(*ends) for ends in itertools.pairwise(borders.tolist())]


def forward(
    q, k, v, bias, borders_q, borders_k, longest_q, longest_k, dropout, mask, keep_sums=False,
    *, scale=None, window_size=None, **_,
):  # fmt: skip
    """aten::_efficient_attention_forward: q, k, v [1, T, H, D], of one dtype as the kernel insists."""
    assert q.dtype == k.dtype == v.dtype and q.shape == k.shape and dropout == 0 and borders_q is borders_k
    out = torch.empty_like(v)
    for at in documents(borders_q):
        weights = scores(q[:, at], k[:, at], mask == 1, scale, window_size)
        out[:, at] = torch.einsum("bhnm,bmhd->bnhd", weights, v[:, at].float()).to(v.dtype)
    nothing = torch.zeros((), dtype=torch.int64)
    return out, q.new_empty(0, dtype=torch.float32), nothing, nothing, longest_q, longest_k


def backward(
    grad, q, k, v, bias, out, borders_q, borders_k, longest_q, longest_k, sums, dropout, seed, offset, mask, _bias,
    *, scale=None, window_size=None, **_,
):  # fmt: skip
    grads = [torch.empty_like(x) for x in (q, k, v)]
    for at in documents(borders_q):
        weights, g = scores(q[:, at], k[:, at], mask == 1, scale, window_size), grad[:, at].float()
        of_weights = torch.einsum("bnhd,bmhd->bhnm", g, v[:, at].float())
        of_scores = weights * (of_weights - (of_weights * weights).sum(-1, keepdim=True))
        of_scores *= q.shape[-1] ** -0.5 if scale is None else scale
        grads[0][:, at] = torch.einsum("bhnm,bmhd->bnhd", of_scores, k[:, at].float()).to(q.dtype)
        grads[1][:, at] = torch.einsum("bhnm,bnhd->bmhd", of_scores, q[:, at].float()).to(k.dtype)
        grads[2][:, at] = torch.einsum("bhnm,bnhd->bmhd", weights, g).to(v.dtype)
    return *grads, q.new_empty(0)


def forget():
    attention._knows_borders.cache_clear()
    attention._borders.cache_clear()


@pytest.fixture
def kernel():
    """A CPU that has the kernel; a list of the tokens of each call."""
    calls = []

    def counted(q, *rest, **named):
        calls.append(q.shape[1])
        return forward(q, *rest, **named)

    with torch.library._scoped_library("aten", "IMPL") as library:
        library.impl("_efficient_attention_forward", counted, "CPU")
        library.impl("_efficient_attention_backward", backward, "CPU")
        forget()
        yield calls
    forget()


@pytest.fixture
def as_on_a_gpu(monkeypatch, kernel):
    """Call it, and this CPU is taken for a GPU; returns the kernel's calls."""

    def begin():
        for module in (attention, decoder_module):
            monkeypatch.setattr(module, "on_gpu", lambda where: True)
        return kernel

    return begin


def lora_decoder(family="llama"):
    decoder = new_decoder(family)
    inject(decoder, r=4, alpha=8, targets=DECODER_TARGETS)
    for name, parameter in trainable(decoder):
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    return decoder


def new_decoder(family):
    decoder = Decoder(ModelConfig.from_dict(SIZES | {"model_type": family}))
    for parameter in decoder.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    return decoder.train()


def gradients(decoder, autocast=False):
    ids = torch.randint(0, 60, (1, sum(LENGTHS)), generator=torch.Generator().manual_seed(3))
    with torch.autocast("cpu", dtype=torch.bfloat16) if autocast else nullcontext():
        hidden_states = decoder.hidden_states(ids, LENGTHS)
        loss = causal_lm_loss(hidden_states, decoder.head_weight, ids) / ids.shape[1]
    loss.backward()
    found = {name: parameter.grad for name, parameter in trainable(decoder)}
    decoder.zero_grad(set_to_none=True)
    return found


def assert_equal(found, expected, error):
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        assert gradient.norm() > 0, name
        assert_close(found[name], gradient, atol=error * gradient.abs().max().item(), rtol=0, msg=name)


@pytest.mark.parametrize("sampled_first", [False, True], ids=["cold", "inference first"])
@pytest.mark.parametrize("checkpointing", CHECKPOINTING)
def test_every_checkpointing_gives_the_gradients_of_the_cpu(as_on_a_gpu, checkpointing, sampled_first):
    decoder = lora_decoder()
    expected = gradients(decoder)
    calls = as_on_a_gpu()
    decoder.checkpointing = checkpointing
    if sampled_first:
        with torch.inference_mode():
            decoder.hidden_states(torch.zeros(1, sum(LENGTHS), dtype=torch.int64), LENGTHS)
    assert_equal(gradients(decoder), expected, 1e-5)
    recomputed = checkpointing in ("full", "offload")
    assert calls.count(sum(LENGTHS)) == 3 * (1 + recomputed + sampled_first)  # layers, and never a document alone
    assert_equal(gradients(decoder), expected, 1e-5)


@pytest.mark.parametrize("checkpointing", CHECKPOINTING)
def test_all_weights_learn_under_autocast_also_behind_norms_of_queries_and_keys(as_on_a_gpu, checkpointing):
    """All of Qwen3's: its norms have fp32 weights, so that queries and keys leave them wider than the values."""
    decoder = new_decoder("qwen3")
    expected = gradients(decoder, autocast=True)
    calls = as_on_a_gpu()
    decoder.checkpointing = checkpointing
    found = gradients(decoder, autocast=True)
    whole, of_cpu = (torch.cat([x[name].flatten() for name in expected]) for x in (found, expected))
    assert (whole - of_cpu).norm() < 0.02 * of_cpu.norm()
    assert sum(LENGTHS) in calls


def test_offloaded_activations_leave_and_come_back(as_on_a_gpu, monkeypatch):
    decoder, moved = lora_decoder(), []
    expected = gradients(decoder)
    as_on_a_gpu()

    class Watched(decoder_module.save_on_cpu):
        def __init__(self, pin_memory):
            super().__init__(pin_memory=pin_memory)
            pack, unpack = self.pack_hook, self.unpack_hook

            def watched_pack(tensor):
                device, packed = pack(tensor)
                if tensor.numel():  # PyTorch 2.6 keeps an empty one, too
                    moved.append((tuple(tensor.shape), tensor.data_ptr() != packed.data_ptr()))
                return device, packed

            self.pack_hook, self.unpack_hook = watched_pack, unpack

    monkeypatch.setattr(decoder_module, "save_on_cpu", Watched)
    decoder.checkpointing = "offload"
    assert_equal(gradients(decoder), expected, 1e-5)
    assert moved == 3 * [((1, sum(LENGTHS), 32), True)]  # what each layer begins with, and nothing else


@pytest.mark.parametrize("lengths", [LENGTHS, [64]], ids=["documents", "one document"])
def test_a_window_is_told_to_the_kernel(as_on_a_gpu, monkeypatch, lengths):
    monkeypatch.setattr("tests.cuda.test_seam.LENGTHS", lengths)
    monkeypatch.setitem(SIZES, "sliding_window", 7)
    decoder = lora_decoder("mistral")
    expected = gradients(decoder)
    calls = as_on_a_gpu()
    assert_equal(gradients(decoder), expected, 1e-5)
    assert calls[-3:] == [64] * 3  # a layer, a call


def test_the_kernel_is_tried_apart_from_whatever_its_caller_does(kernel):
    def refuse(tensor):
        raise AssertionError("the trial's tensors reached the caller's hooks")

    def ask(x):
        assert attention._knows_borders(CPU, torch.float32, 8, True, False)
        return x.exp()

    x = torch.ones(2, requires_grad=True)
    for around in (torch.no_grad(), torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16)):
        forget()
        with around:
            ask(x)
    forget()
    with saved_tensors_hooks(refuse, refuse):
        attention._knows_borders(CPU, torch.float32, 8, True, False)
    forget()
    checkpoint(ask, x, use_reentrant=False).sum().backward()
    assert_close(x.grad, x.exp())


def test_a_trial_that_runs_out_of_memory_does_not_decide_for_the_run(kernel, monkeypatch):
    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 MiB.")

    with monkeypatch.context() as patch:
        patch.setattr(attention, "_in_one_call", full)
        with pytest.raises(torch.OutOfMemoryError):
            attention._knows_borders(CPU, torch.float32, 8, True, False)
    assert attention._knows_borders(CPU, torch.float32, 8, True, False)


def test_cached_batches_have_the_gradients_of_one_batch(as_on_a_gpu):
    shared = {name: SIZES[name] for name in ("vocab_size", "hidden_size", "intermediate_size", "num_attention_heads")}
    rest = {"num_hidden_layers": 2, "max_position_embeddings": 64, "type_vocab_size": 2, "hidden_act": "gelu"}
    rest |= {"attention_probs_dropout_prob": 0.0, "hidden_dropout_prob": 0.0, "layer_norm_eps": 1e-5}
    encoder = new_encoder(shared | rest | {"model_type": "bert"}).train()
    encoder.embedding = Embedding("mean", "", "", 64)
    rows = [[7 * i % 60 for i in range(1, n)] for n in (30, 2, 12, 25)]
    weight = torch.randn(len(rows), 32)
    results = []
    for embed in (encoder.embed, lambda rows: embed_in_chunks(encoder, rows, chunk_tokens=45)):
        calls = as_on_a_gpu() if results else []
        (embed(rows) * weight).sum().backward()
        named = encoder.named_parameters()  # a softmax does not notice a bias of all keys
        results.append({name: p.grad for name, p in named if p.grad is not None and "key.bias" not in name})
        encoder.zero_grad(set_to_none=True)
    assert_equal(*results[::-1], 1e-4)
    assert calls == [34, 64, 64, 32, 32, 32, 32, 64, 64]  # the trial; two layers of two chunks, and again backwards
