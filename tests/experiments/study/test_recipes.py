"""Models that were not at hand: their recipes have the study's settings, and their architectures are implemented."""

from __future__ import annotations

from pathlib import Path

import pytest

import train_sft
from common.options import parse_with_recipe
from experiments.study.grid import METHODS, MODELS, TASKS
from model.config import ModelConfig
from training.methods import learning_rates, with_method

RECIPES = Path(__file__).resolve().parents[3] / "recipes"
SHARED = {"hidden_act": "silu", "tie_word_embeddings": False, "rms_norm_eps": 1e-6}
PUBLISHED = {  # what their config.json says, as far as it changes the arithmetic
    "sft_text_qwen3_0.6b": {
        "model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "hidden_size": 1024, "num_hidden_layers": 28,
        "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128, "intermediate_size": 3072,
        "vocab_size": 151936, "max_position_embeddings": 40960, "rope_theta": 1000000, "tie_word_embeddings": True,
        "attention_bias": False, "rope_scaling": None, "sliding_window": None, "use_sliding_window": False,
    },
    "sft_text_tinyllama_1.1b": {
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 2048, "num_hidden_layers": 22,
        "num_attention_heads": 32, "num_key_value_heads": 4, "intermediate_size": 5632, "vocab_size": 32000,
        "max_position_embeddings": 2048, "rope_theta": 10000.0, "rope_scaling": None, "rms_norm_eps": 1e-5,
        "attention_bias": False, "pretraining_tp": 1,
    },
    "sft_text_deepseek_coder_1.3b": {
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 2048, "num_hidden_layers": 24,
        "num_attention_heads": 16, "num_key_value_heads": 16, "intermediate_size": 5504, "vocab_size": 32256,
        "max_position_embeddings": 16384, "rope_theta": 100000, "rope_scaling": {"factor": 4.0, "type": "linear"},
        "pretraining_tp": 1,
    },
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_recipe_has_the_studys_settings(name):
    resolved = parse_with_recipe(
        train_sft.Options, ["--config", str(RECIPES / f"{name}.toml"), "--data", "d", "--validation", "v", "--out", "o"]
    )
    options, task = with_method(resolved, "sft").values, TASKS["trec"]
    assert options.model in MODELS and MODELS[options.model].name not in list(MODELS)[:2]
    assert ("--method", options.method, "--r", str(options.r), "--alpha", f"{options.alpha:g}") == (
        METHODS["lora-8"].arguments
    )
    assert tuple(learning_rates(options.sweep)) == METHODS["lora-8"].rates
    assert (options.max_length, options.step_tokens, options.epochs) == (task.max_length, task.step_tokens, task.epochs)


@pytest.mark.parametrize("name", PUBLISHED)
def test_its_architecture_is_implemented(name):
    assert ModelConfig.from_dict(SHARED | PUBLISHED[name]).hidden_size == PUBLISHED[name]["hidden_size"]
