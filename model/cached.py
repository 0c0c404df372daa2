"""Constant tensors that are made once and kept, for every layer and every pass."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch


def cached_tensors(maxsize: int | None = None) -> Callable[[Callable], Callable]:
    """`functools.lru_cache` for a function that returns tensors.

    A tensor made under `torch.inference_mode` can never be saved for a backward pass, and whoever asks first decides
    how it is made: validation or sampling would spoil it for the training that follows. So inference mode is off while
    the function runs.
    """

    def decorate(function: Callable) -> Callable:
        return lru_cache(maxsize)(torch.inference_mode(False)(function))

    return decorate
