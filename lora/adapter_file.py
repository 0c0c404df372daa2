"""An adapter's file, in the format of PEFT: adapter_config.json and adapter_model.safetensors.

PEFT wraps the network twice, so its names are ours behind a prefix:

    ours    model.layers.0.self_attn.q_proj.lora_A.weight
    PEFT's  base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight

Checked against peft's LoraConfig, PeftModel.from_pretrained and save_pretrained in tests/parity/test_adapter.py.
"""

from __future__ import annotations

from pathlib import Path

import safetensors.torch
import torch
from torch import nn

from common.console import UserError
from common.files import new_folder, read_json, write_json
from lora.inject import Adapter, linears, lora_layers, make_adapter, use_adapter
from lora.targets import HEAD, as_pattern, is_target
from model.encoder import Encoder
from model.safetensors_file import read_file
from model.weights import optional_json

PREFIX = "base_model.model."

# The keys of adapter_config.json that this file reads …
READ = {
    "peft_type", "task_type", "r", "lora_alpha", "lora_dropout", "rank_pattern", "alpha_pattern", "use_rslora",
    "use_dora", "target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "init_lora_weights",
}  # fmt: skip
# … and those that do not affect what the matrices compute. Any other key that is set is refused.
INERT = {
    "auto_mapping", "base_model_name_or_path", "inference_mode", "peft_version", "revision", "megatron_core",
    "ensure_weight_tying", "runtime_config", "loftq_config", "corda_config", "eva_config", "lora_ga_config",
    "qalora_group_size", "velora_config",
}  # fmt: skip
# Initialisations that also change the base's weights: the matrices alone are not the whole adapter.
CHANGES_BASE = ("pissa", "olora", "corda", "lora_ga", "loftq")


def save_adapter(network: nn.Module, folder: Path | str, *, base_model: str, task_type: str) -> None:
    """Write the adapter in use, atomically.

    base_model  the name that the base was loaded by
    task_type   "CAUSAL_LM" or "FEATURE_EXTRACTION"
    """
    # one rank and one alpha, and the layers that have others
    layers = lora_layers(network)
    first = next(iter(layers.values()))
    rank, rank_pattern = as_pattern({name: layer.r for name, layer in layers.items()})
    alpha, alpha_pattern = as_pattern({name: whole(layer.alpha) for name, layer in layers.items()})

    # all that PEFT needs to build the same layers
    config = {
        "peft_type": "LORA",
        "task_type": task_type,
        "base_model_name_or_path": base_model,
        "r": rank,
        "lora_alpha": alpha,
        "lora_dropout": first.dropout.p,
        "target_modules": _target_modules(network, layers),
        "rank_pattern": rank_pattern,
        "alpha_pattern": alpha_pattern,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "modules_to_save": None,
        "use_rslora": first.rslora,
        "use_dora": first.lora_magnitude_vector is not None,
    }
    write_adapter(folder, config, adapter_tensors(layers))


def load_adapter(network: nn.Module, folder: Path | str) -> Adapter:
    """Read an adapter and switch to it (lora.inject.use_adapter can switch back to the one before).

    UserError, with the network unchanged, for anything but LoRA, rsLoRA and DoRA, and, listing them, for tensors that
    are missing, left over or not of the shape that adapter_config.json and the network require.
    """
    config, tensors = read_adapter(folder)
    # BertModel's pooler has no effect on an embedding
    if isinstance(network, Encoder):
        tensors = {key: tensor for key, tensor in tensors.items() if not key.startswith(f"{PREFIX}pooler.")}

    # fresh layers, as adapter_config.json describes them
    chosen = {
        "exclude": config.get("exclude_modules") or (),
        "layers": config.get("layers_to_transform"),
        "layers_pattern": config.get("layers_pattern"),
    }
    adapter = make_adapter(
        network,
        [name for name in linears(network) if is_target(name, config["target_modules"], **chosen)],
        r=config["r"],
        alpha=config["lora_alpha"],
        dropout=config.get("lora_dropout", 0.0),
        rank_pattern=config.get("rank_pattern") or {},
        alpha_pattern=config.get("alpha_pattern") or {},
        rslora=config.get("use_rslora", False),
        dora=config.get("use_dora", False),
    )

    # their matrices
    parameters = adapter_tensors(adapter)
    _refuse_what_does_not_fit(parameters, tensors, folder)
    for key, parameter in parameters.items():
        parameter.copy_(tensors[key])
    use_adapter(network, adapter)
    return adapter


def read_adapter(folder: Path | str) -> tuple[dict, dict[str, torch.Tensor]]:
    """adapter_config.json and the tensors under PEFT's names. UserError for settings that are not implemented."""
    folder = Path(folder)
    config = read_json(folder / "adapter_config.json")
    refuse_unsupported(config, folder)
    return config, read_tensors(folder)


