"""Fold an adapter into its base model: one folder that needs no LoRA code to be used.

    python -m lora.merge --model M --adapter A --out DIR

The update is added in fp32 and cast once. The weights are in memory once, in fp32: 4 bytes a parameter. An adapter
trained over a quantised base is merged into the dequantised matrices that it was trained with, not into the file.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from common.console import UserError, run_command
from common.files import read_json, write_json
from common.options import option, parse
from lora.adapter import remove
from lora.adapter_file import load_adapter, read_provenance
from lora.adapter_tokenizer import load_trained_tokenizer
from lora.frozen_weight import QUANTIZE, dequantise
from model import load_decoder, load_encoder, save_decoder, save_encoder
from model.device import DTYPES, stored_dtype
from model.weights import locate, weights_sha256


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of this command."""

    model: str = option(help="the base: folder, .gguf file, hub id or embedded default")
    adapter: Path = option(help="folder of the adapter of a decoder or an encoder", metavar="DIR")
    out: Path = option(help="folder to write, in Hugging Face layout", metavar="DIR")
    dtype: str = option("auto", "dtype of the weights; auto: the base's", choices=("auto", *DTYPES))
    chat_template: str | None = option(
        None, "Jinja file to save (default: the template the adapter was trained with, else the base's)", metavar="FILE"
    )


def main() -> None:
    """Command line."""
    options = parse(Options, description=__doc__)
    if options.out.exists():
        raise UserError(f"{options.out}: exists already; give another --out")
    merge(options.model, options.adapter, options.out, dtype=options.dtype, chat_template=options.chat_template)
    print(f"merged   {options.out}")


def merge(
    model: str, adapter: Path, out: Path, *, dtype: str = "auto", chat_template: str | Path | None = None
) -> None:
    """Write base + adapter to `out`: for transformers or, if it is an encoder, for sentence-transformers.

    dtype          "auto" (as in the base's config.json, else fp32), "fp32", "bf16" or "fp16"
    chat_template  a Jinja file that replaces the chat template of a decoder
    The tokenizer, chat template, pooling and prefixes are those that the adapter was trained with.
    Also writes tritune.json: the adapter's (training/finish.py), with "merged" naming every adapter in these weights.
    Raises UserError for an adapter already merged into the base, for a method that cannot be merged, for an encoder
    with a chat template, and for all that load_adapter refuses.
    """
    # where the adapter comes from, and the settings of the run that trained it
    provenance = _provenance(locate(model), adapter)
    asked = provenance.get("settings", {})
    is_encoder = read_json(adapter / "adapter_config.json").get("task_type") == "FEATURE_EXTRACTION"
    if is_encoder and chat_template is not None:
        raise UserError(f"--chat-template: {adapter} is an encoder's adapter, which has no chat template")
    tokenizer = load_trained_tokenizer(model, adapter, chat_template=chat_template)

    if is_encoder:
        # an encoder: what the base's files do not specify was an option of that run
        network = load_encoder(
            model,
            pooling=asked.get("pooling"),
            query_prefix=asked.get("query_prefix"),
            passage_prefix=asked.get("passage_prefix"),
            max_length=asked.get("max_length"),
        )
        if tokenizer.backend.get_vocab() != network.tokenizer.backend.get_vocab():
            raise UserError(f"{adapter}: an encoder's adapter with tokens of its own is not merged here; use peft")
        load_adapter(network, adapter)
        remove(network, merge=True)
        save_encoder(network.to(DTYPES[stored_dtype(network.config.raw, dtype)]), out)
    else:
        # a decoder: quantised if that is what the adapter was trained over
        network = load_decoder(model, put=QUANTIZE[asked.get("quantize", "none")])
        load_adapter(network, adapter)
        remove(network, merge=True)
        dequantise(network)  # the layers that the adapter left quantised
        save_decoder(network.to(DTYPES[stored_dtype(network.config.raw, dtype)]), tokenizer, out)
    write_json(out / "tritune.json", {"schema": 1, "base": model} | provenance)


def _provenance(base: Path, adapter: Path) -> dict:
    """The adapter's tritune.json, with this merge added to those that the base has been through."""
    # an adapter is recognised by its matrices, whatever its folder is called now
    digest = weights_sha256(adapter)
    before = read_provenance(base).get("merged", [])
    if any(entry["sha256"] == digest for entry in before):
        raise UserError(f"{base}: {adapter} is already merged into it; give the model that the adapter was trained on")
    return read_provenance(adapter) | {"merged": [*before, {"adapter": str(adapter), "sha256": digest}]}


if __name__ == "__main__":
    sys.exit(run_command(main))
