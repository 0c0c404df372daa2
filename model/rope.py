"""Rotary position embedding (Su et al., RoFormer, arXiv:2104.09864) in the half-split layout of Hugging Face.

    head of D numbers:  [ x_0 … x_{D/2-1} | x_{D/2} … x_{D-1} ]
    pair i is (x_i, x_{i + D/2}), turned by the angle  position · theta^(-2i/D)

llama.cpp's files interleave the pairs instead, (x_0, x_1), (x_2, x_3) …; model/gguf/tensors.py undoes that.

A model that was trained on short texts reads longer ones when its slow pairs, which never finished a turn in training,
turn slower still. The four ways of doing so differ in which pairs they slow down, and when:

    linear   every pair by `factor`                                            arXiv:2306.15595
    dynamic  NTK: a larger base theta, growing with the document's length      as transformers' modeling_rope_utils.py
    yarn     slow pairs by `factor`, fast ones not, a ramp between them        arXiv:2309.00071
    llama3   the same with a ramp over wavelengths                             Llama 3.1, arXiv:2407.21783
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from common.console import UserError

# What each scaling reads from config.json's rope_scaling or rope_parameters, besides rope_type and rope_theta.
SCALINGS = {
    "default": set(),
    "linear": {"factor"},
    "dynamic": {"factor"},
    "yarn": {"factor", "original_max_position_embeddings", "beta_fast", "beta_slow", "attention_factor", "mscale",
             "mscale_all_dim", "truncate"},
    "llama3": {"factor", "original_max_position_embeddings", "low_freq_factor", "high_freq_factor"},
}  # fmt: skip


@dataclass(frozen=True)
class Rope:
    """How positions become angles."""

    head_dim: int
    theta: float
    scaling: str = "default"  # one of SCALINGS
    factor: float = 1.0
    trained_positions: int = 0  # what the model knew before it was stretched
    slow_turns: float = 1.0  # yarn, llama3: pairs with fewer turns over trained_positions are slowed by the full factor
    fast_turns: float = 32.0  # pairs with more turns are left alone
    attention_factor: float = 1.0  # yarn: multiplies cosines and sines, which sharpens the softmax
    truncate: bool = True  # yarn: the ramp begins and ends at whole pairs

    @classmethod
    def from_dict(cls, raw: dict, *, head_dim: int, theta: float, max_positions: int) -> Rope:
        """From rope_scaling or rope_parameters of config.json; UserError for a scaling or a key that is not known."""
        kind = raw.get("rope_type", raw.get("type")) or "default"
        if kind not in SCALINGS:
            raise UserError(f"config.json: RoPE scaling {kind!r} is not implemented; {', '.join(SCALINGS)} are")
        values = {key: value for key, value in raw.items() if value is not None and key != "rope_theta"}
        unknown = set(values) - SCALINGS[kind] - {"rope_type", "type"}
        unknown -= {"partial_rotary_factor"} if values.get("partial_rotary_factor") == 1.0 else set()
        unknown -= {"factor"} if values.get("factor") == 1.0 else set()
        if unknown:
            raise UserError(f"config.json: {', '.join(sorted(unknown))} of RoPE scaling {kind!r} is not implemented")
        theta = float(raw.get("rope_theta") or theta)
        if kind == "default":
            return cls(head_dim, theta)
        trained = values.get("original_max_position_embeddings") or max_positions
        needed = {"factor", "low_freq_factor", "high_freq_factor"} & SCALINGS[kind]
        needed -= {"factor"} if kind == "yarn" else set()
        if missing := needed - set(values):
            raise UserError(f"config.json: RoPE scaling {kind!r} lacks {', '.join(sorted(missing))}")
        factor = float(values.get("factor") or max_positions / trained)
        return cls(
            head_dim, theta, kind, factor, trained,
            slow_turns=values.get("low_freq_factor") or values.get("beta_slow") or 1.0,
            fast_turns=values.get("high_freq_factor") or values.get("beta_fast") or 32.0,
            attention_factor=_yarn_attention_factor(values, factor) if kind == "yarn" else 1.0,
            truncate=values.get("truncate", True),
        )  # fmt: skip


def rope_cos_sin(
    positions: torch.Tensor, rope: Rope, extents: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and sines of every angle, in fp32 whatever the model's dtype is.

    positions  [...] int64
    extents    [...] int64, the length of the document that each position lies in; only "dynamic" reads it
    Returns two tensors [..., head_dim]; both halves of the last axis are equal.
    """
    angles = positions[..., None].float() * _frequencies(rope, positions.device, extents)  # [..., D/2]
    angles = torch.cat((angles, angles), dim=-1)  # [..., D]
    return angles.cos() * rope.attention_factor, angles.sin() * rope.attention_factor


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Turn each pair of x by its angle; computed in fp32, returned in x's dtype.

    x  [B, H, T, D];  cos, sin  broadcastable to it, e.g. [B, 1, T, D]; no gradient reaches these
    """
    return _Rotate.apply(x, cos, sin)


class _Rotate(torch.autograd.Function):
    """The gradient is turned back: by the same angles, negative."""

    @staticmethod
    def forward(ctx, x, cos, sin):
        ctx.save_for_backward(cos, sin)
        return _turn(x, cos, sin)

    @staticmethod
    def backward(ctx, grad):
        cos, sin = ctx.saved_tensors
        return _turn(grad, cos, -sin), None, None


def _turn(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    wide, half = x.float(), x.shape[-1] // 2
    out = wide * cos
    out[..., :half].addcmul_(wide[..., half:], sin[..., :half], value=-1)
    out[..., half:].addcmul_(wide[..., :half], sin[..., half:])
    return out.to(x.dtype)


def _frequencies(rope: Rope, device, extents: torch.Tensor | None) -> torch.Tensor:
    """Angle per position of every pair: [D/2], or [..., D/2] where it depends on the document. fp32."""
    exponents = torch.arange(0, rope.head_dim, 2, dtype=torch.float32, device=device) / rope.head_dim
    if rope.scaling == "dynamic":
        assert extents is not None, "dynamic RoPE depends on the documents' lengths"
        stretch = rope.factor * extents.clamp(min=rope.trained_positions) / rope.trained_positions - (rope.factor - 1)
        theta = rope.theta * stretch ** (rope.head_dim / (rope.head_dim - 2))  # [...]
        return 1.0 / theta[..., None] ** exponents
    frequencies = 1.0 / rope.theta**exponents
    if rope.scaling == "default":
        return frequencies
    if rope.scaling == "linear":
        return frequencies / rope.factor
    keep = _kept_share(rope, frequencies)  # 1: a fast pair, as it was trained; 0: a slow one, slowed by the factor
    return frequencies * keep + frequencies / rope.factor * (1 - keep)


def _kept_share(rope: Rope, frequencies: torch.Tensor) -> torch.Tensor:
    """Where each pair stands between slow (0) and fast (1): [D/2]."""
    if rope.scaling == "llama3":  # a ramp over the turns that a pair makes in the trained length
        turns = rope.trained_positions * frequencies / (2 * math.pi)
        return ((turns - rope.slow_turns) / (rope.fast_turns - rope.slow_turns)).clamp(0, 1)

    def pair_with(turns: float) -> float:  # yarn: a ramp over the pairs' numbers
        log = math.log(rope.trained_positions / (turns * 2 * math.pi))
        return rope.head_dim * log / (2 * math.log(rope.theta))

    first, last = pair_with(rope.fast_turns), pair_with(rope.slow_turns)
    if rope.truncate:
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, rope.head_dim - 1)
    pairs = torch.arange(rope.head_dim // 2, dtype=torch.float32, device=frequencies.device)
    return 1 - ((pairs - first) / max(last - first, 0.001)).clamp(0, 1)


def _yarn_attention_factor(values: dict, factor: float) -> float:
    """0.1 ln(factor) + 1 (arXiv:2309.00071, section 3.4) unless the file says otherwise, as DeepSeek's do by mscale."""
    if "attention_factor" in values:
        return float(values["attention_factor"])

    def scale(weight: float) -> float:
        return 1.0 if factor <= 1 else 0.1 * weight * math.log(factor) + 1.0

    if values.get("mscale") and values.get("mscale_all_dim"):
        return scale(values["mscale"]) / scale(values["mscale_all_dim"])
    return scale(1.0)
