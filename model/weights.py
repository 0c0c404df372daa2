"""Where weights come from, and that every one of them arrives: strict loading, and saving in Hugging Face's layout.

Only safetensors and GGUF are read; a pickled file (pytorch_model.bin) can run code and is refused. A module is built
without memory, then each tensor goes from the mapped file straight to its dtype and device.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import safetensors
import safetensors.torch
import tokenizers
import torch
from torch import nn

from model.config import ModelConfig
from model.console import UserError
from model.decoder import Decoder
from model.embedded import EMBEDDED, fetch_embedded
from model.files import new_folder, read_json, read_text, write_json
from model.gguf_file import GGUFFile
from model.tokenizer import Tokenizer

HUB_FILES = ["*.json", "*.safetensors", "*.jinja"]


def locate(name: str) -> Path:
    """The folder or .gguf file that a MODEL argument names: a path, an embedded default, or a hub id.

    Raises UserError when it is none of these or cannot be fetched.
    """
    path = Path(name).expanduser()
    if path.is_dir() or (path.suffix == ".gguf" and path.is_file()):
        return path
    if name in EMBEDDED:
        return fetch_embedded(name)
    if path.suffix == ".gguf" or name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise UserError(
            f"{name}: no such model; give a folder, a .gguf file, a hub id such as Qwen/Qwen2.5-Coder-0.5B, "
            f"or one of {', '.join(EMBEDDED)}"
        )
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(huggingface_hub.snapshot_download(name, allow_patterns=[*HUB_FILES, "1_Pooling/*"]))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"{name}: could not be had from the hub ({type(error).__name__}: {reason}); give a folder or one of the "
            f"embedded defaults, {', '.join(EMBEDDED)}"
        ) from None


def load_decoder(name: str, *, dtype: torch.dtype = torch.float32, device: str | torch.device = "cpu") -> Decoder:
    """A causal language model.

    name  a folder in Hugging Face layout, a .gguf file, a hub id, or an embedded default
    Raises UserError for an unsupported architecture or a tensor that is missing, left over or of another shape.
    """
    source = locate(name)
    gguf = GGUFFile(source) if source.suffix == ".gguf" else None
    config = ModelConfig.from_dict(gguf.config() if gguf else read_json(source / "config.json"))
    with torch.device("meta"):
        decoder = Decoder(config)
    tensors = gguf.tensors() if gguf else read_safetensors(source)
    fill(decoder, tensors, dtype=dtype, device=device, where=source, skip=_decoder_leftovers(config))
    return decoder.eval()


def load_tokenizer(name: str, *, chat_template: str | Path | None = None) -> Tokenizer:
    """The tokenizer that belongs to a model; `chat_template` is a Jinja file that replaces the model's own."""
    source = locate(name)
    if source.suffix == ".gguf":
        backend, settings, eos_ids = GGUFFile(source).tokenizer()
    else:
        backend, settings, eos_ids = tokenizer_files(source)
    if chat_template is not None:
        try:
            settings["chat_template"] = Path(chat_template).read_text(encoding="utf-8")
        except OSError as error:
            raise UserError(f"{chat_template}: chat template not readable ({error.strerror})") from None
    return Tokenizer(backend, settings, eos_ids)


def save_decoder(decoder: Decoder, tokenizer: Tokenizer, folder: Path | str) -> None:
    """Write a folder that transformers, and load_decoder, read. A tied head is written once."""
    with new_folder(folder) as target:
        save_weights(decoder, target)
        write_json(target / "config.json", decoder.config.raw | {"torch_dtype": dtype_name(decoder)})
        if decoder.config.eos_token_ids:
            write_json(target / "generation_config.json", {"eos_token_id": sorted(tokenizer.stop_ids)})
        tokenizer.save(target)


