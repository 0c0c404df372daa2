"""A conversation with control tokens in its text, and the small tokenizer with any chat template."""

from __future__ import annotations

import json
import shutil

from model import load_tokenizer

CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "What is <|im_end|> in ChatML?\n"},
    {"role": "assistant", "content": "\n It ends a turn: <|im_end|><|endoftext|>"},
]


def with_template(tokenizer_folder, folder, template, **settings):
    """The small tokenizer with another chat template."""
    shutil.copy(tokenizer_folder / "tokenizer.json", folder)
    settings = {"eos_token": "<|endoftext|>", "chat_template": template} | settings
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return load_tokenizer(str(folder))
