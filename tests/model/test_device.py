"""Which device and dtype are chosen, and what is said where there is no GPU although PyTorch is built for one."""

from __future__ import annotations

import warnings

import pytest
import torch

from common.console import UserError
from model import device as device_module
from model.device import choose_device, choose_dtype, on_gpu

CPU = torch.device("cpu")
OLD_DRIVER = (
    "CUDA initialization: The NVIDIA driver on your system is too old (found version 12040). Please update your GPU "
    "driver by downloading and installing a new version. (Triggered internally at CUDAFunctions.cpp:119.)"
)


@pytest.fixture
def built_for_cuda(monkeypatch):
    """PyTorch for CUDA 13.0 that sees `count` GPUs, and warns once a process where the driver is too old."""

    def be(count=0, *, warns=""):
        said = []

        def is_available():
            if warns and not said:
                said.append(warns)
                warnings.warn(warns, stacklevel=1)
            return count > 0

        monkeypatch.setattr(torch.version, "cuda", "13.0")
        monkeypatch.setattr(torch.cuda, "is_available", is_available)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: max(count, 1))  # NVML counts also what cannot be used
        current = []
        monkeypatch.setattr(torch.cuda, "set_device", current.append)
        return current

    for function in (device_module._say_once, device_module._complaint):
        function.cache_clear()
    yield be
    for function in (device_module._say_once, device_module._complaint):
        function.cache_clear()


@pytest.mark.parametrize("warns", [OLD_DRIVER, ""], ids=["driver too old", "no driver"])
def test_a_cuda_build_that_sees_no_gpu_says_so_once_and_takes_the_cpu(built_for_cuda, capsys, recwarn, warns):
    built_for_cuda(warns=warns)
    assert [choose_device(), choose_device("auto")] == [torch.device("cpu")] * 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("tritune: using the CPU: ") and "built for CUDA 13.0" in line and "nvidia-smi" in line
    assert ("(The NVIDIA driver on your system is too old (found version 12040))" in line) == bool(warns)
    assert not recwarn.list  # its three lines are in ours
    assert choose_device("cpu") == torch.device("cpu")
    with pytest.raises(UserError, match=r"--device cuda: this PyTorch is built for CUDA 13.0 and finds no GPU.*cpu"):
        choose_device("cuda")
    assert not capsys.readouterr().err


def test_the_cpu_by_name_and_a_build_without_cuda_say_nothing(built_for_cuda, monkeypatch, capsys):
    built_for_cuda()
    choose_device("cpu")
    monkeypatch.setattr(torch.version, "cuda", None)
    assert choose_device() == torch.device("cpu") and not capsys.readouterr().err
    with pytest.raises(UserError, match="--device cuda:0: this PyTorch is built without CUDA"):
        choose_device("cuda:0")


def test_a_gpu_by_its_number_becomes_the_current_one(built_for_cuda, capsys):
    current = built_for_cuda(2)
    assert choose_device() == choose_device("cuda") == torch.device("cuda") and not current
    assert choose_device("cuda:1") == torch.device("cuda:1") and current == [torch.device("cuda:1")]
    with pytest.raises(UserError, match="--device cuda:2: the last of 2 GPUs is cuda:1"):
        choose_device("cuda:2")
    for wrong in ("cuda:", "gpu", "cuda:-1", "CPU"):
        with pytest.raises(UserError, match="give auto, cpu, cuda or cuda:N"):
            choose_device(wrong)
    assert not capsys.readouterr().err


@pytest.mark.parametrize(
    ("capability", "expected"),
    [((7, 0), torch.float16), ((7, 5), torch.float16), ((8, 0), torch.bfloat16), ((9, 0), torch.bfloat16)],
)
def test_compute_capability_decides_not_is_bf16_supported(monkeypatch, capability, expected):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: capability)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *a, **k: True)  # what a T4 says, by slow emulation
    assert choose_dtype(torch.device("cuda")) == expected
    if expected == torch.float16:
        with pytest.raises(UserError, match="emulate"):
            choose_dtype(torch.device("cuda"), "bf16")


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({}, torch.float32),
        ({"avx512_bf16": True, "cpu_name": "Intel Xeon"}, torch.float32),  # at half the rate of fp32
        ({"avx512_bf16": True, "cpu_name": "AMD EPYC"}, torch.bfloat16),
        ({"avx512_bf16": True, "amx_tile": True, "cpu_name": "Intel Xeon"}, torch.bfloat16),
    ],
)
def test_a_cpu_takes_bf16_only_where_it_is_faster_and_never_fp16(monkeypatch, capabilities, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    for name, has in (("_is_avx512_bf16_supported", "avx512_bf16"), ("_is_amx_tile_supported", "amx_tile")):
        monkeypatch.setattr(torch.cpu, name, lambda has=has: capabilities.get(has, False))
    assert choose_dtype(CPU) == expected
    if capabilities:
        assert choose_dtype(CPU, "bf16") == torch.bfloat16
    else:
        with pytest.raises(UserError, match="emulate"):
            choose_dtype(CPU, "bf16")
    with pytest.raises(UserError, match="emulate"):
        choose_dtype(CPU, "fp16")
    with pytest.raises(UserError, match="give auto"):
        choose_dtype(CPU, "int8")


def test_an_unavailable_device_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for name in ("cuda", "toaster"):
        with pytest.raises(UserError, match=name):
            choose_device(name)


def test_what_lies_on_a_gpu():
    assert on_gpu(torch.device("cuda:1")) and not on_gpu(torch.device("cpu")) and not on_gpu(torch.zeros(1))