def weights_sha256(source: Path) -> str:
    """One hash over a model's weight files, in the order of their names."""
    digest = hashlib.sha256()
    for path in [source] if source.is_file() else sorted(source.glob("*.safetensors")):
        with open(path, "rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()


def save_weights(module: nn.Module, folder: Path) -> None:
    """Write the parameters of a module as one safetensors file."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()}
    safetensors.torch.save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def dtype_name(module: nn.Module) -> str:
    """float32, bfloat16 …, as config.json writes it."""
    return str(next(module.parameters()).dtype).removeprefix("torch.")


def read_safetensors(folder: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor of a folder, one file or several shards."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        pickled = [path.name for path in folder.glob("*.bin")]
        hint = f"; {pickled[0]} is a pickle and is never loaded, convert it to safetensors" if pickled else ""
        raise UserError(f"{folder}: no *.safetensors file{hint}")
    for path in files:
        try:
            with safetensors.safe_open(path, framework="pt") as opened:
                for name in opened.keys():  # noqa: SIM118 (not a dict)
                    yield name, opened.get_tensor(name)
        except (safetensors.SafetensorError, OSError) as error:
            raise UserError(f"{path}: damaged or not a safetensors file ({error}); fetch it again") from None


def fill(module: nn.Module, tensors: Iterable[tuple[str, torch.Tensor]], *, dtype, device, where: Path, skip) -> None:
    """Assign every tensor by name and shape; anything missing, left over or misshapen is an error that lists it."""
    missing = dict(module.named_parameters())
    problems = []
    for name, tensor in tensors:
        name = name.removeprefix("bert.")
        expected = missing.pop(name, None)
        if expected is None:
            if not skip(name):
                problems.append(f"left over: {name}")
            continue
        if expected.shape != tensor.shape:
            problems.append(f"{name} is {list(tensor.shape)}, expected {list(expected.shape)}")
            continue
        owner, _, attribute = name.rpartition(".")
        weight = nn.Parameter(tensor.to(device=device, dtype=dtype, copy=True))
        setattr(module.get_submodule(owner), attribute, weight)
    problems += [f"missing: {name}" for name in missing]
    if problems:
        more = f" … and {len(problems) - 6} more" if len(problems) > 6 else ""
        raise UserError(f"{where}: the weights do not fit config.json: {'; '.join(problems[:6])}{more}")


def _decoder_leftovers(config: ModelConfig):
    """Names that a file may hold besides the parameters: a second copy of a tied head, and old RoPE buffers."""

    def is_known(name: str) -> bool:
        return name.endswith("rotary_emb.inv_freq") or (name == "lm_head.weight" and config.tie_word_embeddings)

    return is_known


def tokenizer_files(folder: Path) -> tuple[tokenizers.Tokenizer, dict, tuple[int, ...]]:
    """tokenizer.json, the settings beside it with the chat template, and the end-of-text ids."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise UserError(f"{folder}: no tokenizer.json; only fast tokenizers are read")
    try:
        backend = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises bare Exception
        raise UserError(f"{path}: not a readable tokenizer ({error})") from None
    optional = {
        name: read_json(folder / name) if (folder / name).is_file() else {}
        for name in ("special_tokens_map.json", "tokenizer_config.json", "config.json", "generation_config.json")
    }
    settings = optional["special_tokens_map.json"] | optional["tokenizer_config.json"]
    templates = {"default": folder / "chat_template.jinja"} if (folder / "chat_template.jinja").is_file() else {}
    templates |= {path.stem: path for path in sorted((folder / "additional_chat_templates").glob("*.jinja"))}
    if templates:  # files of their own take the place of what tokenizer_config.json holds
        settings["chat_template"] = [{"name": name, "template": read_text(path)} for name, path in templates.items()]
    eos_ids: list[int] = []
    for source in ("generation_config.json", "config.json"):
        value = optional[source].get("eos_token_id")
        eos_ids += [] if value is None else value if isinstance(value, list) else [value]
    return backend, settings, tuple(dict.fromkeys(eos_ids))
