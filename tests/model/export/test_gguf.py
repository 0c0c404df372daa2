from __future__ import annotations

import shutil
from pathlib import Path

import gguf
import pytest
import torch
from safetensors.torch import load_file, save_file

from common.console import UserError
from model import load_decoder
from model.export.convert import export
from tests.model.export.families import TRAINED, build


def test_the_file_holds_llama_cpps_layout(tokenizer_folder, tmp_path):
    """Seen through the gguf package alone: Llama's q and k rows in pairs of neighbours, Gemma's norms with 1 added."""
    stored, ours = {}, {}
    for family in ("llama", "gemma2", "qwen3"):
        folder = build(family, tmp_path / family, tokenizer_folder)
        export(str(folder), "gguf", tmp_path / f"{family}-gguf" / "x.gguf", type="f32")
        reader = gguf.GGUFReader(tmp_path / f"{family}-gguf" / "x.gguf")
        stored[family] = {tensor.name: torch.tensor(tensor.data) for tensor in reader.tensors}
        ours[family] = dict(load_decoder(str(folder)).named_parameters())
    q = ours["llama"]["model.layers.1.self_attn.q_proj.weight"].view(4, 32, 64)  # head, row, column
    neighbours = torch.stack([q[:, :16], q[:, 16:]], dim=2).view(128, 64)  # row i of a head, then row i + 16
    assert torch.equal(stored["llama"]["blk.1.attn_q.weight"], neighbours)
    norm = ours["gemma2"]["model.layers.1.pre_feedforward_layernorm.weight"]
    assert torch.equal(stored["gemma2"]["blk.1.ffn_norm.weight"], norm + 1)
    for name in ("q_norm", "q_proj"):  # neither happens to the others
        assert torch.equal(
            stored["qwen3"][f"blk.1.attn_{name.removesuffix('_proj')}.weight"],
            ours["qwen3"][f"model.layers.1.self_attn.{name}.weight"],
        )


@pytest.mark.parametrize(
    ("family", "changes", "named"),
    [
        (
            "llama-yarn",
            {"rope_parameters": {"rope_type": "yarn", "factor": 4.0, "beta_fast": 16.0, **TRAINED}},
            "beta_fast",
        ),
        ("gemma2", {"query_pre_attn_scalar": 20}, "query_pre_attn_scalar=20"),
        ("qwen2", {"head_dim": 32}, "4 heads of 32"),
        ("qwen3", {"attention_bias": True}, "attention_bias"),
        (
            "gemma3",
            {"layer_types": ["full_attention", "full_attention", *["sliding_attention"] * 5]},
            "without a period",
        ),
    ],
)
def test_settings_that_llama_cpp_ignores_are_refused(family, changes, named, tokenizer_folder, tmp_path):
    folder = build(family, tmp_path / "model", tokenizer_folder, **changes)
    load_decoder(str(folder))  # we compute it
    with pytest.raises(UserError, match=named):
        export(str(folder), "gguf", tmp_path / "out" / "x.gguf", type="f32")
    assert not list((tmp_path / "out").iterdir())


def test_rows_that_do_not_divide_into_blocks_are_refused(tokenizer_folder, tmp_path):
    folder = build("llama", tmp_path / "model", tokenizer_folder, intermediate_size=72)
    with pytest.raises(UserError, match=r"ffn_down.*blocks of 32; use --type f16"):
        export(str(folder), "gguf", tmp_path / "x.gguf", type="q8_0")


def test_a_weight_beyond_fp16_is_refused(tiny_folder, tmp_path):
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "model"))
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.0.mlp.up_proj.weight"][0, 0] = 1e5
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(UserError, match=r"ffn_up.* beyond fp16; use --type bf16"):
        export(str(folder), "gguf", tmp_path / "x.gguf", type="f16")
