"""What is minimised: the parts of the objective, and what they do not touch."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from common.console import UserError
from data.contrastive import PairBatch
from model.loss import distillation, info_nce
from training.contrastive_loss import ContrastiveLoss


def unit(*shape):
    return F.normalize(torch.randn(*shape), dim=-1)


def batch(count, documents, teacher=None):
    teacher = torch.full((count, documents), -math.inf) if teacher is None else teacher
    return PairBatch([[1]] * count, [[1]] * documents, torch.eye(count, documents, dtype=torch.bool), teacher)


def test_the_losses_of_the_widths_are_summed_the_whole_vector_among_them():
    q, c = unit(4, 8), unit(6, 8)
    objective = ContrastiveLoss(8, temperature=0.1, symmetric=False, dimensions="2 4")
    assert objective.dimensions == [8, 4, 2]
    expected = sum(
        info_nce(F.normalize(q[:, :n], dim=-1), F.normalize(c[:, :n], dim=-1), temperature=0.1) for n in (2, 4, 8)
    )
    assert_close(objective(q, c, batch(4, 6)), expected)
    for wrong in ("9", "0", "-1", "two"):
        with pytest.raises(UserError, match="--dimensions"):
            ContrastiveLoss(8, temperature=0.1, dimensions=wrong)


def test_a_temperature_that_learns_has_the_gradient_of_its_scale_and_stops_at_clips_limit():
    q, c = unit(4, 8), unit(4, 8)
    objective = ContrastiveLoss(8, temperature=0.1, learn_temperature=True, symmetric=False)
    objective(q, c, batch(4, 4)).backward()
    scale = torch.tensor(-math.log(0.1), requires_grad=True)
    F.cross_entropy(q @ c.T * scale.exp(), torch.arange(4)).backward()
    assert_close(objective.log_scale.grad, scale.grad)
    objective.log_scale.data += 9
    objective(q, c, batch(4, 4))
    assert objective.temperature.item() == pytest.approx(0.01)
    fixed = ContrastiveLoss(8, temperature=0.002)  # what is given is not touched
    fixed(q, c, batch(4, 4))
    assert fixed.temperature.item() == pytest.approx(0.002) and not list(
        p for p in fixed.parameters() if p.requires_grad
    )


def test_a_student_that_orders_as_its_teacher_has_nothing_to_learn():
    q, c = unit(3, 8), unit(5, 8)
    teacher = (q @ c.T / 0.1).masked_fill(torch.tensor([[0, 0, 0, 1, 1], [0] * 5, [1] * 5]).bool(), -math.inf)
    q.requires_grad_()
    same = distillation(q, c, teacher, temperature=0.1)
    other = distillation(q, c, teacher * 2, temperature=0.1)
    assert same.abs() < 1e-6 and other > 0.01
    (gradient,) = torch.autograd.grad(other, q)
    assert torch.isfinite(gradient).all()
    assert gradient[2].abs().max() == 0 < gradient[:2].abs().max()  # the third query has no scores
    nothing = distillation(q, c, torch.full((3, 5), -math.inf), temperature=0.1)
    assert nothing == 0 and torch.autograd.grad(nothing, q)[0].abs().max() == 0


def test_a_constant_added_to_all_scores_of_a_query_changes_nothing():
    q, c, teacher = unit(3, 8), unit(5, 8), torch.randn(3, 5)
    objective = ContrastiveLoss(8, temperature=0.1, distill=2.0, teacher_temperature=0.5)
    loss = objective(q, c, batch(3, 5, teacher))
    assert_close(objective(q, c, batch(3, 5, teacher + 7)), loss)
    plain = ContrastiveLoss(8, temperature=0.1)(q, c, batch(3, 5, teacher))
    assert_close(loss - plain, 2 * distillation(q, c, teacher / 0.5, temperature=0.1))
