"""Attention by PyTorch's fused kernels: no [T, T] scores in memory (arXiv:2205.14135), and on a GPU one call for all
documents of a row. Elsewhere a window goes block by block, and a soft-cap everywhere; bf16 on a CPU is in
model/fast/cpu_attention.py.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from itertools import accumulate

import torch
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from model import fast
from model.cached import cached_tensors
from model.device import on_gpu
from model.fast.cpu_attention import blocks, product_attention

SHORT = 96  # tokens of a document for which a CPU computes bf16 in fp32
BLOCK = 256  # queries that share a mask where a window or a soft-cap rules out the plain kernel


@fast.written_for("4bb46e1c", "51dd1d1b", "a7690d02")
def fused_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    lengths: list[int] | None,
    *,
    causal: bool,
    dropout: float = 0.0,
    window: int | None = None,
    scale: float | None = None,
    softcap: float | None = None,
) -> torch.Tensor:
    """model/attention.py: document_attention. q [B, H, T, D], k and v [B, H_kv, T, D] -> [B, H, T, D] in v's dtype.

    Under autocast, norms with fp32 weights return q and k in fp32; the kernels want one dtype.
    """
    q, k = q.to(v.dtype), k.to(v.dtype)

    # every row is one document
    attend = partial(_attend, causal=causal, dropout=dropout, window=window, scale=scale, softcap=softcap)
    if lengths is None and len(q) > 1:
        return attend(q, k, v)

    # documents of one row: one call for all if a kernel knows their borders and the window, else one call each
    tokens = q.shape[2]
    lengths = [tokens] if lengths is None else lengths
    assert len(q) == 1 and sum(lengths) == tokens, "lengths describe one row of documents"
    window = None if _sees_all(max(lengths), window, causal) else window
    one_call = on_gpu(q) and softcap is None and (causal if window else len(lengths) > 1)
    if one_call and _knows_borders(q.device, q.dtype, q.shape[-1], causal, window is not None):
        rules = {"causal": causal, "dropout": dropout, "window": window, "scale": scale}
        return _in_one_call(q, *_expanded(q, k, v), lengths, **rules)
    if len(lengths) == 1:
        return attend(q, k, v)
    documents = zip(q.split(lengths, 2), k.split(lengths, 2), v.split(lengths, 2), strict=True)
    return torch.cat([attend(*qkv) for qkv in documents], dim=2)


def _attend(q, k, v, *, causal, dropout, window, scale, softcap) -> torch.Tensor:
    """Each row is one document."""
    # bf16 on a CPU: matrix products, which are faster for all but short documents
    tokens = q.shape[2]
    on_cpu_in_bf16 = q.dtype == torch.bfloat16 and q.device.type == "cpu"
    if on_cpu_in_bf16 and tokens > SHORT and not dropout and softcap is None:
        return product_attention(q, k, v, causal=causal, window=window, scale=scale)
    k, v = _expanded(q, k, v)

    # no mask: one call of the kernel
    if softcap is None and _sees_all(tokens, window, causal):
        rules = {"is_causal": causal, "dropout_p": dropout, "scale": scale}
        if on_cpu_in_bf16 and tokens <= SHORT:
            with torch.autocast("cpu", enabled=False):  # two to three times as fast in fp32 on a CPU
                return F.scaled_dot_product_attention(q.float(), k.float(), v.float(), **rules).to(q.dtype)
        return F.scaled_dot_product_attention(q, k, v, **rules)

    # a window or a soft-cap: a block of queries with the keys that some of them see
    out = []
    for rows, keys, hidden in blocks(tokens, BLOCK, causal=causal, window=window, device=q.device):
        mask = None if hidden is None else F.pad(~hidden, (keys.stop - keys.start - hidden.shape[1], 0), value=True)
        block = q[:, :, rows], k[:, :, keys], v[:, :, keys], mask  # mask [n, m]
        if softcap is None:
            out.append(F.scaled_dot_product_attention(*block, dropout_p=dropout, scale=scale))
        elif torch.is_grad_enabled():  # recomputed in the backward pass: the scores of all blocks are T×T
            out.append(checkpoint(_softcapped, *block, scale, softcap, dropout, use_reentrant=False))
        else:
            out.append(_softcapped(*block, scale, softcap, dropout))
    return torch.cat(out, dim=2)


def _sees_all(tokens: int, window: int | None, causal: bool) -> bool:
    """Whether a window hides nothing in a document of this length."""
    return window is None or tokens <= (window if causal else window + 1)


def _expanded(q, k, v) -> tuple[torch.Tensor, torch.Tensor]:
    """A key head for each query head: the kernels of a T4 and of a CPU have no grouped heads and would fall back."""
    groups = q.shape[1] // k.shape[1]
    return (k, v) if groups == 1 else (k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1))


def _softcapped(q, k, v, mask, scale, softcap, dropout) -> torch.Tensor:
    """No fused kernel has the soft-cap. q [B, H, n, D], k, v [B, H, m, D], mask [n, m] or None -> [B, H, n, D]."""
    # [B, H, n, m], in fp32 from the cap to the softmax
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    scores = torch.tanh((q @ k.transpose(-1, -2)).float() * scale / softcap) * softcap
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    weights = scores.softmax(-1).to(v.dtype)
    return F.dropout(weights, dropout, training=dropout > 0) @ v


# ------------------------------------------------------------------------------- all documents of a row in one call


def _in_one_call(
    q, k, v, lengths, *, causal: bool, dropout: float, window: int | None, scale: float | None
) -> torch.Tensor:
    """The memory-efficient kernel (arXiv:2112.05682), told the borders; q, k, v [1, H, T, D], with H heads each.

    window  tokens that a query sees, itself included; only with causal
    """
    borders, longest = _borders(tuple(lengths), q.device), max(lengths)
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))  # [1, T, H, D]
    if window is not None:
        return _Windowed.apply(q, k, v, borders, longest, dropout, window, scale).transpose(1, 2)
    out, *_ = torch.ops.aten._efficient_attention_forward(
        q, k, v, None, borders, borders, longest, longest, dropout, custom_mask_type=int(causal),
        compute_log_sumexp=True, scale=scale,
    )  # fmt: skip
    return out.transpose(1, 2)


class _Windowed(torch.autograd.Function):
    """The same kernel with a window, which PyTorch's own derivative does not pass on to the backward kernel."""

    @staticmethod
    def forward(ctx, q, k, v, borders, longest, dropout, window, scale):
        """q, k, v [1, T, H, D] -> [1, T, H, D]."""
        out, sums, seed, offset, *_ = torch.ops.aten._efficient_attention_forward(
            q, k, v, None, borders, borders, longest, longest, dropout, custom_mask_type=1, compute_log_sumexp=True,
            scale=scale, window_size=window,
        )  # fmt: skip
        ctx.save_for_backward(q, k, v, out, sums, seed, offset, borders)
        ctx.rules = longest, dropout, window, scale
        return out

    @staticmethod
    def backward(ctx, grad):
        """The kernel's own."""
        q, k, v, out, sums, seed, offset, borders = ctx.saved_tensors
        longest, dropout, window, scale = ctx.rules
        of_q, of_k, of_v, _ = torch.ops.aten._efficient_attention_backward(
            grad, q, k, v, None, out, borders, borders, longest, longest, sums, dropout, seed, offset, 1, False,
            scale=scale, window_size=window,
        )  # fmt: skip
        return of_q, of_k, of_v, None, None, None, None, None


