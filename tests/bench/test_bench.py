"""What the benchmarks compute besides their measurements."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from bench.context import longest
from bench.measure import be_turing
from bench.train import _seconds_to
from common.console import UserError


@pytest.mark.parametrize("limit", [1024, 1025, 5000, 12_345, 32_767, 32_768, 10**9])
def test_the_longest_fitting_text_is_found_to_within_an_eighth(limit):
    tried = []

    def fits(tokens: int) -> bool:
        tried.append(tokens)
        return tokens <= limit

    found = longest(fits, 1024, 32_768)
    assert found <= min(limit, 32_768) <= found * 1.13 + 1
    assert max(tried) <= 32_768 and len(tried) < 12


def test_a_memory_too_small_for_any_text_is_one_line():
    with pytest.raises(UserError, match="not even 1024 tokens fit"):
        longest(lambda tokens: False, 1024, 32_768)


def test_seconds_count_to_the_step_at_which_the_mean_of_eight_is_low_enough():
    figure = {"losses": [4.0, 1.0, 3.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0], "seconds": [10.0] + [1.0] * 9}
    assert _seconds_to(2.5, figure) == 11  # (4 + 1) / 2
    assert _seconds_to(2.2, figure) == 18  # after nine steps the first has left: 16 / 8


@pytest.mark.parametrize(("total", "share"), [(80e9, 15 / 80), (8e9, 1.0)])
def test_turing_works_without_a_device_number_and_on_a_gpu_smaller_than_a_t4(monkeypatch, total, share):
    given = []
    monkeypatch.setattr(torch.cuda, "get_device_capability", torch.cuda.get_device_capability)  # put back at the end
    monkeypatch.setattr(torch.backends.cuda, "enable_flash_sdp", lambda enabled: given.append(enabled))
    monkeypatch.setattr(torch.backends.cuda, "enable_cudnn_sdp", lambda enabled: given.append(enabled))
    monkeypatch.setattr(torch._inductor, "config", SimpleNamespace())
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (0, total))
    monkeypatch.setattr(torch.cuda.memory, "_lazy_init", lambda: None)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch._C, "_cuda_setMemoryFraction", lambda *taken: given.append(taken), raising=False)
    be_turing(torch.device("cuda"))
    assert given == [False, False, (share, 0)] and torch.cuda.get_device_capability() == (7, 5)
