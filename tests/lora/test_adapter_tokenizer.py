"""What an adapter was trained with, every command that loads it uses: tokenizer, special tokens and chat template."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Tokenizer

import chat
import lora.check
import train_sft
from common.console import UserError
from eval.model_options import add_model_options, asked_model
from lora.adapter_file import load_adapter, save_adapter
from lora.adapter_tokenizer import load_trained_tokenizer
from lora.inject import inject
from lora.merge import merge
from model import load_decoder, load_tokenizer

THEIRS = "{% for m in messages %}### {{ m.role }}\n{{ m.content }}{{ eos_token }}\n{% endfor %}"
RENDERED = "### user\nhi<|endoftext|>\n"
HI = [{"role": "user", "content": "hi"}]


def settings_with(folder: Path, **settings) -> None:
    path = folder / "tokenizer_config.json"
    known = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps({k: v for k, v in (known | settings).items() if v is not None}))


WAYS = {  # how other tools leave a template in an adapter's folder
    "a file": lambda folder: (folder / "chat_template.jinja").write_text(THEIRS),
    "a setting": lambda folder: settings_with(folder, chat_template=THEIRS),
    "named": lambda folder: settings_with(folder, chat_template=[{"name": "default", "template": THEIRS}]),
    "a processor's": lambda folder: (folder / "chat_template.json").write_text(json.dumps({"chat_template": THEIRS})),
    "a run's": lambda folder: (folder / "tritune.json").write_text(
        json.dumps({"settings": {"chat_template": str(folder.parent / "theirs.jinja")}})
    ),
}


@pytest.fixture
def base(tiny_folder, tmp_path):
    """A base model without a chat template."""
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "base"))
    settings_with(folder, chat_template=None)
    return folder


@pytest.fixture
def adapter(tiny_folder, tmp_path):
    (tmp_path / "theirs.jinja").write_text(THEIRS)
    network = load_decoder(str(tiny_folder))
    inject(network, r=2, alpha=4, targets=["q_proj"])
    save_adapter(network, tmp_path / "adapter", base_model="tiny", task_type="CAUSAL_LM")
    return tmp_path / "adapter"


def model_options(model, **options) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model")
    add_model_options(parser)
    flags = [part for name, value in options.items() for part in ("--" + name.replace("_", "-"), str(value))]
    return parser.parse_args(["--model", str(model), *flags])


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("has_template", [False, True])
def test_every_command_asks_an_adapter_as_it_was_trained(way, has_template, base, tiny_folder, adapter, capsys):
    model = str(tiny_folder if has_template else base)
    WAYS[way](adapter)
    with asked_model(model_options(model, adapter=adapter)) as (_, tokenizer):
        assert tokenizer.render(HI) == RENDERED
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "adapter was trained with" in said
    assert ("in place of the model's own" if has_template else "the model has none") in said
    voices = chat.tokenizers_of(model, {"tuned": adapter}, None)
    assert voices["tuned"].render(HI) == RENDERED
    own = load_tokenizer(model).render(HI) if has_template else RENDERED  # a base without one is asked as the adapter
    assert voices["base"].render(HI) == own
    merge(model, adapter, adapter.parent / "merged")
    assert load_tokenizer(str(adapter.parent / "merged")).render(HI) == RENDERED


def test_a_template_that_the_user_gives_comes_first(base, adapter, tmp_path, capsys):
    WAYS["a file"](adapter)
    (tmp_path / "mine.jinja").write_text("{{ messages[0].content }}!")
    with asked_model(model_options(base, adapter=adapter, chat_template=tmp_path / "mine.jinja")) as (_, tokenizer):
        assert tokenizer.render(HI) == "hi!"
    with asked_model(model_options(base, chat_template=tmp_path / "mine.jinja")) as (_, tokenizer):  # the base alone
        assert tokenizer.render(HI) == "hi!"
    voices = chat.tokenizers_of(str(base), {"tuned": adapter}, str(tmp_path / "mine.jinja"))
    assert {tokenizer.render(HI) for tokenizer in voices.values()} == {"hi!"}
    assert capsys.readouterr().err == ""


def test_an_adapter_s_end_token_is_the_one_in_its_template(tiny_folder, adapter):
    WAYS["a file"](adapter)
    settings_with(adapter, eos_token="<|im_end|>")
    tokenizer = load_trained_tokenizer(str(tiny_folder), adapter)
    assert tokenizer.render(HI) == "### user\nhi<|im_end|>\n"
    assert tokenizer.eos_id == tokenizer.control_tokens["<|im_end|>"]


def add_tokens(folder: Path, source: Path, *tokens: str) -> None:
    backend = Tokenizer.from_file(str(source / "tokenizer.json"))
    backend.add_tokens([AddedToken(token, special=True, normalized=False) for token in tokens])
    backend.save(str(folder / "tokenizer.json"))


def test_added_tokens_are_read_where_the_base_has_rows_for_them(tiny_folder, adapter):
    add_tokens(adapter, tiny_folder, "<tool>")
    (adapter / "chat_template.jinja").write_text("<tool>{{ messages[0].content }}")
    tokenizer = load_trained_tokenizer(str(tiny_folder), adapter)
    (marked, _) = tokenizer.encode_segments(tokenizer.segments(HI))
    assert len(marked) == 1 and marked[0] in load_tokenizer(str(tiny_folder)).unused_ids


def test_tokens_beyond_the_base_are_refused_unless_they_only_pad(tiny_folder, adapter, tmp_path):
    new = [f"<new{i}>" for i in range(100)]
    add_tokens(adapter, tiny_folder, *new)
    for run in (
        lambda: merge(str(tiny_folder), adapter, tmp_path / "out"),
        lambda: chat.tokenizers_of(str(tiny_folder), {"tuned": adapter}, None),
        lambda: asked_model(model_options(tiny_folder, adapter=adapter)).__enter__(),
    ):
        with pytest.raises(UserError, match=r"\d+ tokens that the model has no rows for \('<new\d+>'.* 400 rows"):
            run()
    assert not (tmp_path / "out").exists()
    spare = len(load_tokenizer(str(tiny_folder)).unused_ids)
    add_tokens(adapter, tiny_folder, *new[:spare], "<pad>")
    settings_with(adapter, pad_token="<pad>")
    assert load_trained_tokenizer(str(tiny_folder), adapter).without_row == {400: "<pad>"}


def test_another_model_s_tokenizer_is_refused(tiny_folder, adapter):
    definition = json.loads((tiny_folder / "tokenizer.json").read_text())
    vocabulary = definition["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    (adapter / "tokenizer.json").write_text(json.dumps(definition))
    with pytest.raises(UserError, match=r"another model's tokenizer: '[ab]' has the id"):
        load_trained_tokenizer(str(tiny_folder), adapter)


@pytest.mark.parametrize("name", ["model.embed_tokens", "lm_head"])
def test_embedding_rows_in_an_adapter_are_refused_by_name(tiny, adapter, name):
    """PEFT writes them when the vocabulary was resized, or where the embedding is a target."""
    file = adapter / "adapter_model.safetensors"
    save_file(load_file(file) | {f"base_model.model.{name}.weight": torch.zeros(403, 48)}, file)
    with pytest.raises(UserError, match=rf"{name}\.weight \(a whole weight, such as rows for added tokens: merge it"):
        load_adapter(tiny, adapter)


def test_a_run_s_own_template_goes_with_its_adapter(tiny_folder, tmp_path):
    (tmp_path / "given.jinja").write_text(THEIRS)
    (tmp_path / "pairs.jsonl").write_text(json.dumps({"instruction": "Say x.", "output": "x"}) + "\n")
    given = {"model": tiny_folder, "data": tmp_path / "pairs.jsonl", "out": tmp_path / "run", "r": 2, "max-length": 64}
    given |= {"chat-template": tmp_path / "given.jinja", "epochs": 1}
    train_sft.main([str(part) for name, value in given.items() for part in (f"--{name}", value)])
    (tmp_path / "given.jinja").unlink()
    assert load_trained_tokenizer(str(tiny_folder), tmp_path / "run" / "adapter").render(HI) == RENDERED


def test_a_folded_adapter_keeps_its_tokenizer_and_template(tiny_folder, adapter, tmp_path, monkeypatch):
    WAYS["a file"](adapter)
    add_tokens(adapter, tiny_folder, "<tool>")
    monkeypatch.setattr(sys, "argv", ["lora.check", str(adapter), "--fold", str(tmp_path / "folded")])
    lora.check.main()
    folded = load_trained_tokenizer(str(tiny_folder), tmp_path / "folded")
    assert folded.render(HI) == RENDERED and "<tool>" in folded.control_tokens
