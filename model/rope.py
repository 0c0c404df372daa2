"""Rotary position embedding (Su et al., RoFormer, arXiv:2104.09864) in the half-split layout of Hugging Face.

    head of D numbers:  [ x_0 … x_{D/2-1} | x_{D/2} … x_{D-1} ]
    pair i is (x_i, x_{i + D/2}), turned by the angle  position / theta^(2i/D)

llama.cpp's files interleave the pairs instead, (x_0, x_1), (x_2, x_3) …; model/gguf_file.py undoes that.
"""

from __future__ import annotations

import torch


def rope_cos_sin(positions: torch.Tensor, head_dim: int, theta: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and sines of every angle, in fp32 whatever the model's dtype is.

    positions  [...] int64
    Returns two tensors [..., head_dim]; both halves of the last axis are equal.
    """
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float32, device=positions.device) / head_dim
    angles = positions[..., None].float() * (1.0 / theta**exponents)  # [..., D/2]
    angles = torch.cat((angles, angles), dim=-1)  # [..., D]
    return angles.cos(), angles.sin()


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Turn each pair of x by its angle; computed in fp32, returned in x's dtype.

    x  [B, H, T, D];  cos, sin  broadcastable to it, e.g. [B, 1, T, D]
    """
    x1, x2 = x.float().chunk(2, dim=-1)
    return (x.float() * cos + torch.cat((-x2, x1), dim=-1) * sin).to(x.dtype)
