"""The loss of embedding training: InfoNCE, optionally at several widths (Matryoshka) and with a teacher's scores."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F

from common.console import UserError
from data.contrastive import PairBatch
from model.loss import distillation, info_nce
from training import parallel

LARGEST_SCALE = 100.0  # of the similarities: CLIP (arXiv:2103.00020, section 2.5) found larger ones unstable


class ContrastiveLoss(nn.Module):
    """The loss of a step as a function of the vectors of its texts."""

    def __init__(
        self,
        width: int,
        *,
        temperature: float,
        learn_temperature: bool = False,
        symmetric: bool = True,
        dimensions: str | None = None,
        distill: float = 0.0,
        teacher_temperature: float = 1.0,
    ) -> None:
        """
        width                of a vector
        temperature          of the softmax over similarities; its initial value with learn_temperature, which trains
                             log(1 / temperature) and caps it at log(LARGEST_SCALE), as CLIP does
        symmetric            also classify the query of each code
        dimensions           "256,128": these prefixes of a vector are trained as embeddings, too (Matryoshka,
                             arXiv:2205.13147); the losses are summed
        distill              weight of the KL divergence from a teacher's scores, which are divided by
                             teacher_temperature; 0: scores are ignored

        Raises UserError for invalid dimensions.
        """
        super().__init__()
        self.symmetric, self.distill, self.teacher_temperature = symmetric, distill, teacher_temperature
        self.dimensions = _dimensions(dimensions, width)

        # log(1 / temperature); every rank has its gradient over the whole batch, and gradients are summed over ranks
        self.log_scale = nn.Parameter(torch.tensor(-math.log(temperature)), requires_grad=learn_temperature)
        if learn_temperature:
            self.log_scale.register_hook(lambda gradient: gradient / parallel.world())

    @property
    def temperature(self) -> torch.Tensor:
        """The divisor of the similarities."""
        return torch.exp(-self.log_scale)

    def forward(self, queries: torch.Tensor, documents: torch.Tensor, batch: PairBatch) -> torch.Tensor:
        """queries [B, D] and documents [M, D]: unit vectors of the batch's texts, in its order -> scalar in fp32."""
        # the optimiser may have stepped past the cap
        if self.log_scale.requires_grad:
            with torch.no_grad():
                self.log_scale.clamp_(0.0, math.log(LARGEST_SCALE))

        # what the batch knows of each query (row) and code (column)
        same = batch.same.to(queries.device)  # [B, M] never a negative
        teacher = batch.teacher.to(queries.device) / self.teacher_temperature  # [B, M]

        # summed over the widths: a prefix of a unit vector must be normalised again
        loss = queries.new_zeros((), dtype=torch.float32)
        for width in self.dimensions:
            q, c = (F.normalize(vectors[:, :width], dim=-1) for vectors in (queries, documents))
            loss = loss + info_nce(q, c, temperature=self.temperature, same=same, symmetric=self.symmetric)
            if self.distill:
                loss = loss + self.distill * distillation(q, c, teacher, temperature=self.temperature)
        return loss


def _dimensions(given: str | None, width: int) -> list[int]:
    """The widths to train, the full width first."""
    # "256,128" or "256 128"
    try:
        numbers = [int(part) for part in (given or "").replace(",", " ").split()]
    except ValueError:
        raise UserError(f"--dimensions {given}: give whole numbers, as in 256,128,64") from None
    if any(not 0 < number <= width for number in numbers):
        raise UserError(f"--dimensions {given}: each must be between 1 and {width}, the width of this model's vectors")
    return sorted({width, *numbers}, reverse=True)
