"""What a run writes besides its weights."""

from __future__ import annotations

import hashlib
import json

import peft
import pytest
import torch
from safetensors.torch import load_file
from torch.testing import assert_close
from transformers import AutoModelForCausalLM

import train_embed
import train_sft
from common.console import UserError
from lora.merge import merge
from model import load_decoder


def train(folder, tiny_folder, *more):
    pairs = [{"instruction": f"Add {n}", "output": f"return a + {n}"} for n in range(4)]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    options = {"model": tiny_folder, "data": folder / "pairs.jsonl", "out": folder / "run", "max-length": 64}
    train_sft.main([*(part for name, value in options.items() for part in (f"--{name}", str(value))), *more])
    return folder / "run"


@pytest.fixture(scope="module")
def run_folder(tiny_folder, tmp_path_factory):
    return train(tmp_path_factory.mktemp("sft"), tiny_folder)


def test_the_saved_adapter_records_its_provenance(run_folder, tiny_folder):
    provenance = json.loads((run_folder / "adapter" / "tritune.json").read_text())
    assert provenance.keys() == {"schema", "base", "track", "settings", "metrics", "data", "versions"}
    assert (provenance["schema"], provenance["track"], provenance["base"]) == (1, "sft", str(tiny_folder))
    assert provenance["settings"]["r"] == 16 and not provenance["settings"].keys() & {"out", "device", "model"}
    data = run_folder.parent / "pairs.jsonl"
    expected = {"path": str(data), "sha256": hashlib.sha256(data.read_bytes()).hexdigest(), "rows": 4, "unit": "pairs"}
    assert provenance["data"] == expected
    assert provenance["versions"].keys() >= {"python", "torch", "source_sha256"}


def test_peft_does_not_warn_about_the_extra_file(run_folder, tiny_folder, recwarn):
    base = AutoModelForCausalLM.from_pretrained(tiny_folder)
    recwarn.clear()
    peft.PeftModel.from_pretrained(base, run_folder / "adapter")
    assert not [str(warning.message) for warning in recwarn if "tritune" in str(warning.message)]


def test_the_adapter_is_what_the_options_ask_for(tiny_folder, tmp_path, capsys):
    folder = train(
        tmp_path, tiny_folder, "--r", "4", "--targets", r".*(q_proj|mlp\..*)", "--rank-pattern", "q_proj=2,down_proj=6",
        "--alpha-pattern", "q_proj=3", "--rslora", "--dora", "--lora-plus-ratio", "8", "--dropout", "0.1",
    )  # fmt: skip
    config = json.loads((folder / "adapter" / "adapter_config.json").read_text())
    assert config["target_modules"] == ["down_proj", "gate_proj", "q_proj", "up_proj"]
    assert (config["r"], config["rank_pattern"]) == (4, {"q_proj": 2, "down_proj": 6})
    assert (config["lora_alpha"], config["alpha_pattern"]) == (32, {"q_proj": 3})
    assert config["use_rslora"] and config["use_dora"] and config["lora_dropout"] == 0.1
    assert "adapter  rsLoRA (DoRA) r=2-6 alpha=3-32 on down_proj gate_proj q_proj up_proj" in capsys.readouterr().out
    saved = load_file(folder / "adapter" / "adapter_model.safetensors")
    base = load_decoder(str(tiny_folder), dtype=torch.float32)
    name = "model.layers.0.self_attn.q_proj"
    start = base.get_submodule(name).weight.norm(dim=1)
    magnitude = saved[f"base_model.model.{name}.lora_magnitude_vector"]
    assert 0 < (magnitude - start).abs().max() < 0.1 and saved[f"base_model.model.{name}.lora_B.weight"].abs().max() > 0


def test_a_merged_adapter_cannot_be_merged_again(reference_encoder, tmp_path):
    sentence_transformers = pytest.importorskip("sentence_transformers")
    rows = [{"id": str(n), "query": word, "code": f"zz {word}"} for n, word in enumerate(("ab", "cd", "ef", "gh"))]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = {"model": reference_encoder[1], "data": tmp_path / "pairs.jsonl", "out": tmp_path / "run", "batch": 4}
    train_embed.main(
        [*(part for name, value in options.items() for part in (f"--{name}", str(value))), "--method", "lora", "--dora"]
    )
    adapter, model = tmp_path / "run" / "adapter", tmp_path / "run" / "model"
    with pytest.raises(UserError, match="is already merged into it"):
        merge(str(model), adapter, tmp_path / "twice")
    merge(str(reference_encoder[1]), adapter, tmp_path / "merged", dtype="fp32")
    vectors = [
        sentence_transformers.SentenceTransformer(str(folder), device="cpu").encode(["abc"], convert_to_tensor=True)
        for folder in (model, tmp_path / "merged")
    ]
    assert_close(vectors[0], vectors[1], atol=1e-5, rtol=0)
