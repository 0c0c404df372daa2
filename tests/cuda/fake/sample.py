"""Walks of sampling: continuous batching over a KV cache, each step recorded as a CUDA graph."""

from __future__ import annotations

import random
from unittest import mock

import torch

from lora.adapter import use_adapter
from lora.prefix import Prefix
from lora.prompt import Prompt
from model import pages
from model.device import choose_dtype
from model.generate import Stop, generate
from model.sampling import Sampling
from tests.cuda.fake.count import Count
from tests.cuda.fake.device import DEVICE, become
from tests.cuda.fake.models import fake_decoder
from tests.cuda.fake.walk import Figures

STOP = 2
PROMPTS = [[5] * n for n in (3, 17, 12)]


def sample(
    family: str,
    *,
    capability: tuple[int, int] = (9, 0),
    samples: int = 2,
    rows: int = 4,
    new_tokens: int = 10,
    layers: int = 1,
    method: type[Prefix] | type[Prompt] | None = None,
    **rules,
) -> Figures:
    """Answers to prompts of 3 to 17, some ended early: rows leave, others take their places.

    A page holds 8 tokens here, so that the cache grows on the way.
    """
    become(capability)
    decoder = fake_decoder(family, choose_dtype(DEVICE), num_hidden_layers=layers)
    if method is not None:
        learnt = method(decoder, 20)
        use_adapter(decoder, {learnt.place: learnt})
    drawn = random.Random(0)

    def tokens(tensor: torch.Tensor) -> list[int]:
        return [STOP if drawn.random() < 0.1 else 7 for _ in range(len(tensor))]

    with mock.patch.object(pages, "PAGE", 8), Count({"model/generate.py:choose": tokens}) as count:
        answers = generate(
            decoder,
            PROMPTS,
            Stop(max_new_tokens=new_tokens, ids=[STOP]),
            Sampling(samples=samples, **rules),
            rows=rows,
        )
    assert [len(of_prompt) for of_prompt in answers] == [samples] * len(PROMPTS)
    return Figures.of(count, tokens=sum(len(ids) for of_prompt in answers for ids in of_prompt))