def read_tensors(folder: Path) -> dict[str, torch.Tensor]:
    """The tensors of adapter_model.safetensors. UserError if it is missing, pickled, damaged or empty."""
    file = folder / "adapter_model.safetensors"
    if not file.is_file():
        pickled = (folder / "adapter_model.bin").is_file()
        hint = "; adapter_model.bin is a pickle, which is never loaded: save it as safetensors" if pickled else ""
        raise UserError(f"{file}: no such file{hint}")
    tensors = dict(read_file(file))
    if not tensors:
        raise UserError(f"{file}: the adapter is empty")
    return tensors


def read_provenance(folder: Path) -> dict:
    """tritune.json of an adapter or a model, as training/finish.py writes it; {} if there is none."""
    return optional_json(folder / "tritune.json")


def write_adapter(folder: Path | str, config: dict, tensors: dict[str, torch.Tensor], provenance: dict | None = None):
    """Write the two files, and tritune.json if given, atomically."""
    tensors = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
    with new_folder(folder) as target:
        safetensors.torch.save_file(tensors, target / "adapter_model.safetensors", metadata={"format": "pt"})
        write_json(target / "adapter_config.json", config)
        if provenance:
            write_json(target / "tritune.json", provenance)


def adapter_tensors(adapter: Adapter) -> dict[str, torch.Tensor]:
    """The trainable tensors under PEFT's names, not copied: lora_A.weight, lora_B.weight, lora_magnitude_vector."""
    return {
        f"{PREFIX}{name}.{key}": tensor
        for name, layer in adapter.items()
        for key, tensor in layer.state_dict().items()
        if key.startswith("lora_")
    }


def refuse_unsupported(config: dict, where: Path | str) -> None:
    """UserError for the first setting of adapter_config.json that is not implemented, or is missing."""
    if config.get("peft_type") != "LORA":
        raise UserError(f"{where}: adapter type {config.get('peft_type')!r} is not supported, only LORA is")
    # a setting that is not read might change what the matrices compute
    for key, value in config.items():
        if key not in READ | INERT and is_set(value):
            raise UserError(
                f"{where}: adapter_config.json: {key}={value!r} is not implemented; merge it with peft "
                "(merge_and_unload) and load the model"
            )
    initialisation = str(config.get("init_lora_weights", True)).lower()
    if initialisation.startswith(CHANGES_BASE):
        raise UserError(
            f"{where}: adapter_config.json: init_lora_weights={initialisation!r} changed the base's weights too; "
            "convert it with peft (save_pretrained with path_initial_model_for_weight_conversion)"
        )
    for key, kind in (("r", int), ("lora_alpha", int | float), ("target_modules", str | list)):
        if not isinstance(config.get(key), kind) or not config[key]:
            raise UserError(f"{where}: adapter_config.json: {key} is {config.get(key)!r}; it is required")


def is_set(value) -> bool:
    """Whether a setting of adapter_config.json is used, in any of PEFT's ways of writing that it is not."""
    return value not in (None, False, {}, [], 0, "none")


def _refuse_what_does_not_fit(parameters: dict, tensors: dict, folder: Path | str) -> None:
    problems = [f"missing: {key}" for key in parameters.keys() - tensors.keys()]
    for key, tensor in tensors.items():
        if key not in parameters:
            problems.append(f"left over: {key}{_why_left_over(key)}")
        elif tensor.shape != parameters[key].shape:
            problems.append(f"{key} is {list(tensor.shape)}, expected {list(parameters[key].shape)}")
    if problems:
        more = f" … and {len(problems) - 6} more" if len(problems) > 6 else ""
        raise UserError(f"{folder}: the adapter does not fit this model: {'; '.join(sorted(problems)[:6])}{more}")


def _why_left_over(key: str) -> str:
    if ".lora_" not in key:
        return " (a whole weight, such as rows for added tokens: merge it with peft (merge_and_unload), load the model)"
    return " (an adapter on the head is not implemented)" if f".{HEAD}." in key else ""


def whole(alpha: float) -> int | float:
    """As an integer if it is one: PEFT declares alpha an int, but the alpha of a folded rsLoRA is fractional."""
    return int(alpha) if alpha == int(alpha) else alpha


def _target_modules(network: nn.Module, layers: Adapter) -> list[str]:
    """Last names if they identify the adapted layers exactly, else full names.

    An encoder always gets full names: other libraries' networks have a pooler with a `dense` layer, ours have not.
    """
    # exact if every layer of such a name has an adapter
    short = {name.rpartition(".")[2] for name in layers}
    is_exact = all(name in layers for name in linears(network) if name.rpartition(".")[2] in short)
    is_exact = is_exact and not isinstance(network, Encoder)
    return sorted(short if is_exact else layers)
