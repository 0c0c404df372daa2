from __future__ import annotations

import dataclasses
import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from common.console import UserError
from model import load_decoder, load_tokenizer, save_decoder
from model.export.gguf import write_gguf
from model.weights import locate


@pytest.fixture
def folder(tiny_folder, tmp_path):
    """A copy of the tiny model to damage."""
    return Path(shutil.copytree(tiny_folder, tmp_path / "model"))


def change_tensors(folder, change) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


NORM = "model.layers.1.input_layernorm.weight"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda t: t.pop(NORM), f"missing: {NORM}"),
        (lambda t: t.update({"model.layers.7.mlp.extra": torch.zeros(1)}), "left over: model.layers.7.mlp.extra"),
        (lambda t: t.update({NORM: torch.zeros(5)}), r"\[5\], expected \[48\]"),
    ],
)
def test_every_name_and_shape_is_accounted_for(folder, change, named):
    change_tensors(folder, change)
    with pytest.raises(UserError, match=named):
        load_decoder(str(folder))


def test_what_is_missing_and_left_over_is_listed_by_layer(folder):
    def move_a_layer(tensors):
        for name in [name for name in tensors if name.startswith("model.layers.1.")]:
            tensors[name.replace("layers.1.", "layers.9.")] = tensors.pop(name)
        tensors["vision_tower.patch.weight"] = torch.zeros(2)

    change_tensors(folder, move_a_layer)
    with pytest.raises(UserError) as refused:
        load_decoder(str(folder))
    said = str(refused.value).partition("config.json: ")[2].split("; ")
    count = re.search(r"missing: model\.layers\.1\.\* \((\d+) tensors\)", said[0])
    assert count and int(count[1]) > 10
    assert set(said[1:]) == {
        f"left over: model.layers.9.* ({count[1]} tensors)",
        "left over: vision_tower.patch.weight",
    }


def test_a_folder_of_the_network_without_its_head_is_read(folder, tiny):
    """AutoModel.save_pretrained writes names without "model."; a tied head lacks nothing."""
    from transformers import AutoModel

    AutoModel.from_pretrained(folder).save_pretrained(folder / "base")
    names = load_file(folder / "base" / "model.safetensors")
    assert "embed_tokens.weight" in names and not any(name.startswith("model.") for name in names)
    ids = torch.arange(3, 20)[None]
    assert torch.equal(load_decoder(str(folder / "base"))(ids), tiny(ids))


@pytest.mark.parametrize("kind", ["llava", "qwen2_vl", "gemma3"])
def test_a_multimodal_model_is_refused_by_name(folder, kind):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({"model_type": kind, "text_config": config, "vision_config": {}}))
    with pytest.raises(UserError, match=f"'{kind}'"):
        load_decoder(str(folder))


def test_a_truncated_file_is_named(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"model\.safetensors: damaged"):
        load_decoder(str(folder))


def test_a_pickled_file_is_never_loaded(folder):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"whatever")
    with pytest.raises(UserError, match="pickle and is never loaded"):
        load_decoder(str(folder))


def test_shards_load_as_one_model(folder, tiny):
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    for i in range(2):
        save_file({name: tensors[name] for name in names[i::2]}, folder / f"model-0000{i + 1}-of-00002.safetensors")
    ids = torch.arange(3, 20)[None]
    assert torch.equal(load_decoder(str(folder))(ids), tiny(ids))


def test_a_tied_head_is_saved_once(tiny, tokenizer, tmp_path):
    save_decoder(tiny, tokenizer, tmp_path / "saved")
    assert "lm_head.weight" not in load_file(tmp_path / "saved" / "model.safetensors")
    ids = torch.arange(3, 20)[None]
    assert torch.equal(load_decoder(str(tmp_path / "saved"))(ids), tiny(ids))


HEAD = "lm_head.weight"
WORDS = torch.arange(3, 20)[None]


@pytest.fixture
def other_head(folder):
    """config.json says that the head is tied, and the file has another one."""
    assert json.loads((folder / "config.json").read_text())["tie_word_embeddings"] is True
    change_tensors(folder, lambda t: t.update({HEAD: torch.randn(t["model.embed_tokens.weight"].shape)}))
    return folder


def test_a_head_that_differs_from_the_embedding_is_used_although_the_config_ties_them(other_head, tiny, tokenizer):
    from transformers import AutoModelForCausalLM

    decoder = load_decoder(str(other_head))
    theirs = AutoModelForCausalLM.from_pretrained(other_head, dtype=torch.float32).eval()
    torch.testing.assert_close(decoder(WORDS), theirs(WORDS).logits, atol=1e-4, rtol=0)
    assert not torch.allclose(decoder(WORDS), tiny(WORDS), atol=0.1)
    save_decoder(decoder, tokenizer, other_head / "saved")
    again = load_decoder(str(other_head / "saved"))
    assert torch.equal(again(WORDS), decoder(WORDS)) and not again.config.tie_word_embeddings
    theirs = AutoModelForCausalLM.from_pretrained(other_head / "saved", dtype=torch.float32).eval()
    torch.testing.assert_close(theirs(WORDS).logits, decoder(WORDS), atol=1e-4, rtol=0)


