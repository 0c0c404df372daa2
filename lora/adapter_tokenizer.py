"""The tokenizer and the chat template that an adapter was trained with.

trl, unsloth and axolotl save both in the adapter's folder: a base model often has no template, or another one, and an
adapter prompted in a format that it was not trained on answers badly without any error.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from lora.adapter_file import read_provenance
from model import load_tokenizer
from model.tokenizer import Tokenizer
from model.weights import tokenizer_settings

FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja", "chat_template.json",
    "additional_chat_templates",
)  # fmt: skip


def load_trained_tokenizer(
    model: str, adapter: Path | str | None, *, chat_template: str | Path | None = None
) -> Tokenizer:
    """The tokenizer of `model` as the adapter was trained with it; without an adapter, the model's own.

    chat_template  a Jinja file that overrides every other template
    The adapter's tokenizer, special tokens and template override the model's; a template that overrides another is
    named on stderr. Raises UserError as load_tokenizer does, and for a tokenizer of another model.
    """
    # without an adapter, the model's own
    base = load_tokenizer(model, chat_template=chat_template)
    folder = Path(adapter) if adapter is not None else None
    if folder is None or not folder.is_dir():
        return base

    # the template: the user's, one in the adapter's folder, or the file that its training was given
    template = chat_template
    if template is None and "chat_template" not in tokenizer_settings(folder):
        template = read_provenance(folder).get("settings", {}).get("chat_template")
    if template == chat_template and not any((folder / name).exists() for name in FILES):
        return base

    # the tokenizer, and a word on a template that is not the model's own
    tokenizer = load_tokenizer(model, chat_template=template, trained_with=folder)
    if tokenizer.chat_templates != base.chat_templates:
        replaced = "the model has none" if base.chat_template is None else "overrides the model's own"
        print(f"template {template or folder}: the adapter was trained with it; {replaced}", file=sys.stderr)
    return tokenizer


def copy_tokenizer_files(source: Path, target: Path) -> None:
    """Copy the files that `load_trained_tokenizer` reads from one adapter's folder to another."""
    for name in FILES:
        if (source / name).is_dir():
            shutil.copytree(source / name, target / name)
        elif (source / name).is_file():
            shutil.copyfile(source / name, target / name)
