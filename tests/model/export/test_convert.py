"""Exports: what was written is read again and equals its source; Ollama's template renders what Jinja does."""

from __future__ import annotations

import json

import pytest
import torch
from torch.testing import assert_close

from common.console import UserError
from model import load_decoder, load_tokenizer
from model.export.convert import export
from tests.commands import run
from tests.model.export.families import FAMILIES, build


@pytest.fixture(scope="module", params=FAMILIES)
def family_folder(request, tmp_path_factory, tokenizer_folder):
    return build(request.param, tmp_path_factory.mktemp(request.param), tokenizer_folder)


def test_f32_gives_the_same_logits_and_every_tensor(family_folder, tmp_path):
    report = export(str(family_folder), "gguf", tmp_path / "out" / "x.gguf", type="f32")
    assert report["comparison"]["max_delta_logit"] < 1e-5  # Gemma's norms go through + 1 - 1
    assert report["comparison"]["top1_agreement"] == 1 and report["comparison"]["positions"] >= 40
    source, again = (load_decoder(str(path)) for path in (family_folder, tmp_path / "out" / "x.gguf"))
    assert dict(source.named_parameters()).keys() == dict(again.named_parameters()).keys()
    for name, parameter in source.named_parameters():
        assert_close(again.get_parameter(name), parameter, atol=1e-6, rtol=0, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("type", ["f16", "bf16", "q8_0"])
def test_smaller_types_stay_within_their_limits(family_folder, tmp_path, type):
    report = export(str(family_folder), "gguf", tmp_path / "x.gguf", type=type)
    assert 0 < report["comparison"]["relative_delta_logit"] < report["comparison"]["limit"]
    assert report["type"] == type


def test_a_folder_gives_transformers_the_same_logits_and_the_same_template(tiny_folder, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    report = export(str(tiny_folder), "hf", tmp_path / "out")
    assert report["comparison"]["max_delta_logit"] == 0
    ids = torch.randint(3, 400, (1, 40))
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
    assert_close(theirs(ids).logits, load_decoder(str(tiny_folder))(ids), atol=1e-5, rtol=0)
    messages = [{"role": "user", "content": " What? "}, {"role": "assistant", "content": "That.\n"}]
    messages.append({"role": "user", "content": "<b>"})
    rendered = AutoTokenizer.from_pretrained(tmp_path / "out").apply_chat_template(
        messages, add_generation_prompt=True, tokenize=False
    )
    assert rendered == load_tokenizer(str(tiny_folder)).render(messages, add_generation_prompt=True)


def test_bf16_is_written_and_reported(tiny_folder, tmp_path):
    report = export(str(tiny_folder), "hf", tmp_path / "out", dtype="bf16")
    assert 0 < report["comparison"]["relative_delta_logit"] < 0.03 and report["type"] == "bf16"
    assert next(load_decoder(str(tmp_path / "out"), dtype=torch.bfloat16).parameters()).dtype == torch.bfloat16
    assert json.loads((tmp_path / "out" / "config.json").read_text())["torch_dtype"] == "bfloat16"


def test_an_encoder_gives_sentence_transformers_the_same_vectors(reference_encoder, tmp_path):
    from sentence_transformers import SentenceTransformer

    from model import load_encoder

    report = export(str(reference_encoder[1]), "sentence-transformers", tmp_path / "out")
    assert report["comparison"]["max_cosine_distance"] < 1e-6
    texts = ["abc def", "a"]
    theirs = torch.tensor(SentenceTransformer(str(tmp_path / "out"), device="cpu").encode(texts))
    assert_close(theirs, load_encoder(str(reference_encoder[1])).encode(texts), atol=1e-5, rtol=0)


def test_an_adapter_must_be_merged_first(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(UserError, match=r"python -m lora\.merge"):
        export(str(tmp_path), "hf", tmp_path / "out")


def test_an_encoder_is_not_exported_as_a_decoder(reference_encoder, tmp_path):
    with pytest.raises(UserError, match=r"is an encoder \(bert\); use --to sentence-transformers"):
        export(str(reference_encoder[1]), "gguf", tmp_path / "x.gguf")
    with pytest.raises(UserError, match=r"a \.gguf file, which cannot hold an encoder"):
        export("smollm2-135m", "sentence-transformers", tmp_path / "out")


def test_existing_files_are_not_overwritten(tiny_folder, tmp_path):
    (tmp_path / "README.md").write_text("mine")
    with pytest.raises(UserError, match=r"README\.md: exists already"):
        export(str(tiny_folder), "gguf", tmp_path / "x.gguf", type="f16")
    assert (tmp_path / "README.md").read_text() == "mine"


def test_the_command_reports_what_it_wrote(tiny_folder, tmp_path):
    done = run("-m", "model.export", tiny_folder, "--to", "gguf", "--type", "f16", "--out", tmp_path / "x.gguf")
    assert done.returncode == 0, done.stderr
    assert f"wrote    {tmp_path / 'x.gguf'} · f16" in done.stdout
    assert sorted(p.name for p in tmp_path.iterdir()) == ["Modelfile", "README.md", "export_report.json", "x.gguf"]
    wrong = run("-m", "model.export", tiny_folder, "--to", "gguf", "--out", tmp_path / "x.bin")
    assert wrong.returncode == 2 and wrong.stderr.count("\n") == 1 and "ends in .gguf" in wrong.stderr
