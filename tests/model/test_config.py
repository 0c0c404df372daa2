from __future__ import annotations

import pytest

from model.config import ModelConfig
from model.console import UserError

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
    config = ModelConfig.from_dict(
        LLAMA | {"model_type": "qwen2", "sliding_window": 4096, "use_sliding_window": False, "max_window_layers": 2}
    )
    assert config.qkv_bias and not config.output_bias


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"model_type": "mamba"}, "mamba"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "yarn"),
        ({"rope_parameters": {"rope_type": "llama3", "rope_theta": 5e5}}, "llama3"),
        ({"hidden_act": "gelu_pytorch_tanh"}, "hidden_act"),
        ({"attention_dropout": 0.1}, "attention_dropout"),
        ({"sliding_window": 4096}, "sliding_window"),
        ({"final_logit_softcapping": 30.0}, "final_logit_softcapping"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        ({"vocab_size": None}, "vocab_size"),
        ({"model_type": "qwen2", "use_sliding_window": True}, "use_sliding_window"),
        ({"model_type": "qwen2", "layer_types": ["full_attention", "sliding_attention"]}, "layer_types"),
    ],
)
def test_what_changes_the_arithmetic_and_is_not_implemented_is_refused_by_name(change, named):
    with pytest.raises(UserError, match=named):
        ModelConfig.from_dict(LLAMA | change)
