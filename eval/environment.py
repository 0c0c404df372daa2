"""What a figure depends on besides its settings: versions, device, this project's source, hashes of the data."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

SOURCE = Path(__file__).resolve().parent.parent
FOLDERS = ("common", "model", "sandbox", "lora", "data", "training", "eval")
PACKAGES = ("torch", "tokenizers", "safetensors", "numpy", "hnswlib", "gguf", "ruff")


def environment(
    device: torch.device | None = None, dtype: torch.dtype | None = None, **read: list | dict | str
) -> dict[str, str]:
    """The "environment" of a result, flat.

    device, dtype  if the figure comes from a network
    read           name -> the rows, text or JSON that was read, recorded as NAME_sha256
    """
    values = {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": str(torch.get_num_threads()),
        "source_sha256": source_sha256(),
    }
    if device is not None:
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
        values["device"] = f"{device.type}: {name}"
    if dtype is not None:
        values["dtype"] = str(dtype).removeprefix("torch.")
    for package in PACKAGES:
        try:
            values[package] = version(package)
        except PackageNotFoundError:
            continue
    hashes = {f"{name}_sha256": json.dumps(given, sort_keys=True).encode() for name, given in read.items()}
    return values | {name: hashlib.sha256(data).hexdigest() for name, data in hashes.items()}


def source_sha256() -> str:
    """One hash over the Python files of this project, in the order of their paths."""
    digest = hashlib.sha256()
    for path in sorted([*SOURCE.glob("*.py"), *(p for folder in FOLDERS for p in (SOURCE / folder).rglob("*.py"))]):
        digest.update(path.relative_to(SOURCE).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or os.uname().machine
