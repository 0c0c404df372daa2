"""Where weights come from, and that every one of them arrives: strict loading, and saving in Hugging Face's layout.

Only safetensors and GGUF are read; a pickled file (pytorch_model.bin) can run code and is refused. A module is built
without memory, then each tensor goes from the mapped file straight to its dtype and device.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import safetensors
import safetensors.torch
import tokenizers
import torch
from torch import nn

from model.config import EncoderConfig, ModelConfig
from model.console import UserError
from model.decoder import Decoder
from model.embedded import EMBEDDED, fetch_embedded
from model.encoder import Embedding, Encoder
from model.files import new_folder, read_json, write_json
from model.gguf_file import GGUFFile
from model.tokenizer import Tokenizer

HUB_FILES = ["*.json", "*.safetensors", "*.jinja"]

# Models whose own files do not say that they were trained with prefixes (their READMEs do).
NEEDS_PREFIX = ("e5-",)


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
    tensors = gguf.tensors() if gguf else _safetensors(source)
    _fill(decoder, tensors, dtype=dtype, device=device, where=source, skip=_decoder_leftovers(config))
    return decoder.eval()


def load_tokenizer(name: str, *, chat_template: str | Path | None = None) -> Tokenizer:
    """The tokenizer that belongs to a model; `chat_template` is a Jinja file that replaces the model's own."""
    source = locate(name)
    if source.suffix == ".gguf":
        backend, settings, eos_ids = GGUFFile(source).tokenizer()
    else:
        backend, settings, eos_ids = _tokenizer_files(source)
    if chat_template is not None:
        try:
            settings["chat_template"] = Path(chat_template).read_text(encoding="utf-8")
        except OSError as error:
            raise UserError(f"{chat_template}: chat template not readable ({error.strerror})") from None
    return Tokenizer(backend, settings, eos_ids)


def load_encoder(
    name: str,
    *,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
    pooling: str | None = None,
    query_prefix: str | None = None,
    passage_prefix: str | None = None,
    max_length: int | None = None,
) -> Encoder:
    """An embedding model with its tokenizer.

    Pooling, prefixes and length come from the model's own files (modules.json, 1_Pooling, sentence_bert_config.json,
    config_sentence_transformers.json); what is given here takes their place. UserError when neither says.
    """
    source = locate(name)
    config = EncoderConfig.from_dict(read_json(source / "config.json"))
    with torch.device("meta"):
        encoder = Encoder(config)
    _fill(encoder, _safetensors(source), dtype=dtype, device=device, where=source, skip=_is_encoder_leftover)
    encoder.tokenizer = Tokenizer(*_tokenizer_files(source))
    encoder.embedding = _embedding(source, name, config, pooling, query_prefix, passage_prefix, max_length)
    encoder.source = name
    encoder.weights_sha256 = weights_sha256(source)
    return encoder.eval()


def save_decoder(decoder: Decoder, tokenizer: Tokenizer, folder: Path | str) -> None:
    """Write a folder that transformers, and load_decoder, read. A tied head is written once."""
    with new_folder(folder) as target:
        _save_weights(decoder, target)
        write_json(target / "config.json", decoder.config.raw | {"torch_dtype": _dtype_name(decoder)})
        if decoder.config.eos_token_ids:
            write_json(target / "generation_config.json", {"eos_token_id": sorted(tokenizer.stop_ids)})
        tokenizer.save(target)


