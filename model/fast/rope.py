"""Rotation in place: no rotated halves are concatenated, and the backward pass keeps nothing but the angles' tables."""

from __future__ import annotations

import torch

from model import fast


@fast.written_for("2331af35")
def in_place_rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """model/rope.py: rotate. x [B, H, T, D]; no gradient reaches cos and sin."""
    return _Rotate.apply(x, cos, sin)


class _Rotate(torch.autograd.Function):
    """The gradient is rotated by the negative angles."""

    @staticmethod
    def forward(ctx, x, cos, sin):
        ctx.save_for_backward(cos, sin)
        return _rotated(x, cos, sin)

    @staticmethod
    def backward(ctx, grad):
        cos, sin = ctx.saved_tensors
        return _rotated(grad, cos, -sin), None, None


def _rotated(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    # (a, b) -> (a cos - b sin, b cos + a sin), a and b the two halves of the last axis
    wide, half = x.float(), x.shape[-1] // 2
    out = wide * cos
    out[..., :half].addcmul_(wide[..., half:], sin[..., :half], value=-1)
    out[..., half:].addcmul_(wide[..., :half], sin[..., half:])
    return out.to(x.dtype)
