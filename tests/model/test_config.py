from __future__ import annotations

import pytest

from common.console import UserError
from model.config import ModelConfig

LLAMA = {
    "model_type": "llama",
    "vocab_size": 100,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-5,
}


def test_old_and_new_files_say_the_rope_base_in_different_places():
    assert ModelConfig.from_dict(LLAMA).rope.theta == 10000
    assert ModelConfig.from_dict(LLAMA | {"rope_theta": 1e6}).rope.theta == 1e6
    new = {"rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}}
    assert ModelConfig.from_dict(LLAMA | new).rope.theta == 5e5


def test_qwen2_has_biases_on_q_k_v_only_and_its_window_may_be_switched_off():
    qwen = LLAMA | {"model_type": "qwen2", "sliding_window": 4096, "max_window_layers": 1}
    config = ModelConfig.from_dict(qwen | {"use_sliding_window": False})
    assert config.qkv_bias and not config.output_bias and config.windows == (None, None)
    assert ModelConfig.from_dict(qwen | {"use_sliding_window": True}).windows == (None, 4096)


def test_gemma3_turns_and_sees_five_layers_of_six_in_a_window():
    gemma = LLAMA | {"model_type": "gemma3_text", "num_hidden_layers": 12, "sliding_window": 512}
    old = {"rope_theta": 1e6, "rope_local_base_freq": 2e4, "rope_scaling": {"rope_type": "linear", "factor": 8.0}}
    new = {
        "rope_parameters": {
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
            "sliding_attention": {"rope_type": "default", "rope_theta": 2e4},
        }
    }
    for rope in (old, new):
        config = ModelConfig.from_dict(gemma | rope)
        assert config.windows == 2 * (512, 512, 512, 512, 512, None)
        assert (config.rope.theta, config.rope.factor) == (1e6, 8.0)
        assert (config.local_rope.theta, config.local_rope.factor) == (2e4, 1.0)
    assert config.tie_word_embeddings and config.norm_offset == 1 and config.embedding_scale == 8


def test_the_configurations_that_models_of_the_field_publish_are_read():
    deepseek_coder = {"rope_theta": 100000, "rope_scaling": {"factor": 4.0, "type": "linear"}, "hidden_act": "silu"}
    assert ModelConfig.from_dict(LLAMA | deepseek_coder).rope.factor == 4
    smollm2 = {"is_llama_config": True, "rope_interleaved": False, "transformers.js_config": {"dtype": "q4"}}
    ModelConfig.from_dict(LLAMA | smollm2)
    qwen_yarn = {"rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}}
    rope = ModelConfig.from_dict(LLAMA | qwen_yarn | {"model_type": "qwen2", "use_mrope": False}).rope
    assert rope.trained_positions == 32768 and abs(rope.attention_factor - 1.13863) < 1e-5
    codegemma = {"hidden_act": "gelu_pytorch_tanh", "hidden_activation": "gelu_pytorch_tanh", "head_dim": 256}
    assert ModelConfig.from_dict(LLAMA | codegemma | {"model_type": "gemma"}).head_dim == 256
    dynamic = {"rope_scaling": {"type": "dynamic", "factor": 2.0}}
    assert ModelConfig.from_dict(LLAMA | dynamic).max_tokens == 1024


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"model_type": "mamba"}, "mamba"),
        ({"model_type": "gemma3", "vision_config": {}}, "gemma3"),
        ({"rope_scaling": {"rope_type": "longrope", "factor": 4.0}}, "longrope"),
        ({"rope_scaling": {"rope_type": "linear"}}, "factor"),
        ({"rope_scaling": {"rope_type": "linear", "factor": 2.0, "beta_fast": 4}}, "beta_fast"),
        ({"rope_parameters": {"rope_type": "llama3", "factor": 8.0, "high_freq_factor": 4}}, "low_freq_factor"),
        ({"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}}, "partial_rotary_factor"),
        ({"hidden_act": "gelu_pytorch_tanh"}, "hidden_act"),
        ({"hidden_act": ["silu"]}, "hidden_act"),
        ({"scale_of_something": 0}, "scale_of_something"),
        ({"num_key_value_heads": 3}, "cannot share 3 key heads evenly"),
        ({"head_dim": "wide"}, "head_dim='wide'"),
        ({"model_type": "gemma2"}, "sliding_window is missing"),
        ({"model_type": "gemma2", "hidden_activation": "silu"}, "hidden_activation"),
        ({"model_type": "gemma3_text", "attn_logit_softcapping": 50.0}, "attn_logit_softcapping"),
        ({"model_type": "gemma3_text", "use_bidirectional_attention": True}, "use_bidirectional_attention"),
        ({"attention_dropout": 0.1}, "attention_dropout"),
        ({"sliding_window": 4096}, "sliding_window"),
        ({"final_logit_softcapping": 30.0}, "final_logit_softcapping"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        ({"vocab_size": None}, "vocab_size"),
        ({"hidden_size": "64"}, "hidden_size"),
        ({"num_hidden_layers": 0}, "num_hidden_layers"),
        ({"model_type": "qwen2", "layer_types": ["full_attention", "linear_attention"]}, "linear_attention"),
        ({"model_type": "qwen2", "layer_types": ["full_attention"]}, "1 layers, not 2"),
    ],
)
def test_what_changes_the_arithmetic_and_is_not_implemented_is_refused_by_name(change, named):
    with pytest.raises(UserError, match=named):
        ModelConfig.from_dict(LLAMA | change)
