"""Rotary position embedding (Su et al., RoFormer, arXiv:2104.09864) in the half-split layout of Hugging Face.

    head of D numbers:  [ x_0 … x_{D/2-1} | x_{D/2} … x_{D-1} ]
    pair i is (x_i, x_{i + D/2}), rotated by the angle  position · theta^(-2i/D)

llama.cpp's files interleave the pairs instead, (x_0, x_1), (x_2, x_3) …; model/gguf/tensors.py undoes that.

A model trained on short texts reads longer ones if its slow pairs, which never completed a turn in training, are slowed
down further. The four methods differ in which pairs they slow down, and when:

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
from model import fast
from model.fast.rope import in_place_rotate

# The keys of config.json's rope_scaling (or rope_parameters) that each scaling reads, besides rope_type and rope_theta.
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
    trained_positions: int = 0  # context length before the extension
    slow_turns: float = 1.0  # yarn, llama3: pairs with fewer turns over trained_positions are slowed by the full factor
    fast_turns: float = 32.0  # pairs with more turns are unchanged
    attention_factor: float = 1.0  # yarn: multiplies cosines and sines, which sharpens the softmax
    truncate: bool = True  # yarn: the ramp begins and ends at whole pairs

    @classmethod
    def from_dict(cls, raw: dict, *, head_dim: int, theta: float, max_positions: int) -> Rope:
        """From rope_scaling or rope_parameters of config.json. UserError for an unknown scaling or key."""
        kind = raw.get("rope_type", raw.get("type")) or "default"
        if kind not in SCALINGS:
            raise UserError(f"config.json: RoPE scaling {kind!r} is not implemented; {', '.join(SCALINGS)} are")

        # an unknown key could change the angles; a factor of 1 changes nothing
        values = {key: value for key, value in raw.items() if value is not None and key != "rope_theta"}
        unknown = set(values) - SCALINGS[kind] - {"rope_type", "type"}
        unknown -= {"partial_rotary_factor"} if values.get("partial_rotary_factor") == 1.0 else set()
        unknown -= {"factor"} if values.get("factor") == 1.0 else set()
        if unknown:
            raise UserError(f"config.json: {', '.join(sorted(unknown))} of RoPE scaling {kind!r} is not implemented")

        # no scaling: the base theta is all
        theta = float(raw.get("rope_theta") or theta)
        if kind == "default":
            return cls(head_dim, theta)

        # yarn's factor may be given by the two context lengths instead
        trained = values.get("original_max_position_embeddings") or max_positions
        needed = {"factor", "low_freq_factor", "high_freq_factor"} & SCALINGS[kind]
        needed -= {"factor"} if kind == "yarn" else set()
        if missing := needed - set(values):
            raise UserError(f"config.json: RoPE scaling {kind!r} lacks {', '.join(sorted(missing))}")
        factor = float(values.get("factor") or max_positions / trained)

        # llama3 and yarn name the ends of their ramp differently
        return cls(
            head_dim,
            theta,
            scaling=kind,
            factor=factor,
            trained_positions=trained,
            slow_turns=values.get("low_freq_factor") or values.get("beta_slow") or 1.0,
            fast_turns=values.get("high_freq_factor") or values.get("beta_fast") or 32.0,
            attention_factor=_yarn_attention_factor(values, factor) if kind == "yarn" else 1.0,
            truncate=values.get("truncate", True),
        )


def rope_cos_sin(
    positions: torch.Tensor, rope: Rope, extents: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and sines of every angle, in fp32 whatever the model's dtype.

    positions  [...] int64
    extents    [...] int64, the length of the document that holds each position; only "dynamic" reads it
    Returns two tensors [..., head_dim]; both halves of the last axis are equal.
    """
    # an angle for each pair: [..., D/2]
    angles = positions[..., None].float() * _frequencies(rope, positions.device, extents)
    # both halves of a head share them, since pair i is (x_i, x_{i + D/2}): [..., D]
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos() * rope.attention_factor, angles.sin() * rope.attention_factor