def save_encoder(encoder: Encoder, folder: Path | str) -> None:
    """Write a folder that sentence-transformers, and load_encoder, read."""
    embedding = encoder.embedding
    with new_folder(folder) as target:
        _save_weights(encoder, target)
        write_json(target / "config.json", encoder.config.raw | {"torch_dtype": _dtype_name(encoder)})
        encoder.tokenizer.save(target)
        (target / "modules.json").write_text(json.dumps(SENTENCE_TRANSFORMERS_MODULES, indent=2) + "\n")
        (target / "1_Pooling").mkdir()
        pooling = {
            "word_embedding_dimension": encoder.config.hidden_size,
            "pooling_mode_cls_token": embedding.pooling == "cls",
            "pooling_mode_mean_tokens": embedding.pooling == "mean",
        }
        write_json(target / "1_Pooling" / "config.json", pooling)
        write_json(
            target / "sentence_bert_config.json", {"max_seq_length": embedding.max_length, "do_lower_case": False}
        )
        prompts = {"query": embedding.query_prefix, "document": embedding.passage_prefix}
        write_json(
            target / "config_sentence_transformers.json",
            {"prompts": prompts, "default_prompt_name": None, "similarity_fn_name": "cosine"},
        )


SENTENCE_TRANSFORMERS_MODULES = [
    {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
    for i, (path, kind) in enumerate([("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")])
]


def weights_sha256(source: Path) -> str:
    """One hash over a model's weight files, in the order of their names."""
    digest = hashlib.sha256()
    for path in [source] if source.is_file() else sorted(source.glob("*.safetensors")):
        with open(path, "rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()


def _save_weights(module: nn.Module, folder: Path) -> None:
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()}
    safetensors.torch.save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def _dtype_name(module: nn.Module) -> str:
    return str(next(module.parameters()).dtype).removeprefix("torch.")


def _safetensors(folder: Path) -> Iterator[tuple[str, torch.Tensor]]:
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


def _fill(module: nn.Module, tensors: Iterable[tuple[str, torch.Tensor]], *, dtype, device, where: Path, skip) -> None:
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


def _is_encoder_leftover(name: str) -> bool:
    """BertModel's pooler and position buffer, and pre-training heads: none takes part in an embedding."""
    return name.startswith(("pooler.", "cls.")) or name == "embeddings.position_ids"


def _tokenizer_files(folder: Path) -> tuple[tokenizers.Tokenizer, dict, tuple[int, ...]]:
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
    if (folder / "chat_template.jinja").is_file():
        settings["chat_template"] = (folder / "chat_template.jinja").read_text(encoding="utf-8")
    if isinstance(settings.get("chat_template"), list):  # several, by name
        settings["chat_template"] = next(
            (t["template"] for t in settings["chat_template"] if t["name"] == "default"), None
        )
    eos_ids: list[int] = []
    for source in ("generation_config.json", "config.json"):
        value = optional[source].get("eos_token_id")
        eos_ids += [] if value is None else value if isinstance(value, list) else [value]
    return backend, settings, tuple(dict.fromkeys(eos_ids))


def _embedding(folder, name, config, pooling, query_prefix, passage_prefix, max_length) -> Embedding:
    def optional(path: str) -> dict:
        return read_json(folder / path) if (folder / path).is_file() else {}

    if pooling is None:
        modes = [
            mode for mode, on in optional("1_Pooling/config.json").items() if on is True and "pooling_mode" in mode
        ]
        known = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls"}
        if len(modes) != 1 or modes[0] not in known:
            said = f"says {', '.join(modes)}" if modes else "is missing"
            raise UserError(f"{folder}: 1_Pooling/config.json {said}; give --pooling mean or --pooling cls")
        pooling = known[modes[0]]
    settings = optional("config_sentence_transformers.json")
    prompts = settings.get("prompts") or {}
    if not prompts and query_prefix is None and any(mark in str(name).lower() for mark in NEEDS_PREFIX):
        raise UserError(
            f"{name}: this model was trained with prefixes that its files do not name; "
            "give --query-prefix 'query: ' --passage-prefix 'passage: '"
        )
    query = prompts.get("query", "") if query_prefix is None else query_prefix
    passage = prompts.get("document", prompts.get("passage", "")) if passage_prefix is None else passage_prefix
    length = max_length or optional("sentence_bert_config.json").get("max_seq_length") or config.max_position_embeddings
    if length > config.max_position_embeddings:
        raise UserError(
            f"{folder}: a length of {length} exceeds the model's {config.max_position_embeddings} positions"
        )
    return Embedding(pooling, query, passage, length)
