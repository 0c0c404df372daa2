"""Compile guard.cpp, once for each version of PyTorch: a shared library in the cache folder."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).with_name("guard.cpp")
CACHE = Path(os.environ.get("TRITUNE_CACHE") or Path.home() / ".cache" / "tritune")  # as common/files.py, without torch


def missing() -> str | None:
    """Why it cannot be compiled here; None where it can."""
    if sys.platform != "linux":
        return "the fake CUDA device is built on Linux only"
    return None if compiler() else "no C++ compiler (g++, clang++ or $CXX) to build the fake CUDA device with"


def compiler() -> str | None:
    """$CXX, or the first of the usual names that there is."""
    names = [os.environ.get("CXX"), "g++", "clang++", "c++"]
    return next((name for name in names if name and shutil.which(name)), None)


def guard() -> Path:
    """The compiled library. CalledProcessError, with the compiler's own words on stderr, where that fails."""
    torch = Path(importlib.util.find_spec("torch").origin).parent  # not imported: the guard is to be there before
    key = hashlib.sha256(importlib.metadata.version("torch").encode() + SOURCE.read_bytes()).hexdigest()[:16]
    built = CACHE / f"fake-cuda-{key}.so"
    if not built.is_file():
        built.parent.mkdir(parents=True, exist_ok=True)
        scratch = built.with_suffix(f".{os.getpid()}")
        command = [
            compiler(), "-shared", "-fPIC", "-O0", "-w", "-std=c++17", str(SOURCE), "-o", str(scratch),
            f"-I{torch}/include", f"-I{torch}/include/torch/csrc/api/include",
            f"-L{torch}/lib", f"-Wl,-rpath,{torch}/lib", "-lc10", "-ltorch_cpu",
        ]  # fmt: skip
        subprocess.run(command, check=True)
        os.replace(scratch, built)  # two runs at a time may both build it
    return built
