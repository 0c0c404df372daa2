"""8-bit integers with a scale for each row: a frozen matrix in a quarter of fp32, and all but the same network.

    W [out, in]   codes · scales                scales = the largest magnitude of each row / 127     8 bits a number
    x [N, in]     (high + low / 254) · steps    steps = the largest magnitude of each row / 127

On a CPU with AVX-512 VNNI the matrix is multiplied as it is stored. Its instructions take integers on both sides, and
eight bits for each number of x would lose far more than they do for W: the largest activations are hundreds of times
the others. So x becomes two integers, the nearest one and what that leaves, 16 bits in all. Both planes go through W in
one product, and all that is lost is the rounding of W. Elsewhere the matrix is dequantised for each product.

Eight bits by row are LLM.int8's (arXiv:2208.07339, section 2.1), which has eight for x as well and keeps its large
columns apart.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from lora.quantised import QuantisedWeight, divisor

LEVELS = 127  # of int8, on either side of zero
BELOW = 2 * LEVELS  # steps of `low` in one of `high`, which is off by at most half a step
ROWS = 256  # rows processed at a time: what lies between two passes stays within a processor's cache
FEW = 256  # rows for which to reorder W takes as long as to multiply by it: it is kept reordered, in as much memory


class Int8Weight(QuantisedWeight):
    """A matrix in int8, one scale a row."""

    label = "int8"
    codes: torch.Tensor  # [out, in] int8
    scales: torch.Tensor  # [out] fp32

    def __init__(self, weight: torch.Tensor) -> None:
        """Quantise `weight` [out, in], which is not kept."""
        super().__init__(weight)
        weight = weight.detach()
        scales = divisor(weight.abs().amax(dim=1).float()) / LEVELS
        codes = torch.empty(weight.shape, dtype=torch.int8, device=weight.device)
        for code, rows, scale in zip(codes.split(ROWS), weight.split(ROWS), scales.split(ROWS), strict=True):
            code.copy_((rows / scale[:, None]).round_())
        self.register_buffer("codes", codes)
        self.register_buffer("scales", scales)
        self._reordered: torch.Tensor | None = None

    @torch.no_grad()
    def dense(self) -> torch.Tensor:
        """The matrix [out, in], computed in fp32 and rounded once to `dtype`: a new tensor in every call."""
        out = torch.empty(self.shape, dtype=self.dtype, device=self.device)
        return torch.mul(self.codes, self.scales[:, None], out=out)

    def product(self, x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """x Wᵀ + bias: [..., in] -> [..., out]."""
        if not multiplies_integers(self.codes):
            return super().product(x, bias)
        few = x.shape[:-1].numel() <= FEW
        out = _through_planes(x, self._multiply_few if few else self._multiply, self.shape[0])
        return (out if bias is None else out.add_(bias)).to(x.dtype)

    def product_back(self, grad: torch.Tensor, onto: torch.Tensor | None = None) -> torch.Tensor:
        """grad W, the gradient of x, added to `onto` [N, in] in place if given: [..., out] -> [..., in]."""
        if not multiplies_integers(self.codes):
            return super().product_back(grad, onto)
        back = _through_planes(grad * self.scales, self._multiply_back, self.shape[1])
        return back.to(grad.dtype) if onto is None else onto.add_(back)

    def _multiply(self, planes: torch.Tensor) -> torch.Tensor:
        """planes [M, in] int8 -> [M, out] fp32."""
        return torch.ops.aten._int_mm(planes, self.codes.T).float().mul_(self.scales)

    def _multiply_back(self, planes: torch.Tensor) -> torch.Tensor:
        """planes [M, out] int8 -> [M, in] fp32."""
        return torch.ops.aten._int_mm(planes, self.codes).float()

    def _multiply_few(self, planes: torch.Tensor) -> torch.Tensor:
        """_multiply by the operator that torch.compile has for quantised linear layers; W stays reordered."""
        onednn, zeros = torch.ops.onednn, torch.zeros(self.shape[0], dtype=torch.long)
        if self._reordered is None:
            self._reordered = onednn.qlinear_prepack(self.codes, None)
        unsigned = planes.view(torch.uint8).bitwise_xor(128)  # 128 more, which the operator takes off again
        scaling = 1.0, 128, self._reordered, self.scales, zeros, None, 1.0, 0
        return onednn.qlinear_pointwise(unsigned, *scaling, torch.float32, "none", [], "")

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> QuantisedWeight:
        self._reordered = None
        return super()._apply(fn, recurse)

    def _load_from_state_dict(self, *args) -> None:
        self._reordered = None
        super()._load_from_state_dict(*args)

    def __getstate__(self) -> dict:
        """For copy.deepcopy, which cannot copy what oneDNN has reordered."""
        return self.__dict__ | {"_reordered": None}


def multiplies_integers(codes: torch.Tensor) -> bool:
    """Whether these are on a processor with instructions for products of int8."""
    return codes.device.type == "cpu" and torch.cpu._is_vnni_supported()


@torch.no_grad()
def _through_planes(x: torch.Tensor, multiply: Callable[[torch.Tensor], torch.Tensor], width: int) -> torch.Tensor:
    """multiply(x) for x [..., K] of real numbers, where it takes int8 [M, K] alone: [..., width] in fp32."""
    out = torch.empty(*x.shape[:-1], width)
    flat = x.reshape(-1, x.shape[-1]).float()
    for rows, result in zip(flat.split(ROWS), out.view(-1, width).split(ROWS), strict=True):
        # two planes of integers, one above the other
        steps = divisor(rows.abs().amax(dim=1, keepdim=True)) / LEVELS
        scaled = rows / steps
        high = scaled.round()
        planes = torch.empty(2, *rows.shape, dtype=torch.int8)
        planes[0], planes[1] = high, scaled.sub_(high).mul_(BELOW).round_()

        # their products, put together again
        high, low = multiply(planes.flatten(0, 1)).chunk(2)
        torch.mul(high.add_(low, alpha=1 / BELOW), steps, out=result)
    return out
