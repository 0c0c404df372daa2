"""Constant tensors, computed once and cached for every layer and every pass."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch


def cached_tensors(maxsize: int | None = None) -> Callable[[Callable], Callable]:
    """`functools.lru_cache` for a function that returns tensors.

    A tensor created under `torch.inference_mode` can never be saved for a backward pass, and the first caller decides:
    validation or sampling would spoil it for the training that follows. So the function runs outside inference mode.
    """

    def decorate(function: Callable) -> Callable:
        return lru_cache(maxsize)(torch.inference_mode(False)(function))

    return decorate