@fast.has_twin(in_place_rotate)
def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotate each pair of x by its angle; computed in fp32, returned in x's dtype.

    x  [B, H, T, D];  cos, sin  broadcastable to it, such as [B, 1, T, D]
    """
    # the two halves hold the first and the second number of every pair: [B, H, T, D/2] each
    first, second = x.float().chunk(2, dim=-1)
    # (a, b) rotated by an angle is (a cos - b sin, b cos + a sin)
    quarter_turn = torch.cat((-second, first), dim=-1)
    return (x.float() * cos + quarter_turn * sin).to(x.dtype)


def _frequencies(rope: Rope, device, extents: torch.Tensor | None) -> torch.Tensor:
    """Angle per position of every pair: [D/2], or [..., D/2] if it depends on the document. fp32."""
    # theta^(-2i/D): pair 0 turns by a radian a token, the last pair by about 1 / theta
    exponents = torch.arange(0, rope.head_dim, 2, dtype=torch.float32, device=device) / rope.head_dim

    # dynamic: the base grows with the document, once it exceeds the trained length
    if rope.scaling == "dynamic":
        assert extents is not None, "dynamic RoPE depends on the documents' lengths"
        stretch = rope.factor * extents.clamp(min=rope.trained_positions) / rope.trained_positions - (rope.factor - 1)
        theta = rope.theta * stretch ** (rope.head_dim / (rope.head_dim - 2))  # [...]
        return 1.0 / theta[..., None] ** exponents

    # linear: every pair by the same factor
    frequencies = 1.0 / rope.theta**exponents
    if rope.scaling == "default":
        return frequencies
    if rope.scaling == "linear":
        return frequencies / rope.factor

    # yarn, llama3: between a fast pair, as trained (1), and a slow one, slowed by the factor (0)
    keep = _kept_share(rope, frequencies)
    return frequencies * keep + frequencies / rope.factor * (1 - keep)


def _kept_share(rope: Rope, frequencies: torch.Tensor) -> torch.Tensor:
    """How much of its trained frequency each pair keeps, from 0 (slow) to 1 (fast): [D/2]."""
    # llama3: a ramp over the turns that a pair completes in the trained length
    if rope.scaling == "llama3":
        turns = rope.trained_positions * frequencies / (2 * math.pi)
        return ((turns - rope.slow_turns) / (rope.fast_turns - rope.slow_turns)).clamp(0, 1)

    # yarn: a ramp over the pairs' indices, from the one with fast_turns to the one with slow_turns
    def pair_with(turns: float) -> float:
        log = math.log(rope.trained_positions / (turns * 2 * math.pi))
        return rope.head_dim * log / (2 * math.log(rope.theta))

    first, last = pair_with(rope.fast_turns), pair_with(rope.slow_turns)
    if rope.truncate:
        first, last = math.floor(first), math.ceil(last)
    # head_dim - 1, not the last pair's index, as in the authors' code
    first, last = max(first, 0), min(last, rope.head_dim - 1)
    pairs = torch.arange(rope.head_dim // 2, dtype=torch.float32, device=frequencies.device)
    return 1 - ((pairs - first) / max(last - first, 0.001)).clamp(0, 1)


def _yarn_attention_factor(values: dict, factor: float) -> float:
    """0.1 ln(factor) + 1 (arXiv:2309.00071, section 3.4) unless the file overrides it, as DeepSeek's do by mscale."""
    if "attention_factor" in values:
        return float(values["attention_factor"])

    def scale(weight: float) -> float:
        return 1.0 if factor <= 1 else 0.1 * weight * math.log(factor) + 1.0

    # DeepSeek's files: the ratio of two such factors
    if values.get("mscale") and values.get("mscale_all_dim"):
        return scale(values["mscale"]) / scale(values["mscale_all_dim"])
    return scale(1.0)
