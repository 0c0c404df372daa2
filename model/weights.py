"""Locating, loading and saving models in Hugging Face's layout. Loading is strict: every tensor is accounted for.

Only safetensors and GGUF are read; a pickled file (pytorch_model.bin) can run code and is refused. A module is built on
the meta device, then each tensor goes from the file straight to its dtype and device.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import safetensors.torch
import tokenizers
import torch
from torch import nn

from common.console import UserError
from common.files import new_folder, read_json, read_text, write_json
from model.config import ModelConfig
from model.decoder import Decoder
from model.device import available_memory, shapes_alone
from model.embedded import EMBEDDED, fetch_embedded
from model.gguf.file import GGUFFile
from model.hub import snapshot
from model.safetensors_file import read_safetensors, stored_tensors, weight_files
from model.tokenizer import Tokenizer

HUB_FILES = ["*.json", "*.safetensors", "*.jinja", "README.md"]  # README.md names the license
# The same model in other tools' formats, which some repositories also contain.
NOT_FROM_HUB = ["original/*", "onnx/*", "openvino/*", "consolidated*"]

# Stores a loaded tensor: (module, parameter name, tensor in its final dtype and on its device).
Put = Callable[[nn.Module, str, torch.Tensor], None]

READ_BESIDE_WEIGHTS = (
    "*config*.json", "modules.json", "[0-9]_*/config.json", "tokenizer.json", "special_tokens_map.json",
    "chat_template.*", "additional_chat_templates/*.jinja",
)  # fmt: skip
HEAD = "lm_head.weight"
LAYER = re.compile(r".*?\.\d+\.")  # model.layers.3.


def locate(name: str) -> Path:
    """The folder or .gguf file of a MODEL argument: a path, an embedded default, or a hub id.

    UserError if it is none of these or cannot be fetched.
    """
    # what is on disk wins over a name
    path = Path(name).expanduser()
    if path.is_dir() or (path.suffix == ".gguf" and path.is_file()):
        return path
    if name in EMBEDDED:
        return fetch_embedded(name)

    # a hub id is OWNER/NAME; anything else is a path that does not exist
    if path.suffix == ".gguf" or name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise UserError(
            f"{name}: no such model; give a folder, a .gguf file, a hub id such as Qwen/Qwen2.5-Coder-0.5B, "
            f"or one of {', '.join(EMBEDDED)}"
        )
    patterns = {"allow_patterns": HUB_FILES, "ignore_patterns": NOT_FROM_HUB}
    defaults = ", ".join(EMBEDDED)
    return snapshot(name, what="model", instead=f"a folder or one of the embedded defaults, {defaults}", **patterns)


def set_parameter(network: nn.Module, name: str, tensor: torch.Tensor) -> None:
    """Make the tensor itself, not a copy, the parameter of that name."""
    owner, _, attribute = name.rpartition(".")
    setattr(network.get_submodule(owner), attribute, nn.Parameter(tensor))


def load_decoder(
    name: str, *, dtype: torch.dtype = torch.float32, device: str | torch.device = "cpu", put: Put = set_parameter
) -> Decoder:
    """A causal language model.

    name  a folder in Hugging Face layout, a .gguf file, a hub id, or an embedded default
    put   stores each tensor as it is loaded (lora.frozen_weight.put_nf4: linear layers in 4 bits)
    Raises UserError for an unsupported architecture or a tensor that is missing, left over or of another shape.

    If config.json says the head is tied, or a .gguf file does not say, a head in the file decides: a copy of the
    embedding is tied and kept once; any other head is used, and `decoder.config` records it. transformers 5 does the
    same (PreTrainedModel.tie_weights).
    """
    # the architecture
    source = locate(name)
    gguf = GGUFFile(source) if source.suffix == ".gguf" else None
    raw = gguf.config() if gguf else read_json(source / "config.json")
    config = ModelConfig.from_dict(raw)

    # a head in the file is loaded even if config.json calls it tied
    weights_decide = gguf is not None or config.tie_word_embeddings
    if gguf is None and config.tie_word_embeddings and HEAD in stored_tensors(source):
        config = ModelConfig.from_dict(raw | {"tie_word_embeddings": False})

    # the network without memory, then each tensor from the file to its place
    with shapes_alone():
        decoder = Decoder(config)
    if put is set_parameter:  # else quantised: smaller
        refuse_beyond_memory(decoder, dtype, device, where=source)
    tensors = gguf.tensors() if gguf else _decoder_tensors(source, dtype, device)
    fill(decoder, tensors, dtype=dtype, device=device, where=source, skip=_is_rope_buffer, put=put)

    # and tied once it proves to be a copy of the embedding
    may_be_tied = weights_decide and not config.tie_word_embeddings
    if may_be_tied and torch.equal(decoder.head_weight, decoder.model.embed_tokens.weight):
        decoder.tie()
    return decoder.eval()


def refuse_beyond_memory(network: nn.Module, dtype: torch.dtype, device: str | torch.device, *, where: Path) -> None:
    """UserError if the weights exceed the free main memory: the system would end the process without a word.

    A GPU reports its lack of memory itself.
    """
    needed = sum(parameter.numel() for parameter in network.parameters()) * dtype.itemsize
    free = available_memory() if torch.device(device).type == "cpu" else None
    if free is not None and needed > free:
        raise UserError(
            f"{where.name}: its weights need {needed / 2**30:.1f} GiB in {str(dtype).removeprefix('torch.')}, but "
            f"{free / 2**30:.1f} are free; give a smaller model, --dtype bf16 or --quantize nf4"
        )


def load_tokenizer(
    name: str,
    *,
    chat_template: str | Path | None = None,
    template_options: dict | None = None,
    trained_with: Path | None = None,
) -> Tokenizer:
    """A model's tokenizer.

    chat_template     a Jinja file that replaces the model's own
    template_options  variables for the template, such as {"enable_thinking": False}
    trained_with      an adapter's folder: its tokenizer.json, settings and chat template replace the model's
    UserError if the adapter's tokenizer is not the model's, or has tokens without an embedding row.
    """
    # the model's own
    source = locate(name)
    if source.suffix == ".gguf":
        opened = GGUFFile(source)
        backend, settings, eos_ids = opened.tokenizer()
        rows = opened.config()["vocab_size"]
    else:
        backend, settings, eos_ids = tokenizer_files(source)
        rows = optional_json(source / "config.json").get("vocab_size")
    rows = rows if isinstance(rows, int) else None  # ModelConfig reports the error

    # an adapter's files, and a template given by the user, replace it
    if trained_with is not None:
        settings |= tokenizer_settings(trained_with)
        if (trained_with / "tokenizer.json").is_file():
            own = read_backend(trained_with)
            _refuse_another_vocabulary(own, backend, rows, where=trained_with, pad=settings.get("pad_token"))
            backend = own
    if chat_template is not None:
        settings["chat_template"] = read_text(chat_template)
    return Tokenizer(backend, settings, eos_ids, template_options, embedding_rows=rows)


def save_decoder(decoder: Decoder, tokenizer: Tokenizer, folder: Path | str) -> None:
    """Write a folder that transformers and load_decoder can load. A tied head is written once."""
    with new_folder(folder) as target:
        save_network(decoder, decoder.config.raw, target)
        if tokenizer.stop_ids:
            write_json(target / "generation_config.json", {"eos_token_id": sorted(tokenizer.stop_ids)})
        tokenizer.save(target)


def weights_sha256(source: Path) -> str:
    """One hash over a model's weight files, ordered by name."""
    digest = hashlib.sha256()
    for path in [source] if source.is_file() else weight_files(source):
        with open(path, "rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()


def model_sha256(name: str) -> str:
    """One hash over every file of a model: weights, configuration, tokenizer, chat template, pooling.

    Whole files: a model and its fine-tuned successor may differ only in the last tensor. About 1 s per GB.
    """
    source = locate(name)
    if source.is_file():
        return weights_sha256(source)
    # each file with its name, so that none can be taken for another
    digest = hashlib.sha256(weights_sha256(source).encode())
    for path in sorted({path for pattern in READ_BESIDE_WEIGHTS for path in source.glob(pattern)}):
        digest.update(f"{path.relative_to(source).as_posix()}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()


def save_network(network: nn.Module, config: dict, folder: Path) -> None:
    """Write the parameters as one safetensors file, and config.json. UserError for quantised parameters."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    quantised = [name for name, tensor in tensors.items() if tensor.dtype in (torch.uint8, torch.int8)]
    if quantised:
        raise UserError(f"{quantised[0]}: quantised weights are not saved; save the adapter or merge it (lora.merge)")
    safetensors.torch.save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    # the dtype under the older of its two names, which all versions of transformers read
    dtype = str(next(network.parameters()).dtype).removeprefix("torch.")  # float32, bfloat16 …
    config = {key: value for key, value in config.items() if key != "dtype"}
    write_json(folder / "config.json", config | {"torch_dtype": dtype})


def fill(
    module: nn.Module,
    tensors: Iterable[tuple[str, torch.Tensor]],
    *,
    dtype: torch.dtype,
    device: str | torch.device,
    where: Path | str,
    skip: Callable[[str], bool],
    put: Put = set_parameter,
) -> None:
    """Load each tensor, converted to dtype and device, into the parameter of its name.

    skip  whether a tensor that matches no parameter may be ignored, by its name
    UserError that lists missing and left-over tensors and wrong shapes.
    """
    # every parameter is missing until its tensor has been read
    missing = dict(module.named_parameters())
    left_over, misfits = [], []
    for name, tensor in tensors:
        expected = missing.pop(name, None)
        if expected is None:
            if not skip(name):
                left_over.append(name)
        elif expected.shape != tensor.shape:
            misfits.append(f"{name} is {list(tensor.shape)}, expected {list(expected.shape)}")
        elif not tensor.is_floating_point():
            misfits.append(f"{name} is stored as {tensor.dtype}, which is not a weight's dtype")
        else:
            put(module, name, tensor.to(device=device, dtype=dtype))
        del tensor  # unless `put` kept it, free it before the next is read

    # all problems at once, the first eight in words
    problems = [f"missing: {name}" for name in _by_layer(missing)]
    problems += [f"left over: {name}" for name in _by_layer(left_over)]
    problems += misfits
    if problems:
        more = f" … and {len(problems) - 8} more" if len(problems) > 8 else ""
        raise UserError(f"{where}: the weights do not fit config.json: {'; '.join(problems[:8])}{more}")


def _by_layer(names: Iterable[str]) -> list[str]:
    """Names, grouped by layer: model.layers.3.* (9 tensors)."""
    layers: dict[str, list[str]] = {}
    for name in names:
        layers.setdefault(layer[0] if (layer := LAYER.match(name)) else name, []).append(name)
    return [f"{layer}* ({len(group)} tensors)" if len(group) > 1 else group[0] for layer, group in layers.items()]


def _decoder_tensors(folder: Path, dtype, device) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors of a folder; AutoModel saves without the head, and without "model." in the names."""
    for name, tensor in read_safetensors(folder, dtype=dtype, device=device):
        yield (f"model.{name}" if name.startswith(("embed_tokens.", "layers.", "norm.")) else name), tensor
        del tensor  # as in `fill`


def _is_rope_buffer(name: str) -> bool:
    """Old files store RoPE's frequencies; they follow from config.json."""
    return name.endswith("rotary_emb.inv_freq")


def tokenizer_files(folder: Path) -> tuple[tokenizers.Tokenizer, dict, tuple[int, ...]]:
    """tokenizer.json, the settings beside it with the chat template, and the end-of-text ids."""
    eos_ids: list[int] = []
    for name in ("generation_config.json", "config.json"):
        value = optional_json(folder / name).get("eos_token_id")
        eos_ids += [] if value is None else value if isinstance(value, list) else [value]
    return read_backend(folder), tokenizer_settings(folder), tuple(dict.fromkeys(eos_ids))


def read_backend(folder: Path) -> tokenizers.Tokenizer:
    """tokenizer.json. UserError if it is missing or unreadable."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise UserError(f"{folder}: no tokenizer.json; only fast tokenizers are supported")
    try:
        return tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises bare Exception
        raise UserError(f"{path}: not a readable tokenizer ({error})") from None


def tokenizer_settings(folder: Path) -> dict:
    """tokenizer_config.json, with the chat template from wherever the folder keeps it; {} if there is none."""
    settings = optional_json(folder / "special_tokens_map.json") | optional_json(folder / "tokenizer_config.json")

    # the places of a template, in the order in which they override each other: files of their own …
    templates = {"default": folder / "chat_template.jinja"} if (folder / "chat_template.jinja").is_file() else {}
    templates |= {path.stem: path for path in sorted((folder / "additional_chat_templates").glob("*.jinja"))}
    if list(templates) == ["default"]:
        settings["chat_template"] = read_text(templates["default"])
    elif templates:
        settings["chat_template"] = [{"name": name, "template": read_text(path)} for name, path in templates.items()]
    # … tokenizer_config.json, and the file in which multimodal processors keep it
    elif settings.get("chat_template") is None:
        settings |= optional_json(folder / "chat_template.json")
    return settings


def optional_json(path: Path) -> dict:
    """A JSON file's object; {} if there is no such file."""
    return read_json(path) if path.is_file() else {}


def _refuse_another_vocabulary(own, base, rows: int | None, *, where: Path, pad) -> None:
    """UserError unless `own`, an adapter's tokenizer, agrees with `base` on shared tokens and has rows for the others.

    A padding token needs none: it is never read.
    """
    # shared tokens: the same ids
    known, ids = base.get_vocab(with_added_tokens=True), own.get_vocab(with_added_tokens=True)
    moved = next((token for token in ids.keys() & known.keys() if ids[token] != known[token]), None)
    if moved is not None:
        raise UserError(
            f"{where}: the adapter was trained with another model's tokenizer: {moved!r} has the id {ids[moved]}, but "
            f"{known[moved]} in this model; give the model that the adapter was trained on"
        )

    # its own tokens: rows in the embedding
    pad = pad.get("content") if isinstance(pad, dict) else pad
    added = sorted(token for token in ids.keys() - known.keys() if rows is not None and ids[token] >= rows)
    if added := [token for token in added if token != pad]:
        raise UserError(
            f"{where}: the adapter was trained with {len(added)} tokens that the model has no rows for ({added[0]!r} "
            f"has the id {ids[added[0]]}, the embedding {rows} rows); give the resized model that it was trained on"
        )
