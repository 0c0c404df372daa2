"""Each method learns a toy rule: which of the things that a model can do is wanted."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.nn import functional as F

from lora.adapter import trainable
from model.config import ModelConfig
from model.decoder import Decoder
from tests.methods import METHODS, put_in

DIGITS = 16
SHIFTS = (1, 5, 10)  # a token for each says by how much a digit is to be shifted: 16 → 1, 17 → 5, 18 → 10
UNKNOWN = 19  # a token that the model has not seen: the rule to learn is that it means 5
CONFIG = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 20, "hidden_size": 32,
    "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "max_position_embeddings": 8, "rms_norm_eps": 1e-5, "tie_word_embeddings": False, "attention_bias": True,
}  # fmt: skip


def shifted(token: int, shift: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Every digit after `token`: (ids [16, 2], what comes next [16])."""
    digits = torch.arange(DIGITS)
    return torch.stack([torch.full_like(digits, token), digits], 1), (digits + shift) % DIGITS


def train(decoder: Decoder, ids: torch.Tensor, answers: torch.Tensor, *, lr: float, steps: int) -> None:
    optimizer = torch.optim.AdamW([parameter for _, parameter in trainable(decoder)], lr=lr, weight_decay=0.0)
    for _ in range(steps):
        loss = F.cross_entropy(decoder(ids)[:, -1], answers)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def accuracy(decoder: Decoder, ids: torch.Tensor, answers: torch.Tensor) -> float:
    return (decoder(ids)[:, -1].argmax(-1) == answers).float().mean().item()


@pytest.fixture(scope="module")
def skilled() -> Decoder:
    """A tiny decoder that shifts digits by 1, 5 or 10, as it is told."""
    torch.manual_seed(0)
    decoder = Decoder(ModelConfig.from_dict(CONFIG))
    for parameter in decoder.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.1)
    skills = [shifted(DIGITS + n, shift) for n, shift in enumerate(SHIFTS)]
    ids, answers = (torch.cat(parts) for parts in zip(*skills, strict=True))
    train(decoder, ids, answers, lr=1e-2, steps=200)
    assert accuracy(decoder, ids, answers) == 1
    assert accuracy(decoder, *shifted(UNKNOWN, SHIFTS[1])) < 0.5
    return decoder


@pytest.mark.parametrize("method", METHODS)
def test_a_rule_is_learnt_in_all_of_its_cases(skilled, method):
    decoder = copy.deepcopy(skilled)
    put_in(decoder, method)
    lr = 3e-2 if method == "ia3" else 1e-2  # the fewest parameters take the largest steps
    train(decoder, *shifted(UNKNOWN, SHIFTS[1]), lr=lr, steps=150)
    assert accuracy(decoder, *shifted(UNKNOWN, SHIFTS[1])) == 1