def test_an_untied_head_is_found_in_another_shard(other_head):
    tensors = load_file(other_head / "model.safetensors")
    (other_head / "model.safetensors").unlink()
    head = tensors.pop(HEAD)
    save_file({HEAD: head}, other_head / "model-00001-of-00002.safetensors")
    save_file(tensors, other_head / "model-00002-of-00002.safetensors")
    assert torch.equal(load_decoder(str(other_head)).head_weight, head)


def test_an_untied_head_reaches_a_gguf_file_and_a_merged_folder(other_head, tmp_path):
    from lora.adapter import adapter_in_use
    from lora.adapter_file import load_adapter, save_adapter
    from lora.inject import inject
    from lora.merge import merge

    decoder = load_decoder(str(other_head))
    write_gguf(decoder, load_tokenizer(str(other_head)), tmp_path / "model.gguf", type="f32", name="x")
    torch.testing.assert_close(load_decoder(str(tmp_path / "model.gguf"))(WORDS), decoder(WORDS))
    inject(decoder, r=2, alpha=4, targets=["q_proj"])
    for layer in adapter_in_use(decoder).values():
        torch.nn.init.normal_(layer.lora_B.weight)
    save_adapter(decoder, tmp_path / "adapter", base_model="x", task_type="CAUSAL_LM")
    assert torch.equal(decoder.head_weight, load_file(other_head / "model.safetensors")[HEAD])
    merge(str(other_head), tmp_path / "adapter", tmp_path / "merged", dtype="fp32")
    torch.testing.assert_close(load_decoder(str(tmp_path / "merged"))(WORDS), decoder(WORDS), atol=1e-5, rtol=1e-4)
    from_gguf = load_decoder(str(tmp_path / "model.gguf"))
    load_adapter(from_gguf, tmp_path / "adapter")
    torch.testing.assert_close(from_gguf(WORDS), decoder(WORDS))


def test_a_head_of_another_size_is_refused_by_name(folder):
    change_tensors(folder, lambda t: t.update({HEAD: torch.zeros(7, 48)}))
    with pytest.raises(UserError, match=r"lm_head\.weight is \[7, 48\], expected \[400, 48\]"):
        load_decoder(str(folder))


def test_a_copy_of_the_embedding_is_a_tied_head_kept_and_saved_once(folder, tiny, tokenizer, tmp_path):
    change_tensors(folder, lambda t: t.update({HEAD: t["model.embed_tokens.weight"].clone()}))
    decoder = load_decoder(str(folder))
    assert decoder.head_weight is decoder.model.embed_tokens.weight and torch.equal(decoder(WORDS), tiny(WORDS))
    save_decoder(decoder, tokenizer, tmp_path / "saved")
    assert HEAD not in load_file(tmp_path / "saved" / "model.safetensors")
    raw = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(raw | {"tie_word_embeddings": False}))
    untied = load_decoder(str(folder))  # as the file says: the two may be trained apart
    assert untied.head_weight is not untied.model.embed_tokens.weight
    write_gguf(untied, tokenizer, tmp_path / "two.gguf", type="f32", name="x")
    assert load_decoder(str(tmp_path / "two.gguf")).config.tie_word_embeddings


def test_stop_ids_that_only_the_generation_config_names_are_kept(tiny, tokenizer_folder, tmp_path, monkeypatch):
    shutil.copytree(tokenizer_folder, tmp_path / "source")
    (tmp_path / "source" / "generation_config.json").write_text('{"eos_token_id": [7, 9]}')
    raw = {key: value for key, value in tiny.config.raw.items() if key != "eos_token_id"}
    monkeypatch.setattr(tiny, "config", dataclasses.replace(tiny.config, eos_token_ids=(), raw=raw))
    source = load_tokenizer(str(tmp_path / "source"))
    save_decoder(tiny, source, tmp_path / "saved")
    assert {7, 9} < load_tokenizer(str(tmp_path / "saved")).stop_ids == source.stop_ids


def test_an_unknown_model_name_lists_the_alternatives():
    for name in ("nosuchmodel", "./no/such/folder", "missing.gguf"):
        with pytest.raises(UserError, match="smollm2-135m"):
            locate(name)


def test_a_broken_tokenizer_is_named(folder):
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match=r"tokenizer\.json"):
        load_tokenizer(str(folder))
