"""Small random models of every family that GGUF can hold."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.conftest import randomize

SHAPE = {
    "vocab_size": 400, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 256, "bos_token_id": None, "eos_token_id": 2,
}  # fmt: skip
WIDE = {"head_dim": 32}  # not hidden_size / heads
THETA = {"rope_theta": 10000.0}
GEMMA3_ROPE = {
    "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
    "sliding_attention": {"rope_type": "default", "rope_theta": 2e4},
}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
TRAINED = {"original_max_position_embeddings": 64}


# Every family, with all that llama.cpp has a place for; the probe text is longer than windows and trained lengths.
FAMILIES = {
    "llama": ("Llama", WIDE | {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": False}),
    "llama-llama3": ("Llama", WIDE | {"rope_parameters": LLAMA3 | TRAINED | THETA, "tie_word_embeddings": True}),
    "llama-linear": ("Llama", WIDE | {"rope_parameters": {"rope_type": "linear", "factor": 4.0} | THETA}),
    "llama-yarn": (
        "Llama",
        WIDE | {"rope_parameters": {"rope_type": "yarn", "factor": 4.0, "attention_factor": 1.3} | TRAINED | THETA},
    ),
    "mistral": ("Mistral", WIDE | {"sliding_window": 40}),
    "qwen2": ("Qwen2", {}),
    "qwen3": ("Qwen3", WIDE),
    "gemma": ("Gemma", WIDE),
    "gemma2": ("Gemma2", WIDE | {"sliding_window": 12, "query_pre_attn_scalar": 32, "final_logit_softcapping": 3.0}),
    "gemma3": (
        "Gemma3",
        WIDE
        | {"num_hidden_layers": 7, "sliding_window": 12, "query_pre_attn_scalar": 32, "rope_parameters": GEMMA3_ROPE},
    ),
}  # fmt: skip


def build(name: str, folder: Path, tokenizer_folder: Path, **changes) -> Path:
    """A tiny random model of transformers, saved with a tokenizer."""
    import transformers

    family, settings = FAMILIES[name]
    config = getattr(transformers, f"{family}TextConfig" if family == "Gemma3" else f"{family}Config")
    reference = getattr(transformers, f"{family}ForCausalLM")(config(**SHAPE | settings | changes)).float()
    randomize(reference)
    reference.save_pretrained(folder)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tokenizer_folder / file, folder / file)
    return folder
