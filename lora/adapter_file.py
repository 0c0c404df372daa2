"""An adapter's folder: adapter_config.json, which names the method, and its tensors in safetensors.

The format is PEFT's, or AdapterHub's for a bottleneck, which PEFT does not know. What each method writes is in its own
file, listed in METHODS.
"""

from __future__ import annotations

from pathlib import Path

import safetensors.torch
import torch
from torch import nn

from common.console import UserError
from common.files import new_folder, read_json, write_json
from lora.adapter import Adapter, Method, adapter_in_use, use_adapter
from lora.bitfit import BIASES, NORMS
from lora.bottleneck_file import BOTTLENECK
from lora.ia3 import IA3
from lora.lora_file import LORA
from lora.peft_format import PREFIX
from lora.targets import HEAD
from lora.virtual_file import PREFIX_TUNING, PROMPT_TUNING
from model.encoder import Encoder
from model.safetensors_file import read_file
from model.weights import optional_json

METHODS = {
    method.module.peft_type: method for method in (LORA, IA3, BIASES, NORMS, BOTTLENECK, PREFIX_TUNING, PROMPT_TUNING)
}


def save_adapter(network: nn.Module, folder: Path | str, *, base_model: str, task_type: str) -> None:
    """Write the adapter in use, atomically.

    base_model  the name that the base was loaded by
    task_type   "CAUSAL_LM" or "FEATURE_EXTRACTION"
    """
    adapter = adapter_in_use(network)
    method = method_of(adapter)
    config = {
        "peft_type": method.module.peft_type,
        "task_type": task_type,
        "base_model_name_or_path": base_model,
        "inference_mode": True,
    }
    write_adapter(folder, config | method.to_config(network, adapter), method.to_tensors(adapter), file=method.file)


def load_adapter(network: nn.Module, folder: Path | str) -> Adapter:
    """Read an adapter and switch to it (lora.adapter.use_adapter can switch back to the one before).

    UserError, with the network unchanged, for a method or a setting that is not implemented, and, listing them, for
    tensors that are missing, left over or not of the shape that adapter_config.json and the network require.
    """
    # fresh modules, as adapter_config.json describes them
    folder = Path(folder)
    config = read_json(folder / "adapter_config.json")
    method = method_in(config, folder)
    adapter = method.from_config(network, config, folder)

    # their tensors; BertModel's pooler has no effect on an embedding
    tensors = read_tensors(folder, method.file)
    if isinstance(network, Encoder):
        tensors = {key: tensor for key, tensor in tensors.items() if not key.startswith(f"{PREFIX}pooler.")}
    fresh = method.to_tensors(adapter)
    _refuse_what_does_not_fit(fresh, tensors, folder)
    if method.from_tensors is not None:
        method.from_tensors(adapter, tensors)
    else:
        for key, tensor in fresh.items():
            tensor.copy_(tensors[key])
    use_adapter(network, adapter)
    return adapter


def method_of(adapter: Adapter) -> Method:
    """The method of an adapter: all its modules have the same."""
    return METHODS[next(iter(adapter.values())).peft_type]


def method_in(config: dict, where: Path) -> Method:
    """The method of an adapter_config.json. UserError for one that is not implemented."""
    # AdapterHub's own configuration has no such key
    kind = config.get("peft_type", "BOTTLENECK" if "config" in config and "model_class" in config else None)
    if kind not in METHODS:
        raise UserError(f"{where}: adapter type {kind!r} is not supported; supported are {', '.join(METHODS)}")
    return METHODS[kind]


def read_tensors(folder: Path, name: str = "adapter_model.safetensors") -> dict[str, torch.Tensor]:
    """The tensors of a file of the folder. UserError if it is missing, pickled, damaged or empty."""
    file = folder / name
    if not file.is_file():
        pickled = next((path.name for path in sorted(folder.glob("*adapter*.bin"))), None)
        hint = f"; {pickled} is a pickle, which is never loaded: save it as safetensors" if pickled else ""
        raise UserError(f"{file}: no such file{hint}")
    tensors = dict(read_file(file))
    if not tensors:
        raise UserError(f"{file}: the adapter is empty")
    return tensors


def read_provenance(folder: Path) -> dict:
    """tritune.json of an adapter or a model, as training/finish.py writes it; {} if there is none."""
    return optional_json(folder / "tritune.json")


def write_adapter(
    folder: Path | str,
    config: dict,
    tensors: dict[str, torch.Tensor],
    provenance: dict | None = None,
    *,
    file: str = "adapter_model.safetensors",
) -> None:
    """Write the two files, and tritune.json if given, atomically."""
    tensors = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
    with new_folder(folder) as target:
        safetensors.torch.save_file(tensors, target / file, metadata={"format": "pt"})
        write_json(target / "adapter_config.json", config)
        if provenance:
            write_json(target / "tritune.json", provenance)


def _refuse_what_does_not_fit(expected: dict, tensors: dict, folder: Path) -> None:
    problems = [f"missing: {key}" for key in expected.keys() - tensors.keys()]
    for key, tensor in tensors.items():
        if key not in expected:
            problems.append(f"left over: {key}{_why_left_over(key)}")
        elif tensor.shape != expected[key].shape:
            problems.append(f"{key} is {list(tensor.shape)}, expected {list(expected[key].shape)}")
    if problems:
        more = f" … and {len(problems) - 6} more" if len(problems) > 6 else ""
        raise UserError(f"{folder}: the adapter does not fit this model: {'; '.join(sorted(problems)[:6])}{more}")


def _why_left_over(key: str) -> str:
    if key.endswith(("embed_tokens.weight", f"{HEAD}.weight")) and ".lora_" not in key:
        return " (a whole weight, such as rows for added tokens: merge it with peft (merge_and_unload), load the model)"
    return " (an adapter on the head is not implemented)" if f".{HEAD}." in key else ""