@cached_tensors(maxsize=8)
def _borders(lengths: tuple[int, ...], device: torch.device) -> torch.Tensor:
    """Where documents begin and the last one ends, once for all layers: copying them makes the host wait."""
    return torch.tensor([0, *accumulate(lengths)], dtype=torch.int32, device=device)


@cache
def _knows_borders(device: torch.device, dtype: torch.dtype, head_dim: int, causal: bool, windowed: bool) -> bool:
    """Whether the kernel computes on this GPU what one call per document does, forward and backward.

    It is tried once, in a thread of its own, where none of the caller's modes holds: the first caller may be sampling,
    under autocast, or inside a checkpointed layer, whose recomputation would miss the tensors saved by the trial. A
    CUDA graph is recorded after a warm-up, by which time the answer is known.
    """
    with ThreadPoolExecutor(max_workers=1) as own_thread:
        return own_thread.submit(_try_borders, device, dtype, head_dim, causal, windowed).result()


def _try_borders(device: torch.device, dtype: torch.dtype, head_dim: int, causal: bool, windowed: bool) -> bool:
    # three documents of 34 tokens and two heads: [1, H, T, D] each
    lengths, generator = [9, 24, 1], torch.Generator(device).manual_seed(0)
    q, k, v, weight = (
        torch.randn(1, 2, 34, head_dim, generator=generator, device=device, dtype=dtype).requires_grad_()
        for _ in range(4)
    )
    # one call for each document
    rules = {"causal": causal, "dropout": 0.0, "window": 7 if windowed else None, "scale": None}
    documents = zip(q.split(lengths, 2), k.split(lengths, 2), v.split(lengths, 2), strict=True)
    apart = torch.cat([_attend(*qkv, **rules, softcap=None) for qkv in documents], dim=2)

    # and one for all: outputs and gradients must be the same
    try:
        together = _in_one_call(q, k, v, lengths, **rules)
        pairs = [
            (together, apart),
            *zip(*(torch.autograd.grad(x, (q, k, v), weight) for x in (together, apart)), strict=True),
        ]
    except torch.OutOfMemoryError:  # says nothing about the kernel, and must not be cached as the answer
        raise
    except (RuntimeError, NotImplementedError, TypeError):  # no such kernel for this GPU, dtype or head size
        return False
    return all(torch.allclose(a.float(), b.float(), atol=0.02, rtol=0.02) for a, b in pairs)
